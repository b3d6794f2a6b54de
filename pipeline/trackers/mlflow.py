"""MLflow: a run for each training and report, on MLFLOW_TRACKING_URI or in tracking/mlflow."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.files.writing import lock, make_folder, open_lock
from pipeline.tracking import Tracked

EXPERIMENT = "heronry"  # unless MLFLOW_EXPERIMENT_NAME is set
MOST = 100  # parameters of a request


class MlflowRun:
    """A run of MLflow, with the group and the DVC experiment as tags.

    Args:
        tracked: What is shown.
    """

    package = "mlflow"

    def __init__(self, tracked: Tracked) -> None:
        from mlflow.entities import Metric, Param

        self._metric: Any = Metric
        self._client, experiment = _connect(tracked.folder)
        tags = {"heronry.group": tracked.group}
        tags |= {"heronry.experiment": tracked.experiment} if tracked.experiment else {}
        run = self._client.create_run(experiment, run_name=tracked.title, tags=tags)
        self._id = run.info.run_id
        params = [Param(key, value) for key, value in tracked.flat().items()]
        for start in range(0, len(params), MOST):
            self._client.log_batch(self._id, params=params[start : start + MOST])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send numbers."""
        now = round(time.time() * 1000)
        metrics = [self._metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def attach(self, page: Path) -> None:
        """Send the page as an artifact."""
        self._client.log_artifact(self._id, str(page))

    def close(self, *, failed: bool) -> None:
        """End the run as finished or failed."""
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


def _connect(folder: Path) -> tuple[Any, str]:
    """A client, and the id of the experiment; the first of several processes makes it."""
    from mlflow.tracking import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        # Without a server there is only this store that needs no database driver. MLflow wants to
        # be told that it is meant.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        uri = (folder / "mlflow").as_uri()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    make_folder(folder)
    with open_lock(folder / "mlflow.lock") as file:
        lock(file, fcntl.LOCK_EX)
        client: Any = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(name)
        return client, str(found.experiment_id if found else client.create_experiment(name))


build = MlflowRun
