"""Fixtures: a small model of each kind, written and loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.speech_llm.models._local import LocalModel
from pipeline.speech_llm.models.base import KINDS, Kind, ModelSettings, load
from tests.support.models.small_speech_llms import SMALL

Loader = Callable[..., LocalModel]


@pytest.fixture(scope="session", autouse=True)
def private_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Code of checkpoints is copied to a folder of the tests, and not to the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", cache)
        yield


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Path]:
    """Folder of a kind's checkpoint."""
    written: dict[Kind, Path] = {}

    def folder(kind: Kind) -> Path:
        if kind not in written:
            written[kind] = SMALL[kind](tmp_path_factory.mktemp(kind))
        return written[kind]

    return folder


def read(kind: Kind, folder: Path, **options: Any) -> LocalModel:
    """Load a folder; code of its own is trusted."""
    options = {"trust_remote_code": kind == "meralion", **options}
    model = load(ModelSettings("small", kind, str(folder), **options))
    assert isinstance(model, LocalModel)
    return model


@pytest.fixture(scope="session")
def models(folders: Callable[[Kind], Path]) -> Callable[[Kind], LocalModel]:
    """Model of a kind; tests leave it as it is."""
    loaded: dict[Kind, LocalModel] = {}

    def model(kind: Kind) -> LocalModel:
        if kind not in loaded:
            loaded[kind] = read(kind, folders(kind))
        return loaded[kind]

    return model


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def model(kind: Kind, models: Callable[[Kind], LocalModel]) -> LocalModel:
    return models(kind)
