"""`heronry build heron lpgnet`: extract what models need, without training them.

The outputs are those of the extract stages of `dvc exp run -S fusion=heron`, so that a team mate
who pulls them trains without a corpus and without a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import typer

from features.arguments import refuse
from features.errors import ParamsError
from features.files.yaml_text import read_yaml_file
from pipeline.params.catalogue.entries import expected_entry
from pipeline.params.file import Params, read_params
from pipeline.params.selection import REGIMES
from pipeline.storage.dvc_command import PREPARE, extract_stage, run_dvc, shown, torn_locks

_STAGES = dict.fromkeys(REGIMES, "train") | {"e2e": "e2e"}
_CACHE = re.compile(r"cache/\$\{corpus\}/\$\{item\.(\w+)\}")


def build(
    models: list[str],
    *,
    corpus: str | None = None,
    pull: bool = False,
    push: bool = False,
    dry: bool = False,
) -> None:
    """Extract the features that some models need on a corpus; nothing is trained."""
    params = read_params(Path("params.yaml"))
    chosen = corpus or params.corpus
    if chosen not in params.corpora:
        expected = expected_entry("corpora", chosen, params.corpora)
        raise ParamsError(f"corpus {chosen!r}; expected {expected}")
    targets = extract_targets(params, models, chosen)
    if dry:
        for target in targets:
            typer.echo(target)
        return
    refuse(torn_locks())
    # --keep-going: a missing checkpoint must not stop the extraction of other backbones.
    how = ["--pull", "--allow-missing"] if pull else []
    _run(["repro", "--keep-going", *how, *targets])
    if push:
        _run(["push", "--run-cache", PREPARE.format(corpus=chosen), *targets])


def extract_targets(params: Params, models: Sequence[str], corpus: str) -> list[str]:
    """DVC's names of the extract stages of some models' slots, each once.

    `none` is among them where a slot is empty: its (empty) output is a dependency of training.
    In the regime e2e these are prosody, which is not trained, and the slots that read words.

    Raises:
        ParamsError: If models are unknown or malformed; all of them are named in one message.
    """
    slots, needed, found = _cached_slots(params.regime), set(), []
    for name in models:
        try:
            entry = params.model(name)
        except ParamsError as error:
            found.append(str(error))
            continue
        needed |= {getattr(entry, slot) for slot in slots}
    refuse(found)
    return [extract_stage(params, corpus, name) for name in sorted(needed)]


def _cached_slots(regime: str) -> list[str]:
    """Slots whose caches training depends on, read from the stage's dvc.yaml."""
    if regime not in _STAGES:
        raise ParamsError(f"regime: given {regime!r}; expected one of {list(REGIMES)}")
    stage = _STAGES[regime]
    path = Path("stages", stage, "dvc.yaml")
    stages = read_yaml_file(path)["stages"]
    matches = map(_CACHE.fullmatch, stages[stage]["do"]["deps"])
    return [match[1] for match in matches if match]


def _run(words: list[str]) -> None:
    typer.echo(f"> {shown(words)}")
    run_dvc(words)
