"""Settings of end-to-end training: the section `e2e` of params.yaml.

Settings of both regimes (losses, metrics, schedule, early stopping) are `pipeline.params.training`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from features.arguments import one_of, problems, quoted, refuse, shown_key
from features.ranges import Amount, Count, Interval, MinLen, Positive, Probability, Share, Width
from pipeline.params.training import LearningRate

LIVE = ("text", "speech", "nonverbal", "spectral")  # slots whose backbones are part of the model


@dataclass(frozen=True)
class SlotTuning:
    """Trained parts of one slot's backbone, and their learning rates.

    Attributes:
        tune: `full` trains its weights, `lora` low-rank adapters beside frozen weights, `frozen`
            nothing.
        freeze_front_end: Whether the convolutions ahead of the first block stay as they are.
        freeze_layers: Number of lowest blocks that stay as they are; with any of them, so does
            everything below the first.
        lr: Learning rate at the start; None: the protocol's. Schedules scale both alike.
        layer_decay: Factor of the rate from each block to the one below, the last block's being 1.
    """

    tune: Literal["full", "lora", "frozen"] = "full"
    freeze_front_end: bool = True
    freeze_layers: Amount = 0
    lr: LearningRate | None = None
    layer_decay: Annotated[float, Interval(gt=0, le=1)] = 1.0


@dataclass(frozen=True)
class LoraParams:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W + alpha / rank B A, with B = 0 first.

    Attributes:
        rank: Rank of B A.
        alpha: Numerator of the scale.
        dropout: Dropout rate of the input of A.
        targets: Ends of the names of linear layers that get an adapter; None: queries and values
            of the attention, as in the paper.
    """

    rank: Width = 8
    alpha: Positive = 16.0
    dropout: Share = 0.05
    targets: Annotated[list[str], MinLen(1)] | None = None


@dataclass(frozen=True)
class InitRun:
    """Run that training takes its first fusions from.

    Attributes:
        run: Run folder, relative to the project, also where DVC runs a copy of it.
        sha256: Hash of its fusions, which is checked (`pipeline.e2e.setup.fusions_sha256`).
    """

    run: Annotated[str, MinLen(1)]
    sha256: str | None = None


@dataclass(frozen=True)
class TuneParams:
    """The keys of `e2e`.

    Attributes:
        precision: Precision of the networks on the device; weights and updates are float32.
        gradient_checkpointing: Whether blocks are computed again in the backward pass, which
            takes a third more time and keeps the input of each block alone.
        batch_seconds: Padded seconds at which a batch closes; None: at `train.batch_size`.
        specaugment: Share of the frames that are masked while training.
        spectrogram_masks: Probability that one span of mel bands and one of frames of a
            spectrogram are masked while training; only for CED, 0.5 in the MDAT code.
        random_crop: Probability that a clip of more than 3 s is replaced by a random part of at
            least 3 s while training; only for CED, 0.5 in the MDAT code.
        save_seconds: Seconds between two checkpoints of a training.
        keep: Number of checkpoints that are kept.
        init: Keys of `InitRun`; None: fresh fusions.
        lora: Keys of `LoraParams`, for all slots with `tune: lora`.
        slots: Keys of `SlotTuning` for each of text, speech, nonverbal, spectral; null: the
            default, or in params.yaml the model's own value.
    """

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    gradient_checkpointing: bool = False
    batch_seconds: Positive | None = None
    specaugment: Share = 0.0
    spectrogram_masks: Probability = 0.0
    random_crop: Probability = 0.0
    save_seconds: Positive = 600.0
    keep: Count = 2
    init: Mapping[str, Any] | None = None
    lora: Mapping[str, Any] = field(default_factory=dict)
    slots: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse(tune_problems(vars(self)))

    @property
    def adapters(self) -> LoraParams:
        """The settings of the adapters."""
        return LoraParams(**self.lora)

    @property
    def beginning(self) -> InitRun | None:
        """The run that training starts from."""
        return None if self.init is None else InitRun(**self.init)

    def of(self, slot: str) -> SlotTuning:
        """The settings of a slot."""
        return SlotTuning(**filled_tuning({slot: self.slots.get(slot, {})}, {})[slot])


def filled_tuning(
    given: Mapping[str, Mapping[str, Any]], own: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Settings by slot in which a null of `given` is the value of `own`, else the default.

    >>> filled_tuning({"text": {"lr": None, "tune": None}}, {"text": {"tune": "lora"}})
    {'text': {'lr': None, 'tune': 'lora'}}
    """
    usual, filled = asdict(SlotTuning()), {}
    for slot in {**given, **own}:
        here = given.get(slot, {})
        said = {key: value for key, value in here.items() if value is not None}
        merged = {**here, **own.get(slot, {}), **said}
        filled[slot] = {k: usual[k] if value is None else value for k, value in merged.items()}
    return filled


def own_tune_problems(given: Mapping[str, Any], where: str) -> list[str]:
    """Problems of the key `e2e` of a model, one line each."""
    others = [
        f"{where}.{shown_key(key)}: given a setting of the section `e2e`; expected `slots` alone"
        for key in given
        if key != "slots"
    ]
    return others or tune_problems(given, where)


def tune_problems(given: Mapping[str, Any], where: str = "e2e") -> list[str]:
    """Problems of the section, one line each."""
    init = given.get("init")
    if isinstance(init, str):  # the form of an older release, without a hash
        shown = quoted(init)
        return [
            # `quoted` puts quotes around it.
            f"{where}.init: given {shown}; expected {{run: {shown[1:-1] or 'RUN'}, sha256: ...}}: "
            "with `sha256: null` e2e and `heronry check` say the hash to write"
        ]
    if "tensorboard" in given:  # of an older release, where it was for this regime alone
        return [
            f"{where}.tensorboard: given, expected nothing: take it out; where it was true, set "
            "`trackers: [tensorboard]`, which is for both regimes"
        ]
    found = problems(TuneParams, given, where)
    for name, record in (("init", InitRun), ("lora", LoraParams)):
        if isinstance(given.get(name), Mapping):  # otherwise it is among the problems already
            found += problems(record, given[name], f"{where}.{name}")
    slots = given.get("slots")
    for slot, settings in slots.items() if isinstance(slots, Mapping) else ():
        place = f"{where}.slots.{shown_key(slot)}"
        if slot not in LIVE:
            found.append(
                f"{place}: given a slot that is read from its cache; expected {one_of(slot, LIVE)}"
            )
        elif not isinstance(settings, Mapping):
            found.append(f"{place}: given {quoted(settings)}; expected a mapping")
        else:
            set_here = {key: value for key, value in settings.items() if value is not None}
            found += problems(SlotTuning, set_here, place)
    return found
