"""All commands of `heronry`: their arguments, help and examples.

Each imports the module that does its work when it is called: torch, pyarrow and matplotlib take
seconds, which neither `--help` nor a shell that completes a word should wait for. It is one file,
in which each command is a page of its help, in the order in which `--help` lists them.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import typer

from features.process.interrupts import importing
from pipeline.command_line import completion
from pipeline.command_line.cache import app as cache
from pipeline.command_line.experiments import Corpus, Pull, build, prompts, recipe, transfer
from pipeline.command_line.export import export
from pipeline.command_line.predict import predict
from pipeline.command_line.segment import segment
from pipeline.command_line.serve import serve
from pipeline.commands.schema import schema
from pipeline.commands.share import app as share

PREPARING, RUNNING, RESULTS, FEATURES = "Before a run", "Run", "Results", "Features"
_EPILOG = (
    "Four commands inspect the project and compute nothing. `check`, before a run: are "
    "params.yaml, the corpus, the checkpoints and this machine in order? `plan`, before a run: "
    "what would be extracted, and why? `doctor`, afterwards: are the caches intact, and still "
    "those that params.yaml asks for? (With --repair it moves damaged files away.) "
    "`cache verify`: as `doctor`, but it never changes a file."
)
# Of `pipeline.compare`, which is not imported to print a default.
FLIPS, PERMUTATIONS, LEAST_PERMUTATIONS = 10, 9999, 2000
_UNIT = (
    "Drawn and swapped as a whole. Default: dialogues of conversations, else speakers. Where a few "
    "people speak in all dialogues, only `speaker` generalises to others."
)
Unit = Literal["speaker", "dialogue"]
Column = Literal["metric", "name", "fusion", "regime", "seeds", "seconds"]
_METRIC = (
    "Number of reports/metrics.json or details.json that ranks, such as valid_uar. One of the test "
    "split is marked: the best of many by it is partly luck, and its score too high."
)
_RUNS = "A run folder, predictions.csv or .parquet, a DVC experiment or revision, or `workspace`."
_FOLD_RUNS = "A run of one fold: a run folder, predictions.csv, a DVC experiment or a revision."
_CACHES = "Folders of features, such as cache/demo/minilm. Default: all of cache/."

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, epilog=_EPILOG)


def _print_version(*, asked: bool) -> None:
    if asked:
        try:
            typer.echo(f"heronry {version('heronry')}")
        except PackageNotFoundError:
            typer.echo("heronry, not installed: pip install --no-deps --editable .")
        raise typer.Exit


@app.callback()
def heronry(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=lambda value: _print_version(asked=value),
            help="Print the version, and exit.",
        ),
    ] = False,
) -> None:
    """Recognise emotion in speech: cached features, fusion models and reports, tracked by DVC."""


@app.command(rich_help_panel=PREPARING, epilog="Example: heronry check --deep")
def check(
    *, deep: Annotated[bool, typer.Option("--deep", help="Also hash every audio file.")] = False
) -> None:
    """Check params, slots, the corpus (without its audio) and checkpoints; list all problems."""
    with importing():
        from pipeline.commands.check import check as command
    command(deep=deep)


@app.command(rich_help_panel=PREPARING, epilog="Example: heronry plan minilm whisper_tiny_en")
def plan(
    backbones: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BACKBONE",
            help="Entries of `backbones`. Default: those in the model's slots.",
            autocompletion=completion.backbones,
        ),
    ] = None,
) -> None:
    """Print what extraction would compute for the selected experiment, and why."""
    with importing():
        from pipeline.commands.plan import plan as command
    command(backbones)


@app.command(rich_help_panel=PREPARING, epilog="Example: heronry add model text")
def add(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="WHAT",
            help="corpus, backbone, model, ensemble or speech_llm.",
            autocompletion=completion.kinds_of_entry,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="ENTRY", help="Entry of the catalogue.", autocompletion=completion.catalogue
        ),
    ] = None,
    *,
    list_all: Annotated[bool, typer.Option("--list", help="List the catalogue.")] = False,
) -> None:
    """Copy an entry of the catalogue into params.yaml, and the backbones that a model needs."""
    with importing():
        from pipeline.commands.add import add as command
    command(what, name, list_all=list_all)


app.command(
    rich_help_panel=PREPARING,
    epilog="Example: heronry segment talks --rttm talks.rttm --out talks/manifest.csv",
)(segment)


@app.command(rich_help_panel=PREPARING, epilog="Example: heronry corpora demo")
def corpora(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="CORPUS",
            help="Entry of `corpora`. Default: a line for each.",
            autocompletion=completion.corpora,
        ),
    ] = None,
) -> None:
    """List the corpora of params.yaml, or print the card of one."""
    with importing():
        from pipeline.commands.corpora import corpora as command
    command(name)


app.command(rich_help_panel=PREPARING, epilog="Example: heronry schema")(schema)


@app.command(
    rich_help_panel=RUNNING,
    epilog="Example: heronry run concat --corpus mine --seeds 1 -S train.lr=1e-4",
)
def run(
    fusion: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Entry of `models`, `ensembles`, `speech_llms`. Default: that of params.yaml.",
            autocompletion=completion.fusions,
        ),
    ] = None,
    *,
    corpus: Corpus = None,
    seeds: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=1000, help="Default: the model's own number."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the experiment. Default: what was asked for."),
    ] = None,
    queue: Annotated[
        bool, typer.Option("--queue", help="Only queue it, for `dvc queue start`.")
    ] = False,
    pull: Pull = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            *("-S", "--set-param"),
            metavar="KEY=VALUE",
            help="Setting of params.yaml for this experiment; may be repeated.",
            autocompletion=completion.setting_keys,
        ),
    ] = None,
) -> None:
    """Check what is asked for, run it by `dvc exp run`, and print its scores.

    params.yaml is afterwards as it was before. The printed command gives the same results.
    """
    with importing():
        from pipeline.commands.run import Asked
        from pipeline.commands.run import run as command
    asked = Asked(fusion, corpus, seeds, tuple(settings or ()))
    command(asked, name=name, queue=queue, pull=pull)


app.command(rich_help_panel=RUNNING, epilog="Example: heronry recipe demo_attributes --plan")(
    recipe
)
app.command(
    rich_help_panel=RUNNING,
    epilog="Example: heronry prompts qwen2_audio --prompts stages/speech_llm/prompts",
)(prompts)
app.command(rich_help_panel=RUNNING, epilog="Example: heronry build heron lpgnet --push")(build)
app.command(rich_help_panel=RUNNING, epilog="Example: heronry transfer demo mine --fusion concat")(
    transfer
)


@app.command(rich_help_panel=RESULTS, epilog="Example: heronry show")
def show() -> None:
    """Print the headline table of the last report, and the path of its page."""
    with importing():
        from pipeline.commands.show import show as command
    command()


@app.command(rich_help_panel=RESULTS, epilog="Example: heronry board --metric valid_uar --quick")
def board(
    *,
    metric: Annotated[
        str,
        typer.Option(metavar="METRIC", help=_METRIC, autocompletion=completion.metric_names),
    ] = "valid_macro_f1",
    sort: Annotated[Column, typer.Option(help="Column that orders the rows.")] = "metric",
    all_commits: Annotated[
        bool, typer.Option("--all-commits", help="Experiments of all commits, not just the last.")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Read no predictions: ties by intervals alone, no run folders."
        ),
    ] = False,
    unit: Annotated[Unit | None, typer.Option(help=f"{_UNIT} For the test of ties.")] = None,
    as_object: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """List the experiments, best on validation first, marking those that test no worse."""
    with importing():
        from pipeline.commands.board import board as command
    command(
        metric=metric,
        sort=sort,
        all_commits=all_commits,
        quick=quick,
        unit=unit,
        as_object=as_object,
    )


@app.command(rich_help_panel=FEATURES, epilog="Example: heronry layers ravdess whisper_tiny_en_all")
def layers(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS", help="Entry of `corpora`.", autocompletion=completion.corpora
        ),
    ],
    entries: Annotated[
        list[str],
        typer.Argument(
            metavar="ENTRY",
            help="Entry of `backbones` with several layers, or several that differ by layer alone.",
            autocompletion=completion.backbones,
        ),
    ],
) -> None:
    """Score a linear probe on each layer of extracted features, and write a page."""
    with importing():
        from pipeline.commands.layers import layers as command
    command(corpus, entries)


@app.command(rich_help_panel=RESULTS, epilog="Example: heronry compare workspace main")
def compare(  # noqa: PLR0913  each is an option
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help=_RUNS, autocompletion=completion.runs)
    ],
    *,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Every run with every other, not just the first.")
    ] = False,
    flips: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Changed utterances to list, for each direction."),
    ] = FLIPS,
    permutations: Annotated[
        int,
        typer.Option(metavar="N", min=LEAST_PERMUTATIONS, help="Largest number of permutations."),
    ] = PERMUTATIONS,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Random seed of the permutations.")
    ] = 0,
    as_object: Annotated[bool, typer.Option("--json", help="Print JSON, not tables.")] = False,
    unit: Annotated[Unit | None, typer.Option(help=_UNIT)] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page to this file.")
    ] = None,
) -> None:
    """Compare runs on the test utterances that all of them predicted, with paired tests."""
    with importing():
        from pipeline.commands.compare import compare as command
        from pipeline.compare.comparison import Settings
    settings = Settings(
        all_pairs=all_pairs, flips=flips, permutations=permutations, seed=seed, unit=unit
    )
    command(runs, settings, as_object=as_object, html=html)


@app.command(rich_help_panel=RESULTS, epilog="Example: heronry join fold-0 fold-1 fold-2")
def join(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help=_FOLD_RUNS, autocompletion=completion.runs)
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for predictions.csv.")] = Path(
        "joined"
    ),
) -> None:
    """Join the test predictions of single folds into one table, and score them together.

    The fold of each run is its position in the list. `heronry compare` takes the table.
    """
    with importing():
        from pipeline.commands.join import join as command
    command(runs, out=out)


@app.command(
    rich_help_panel=RESULTS,
    epilog="Example: heronry challenge runs/cached/msp_podcast/heron --task 2 --out task2.csv",
)
def challenge(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run folder with unlabelled utterances.",
            autocompletion=completion.run_folders,
        ),
    ],
    *,
    task: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=2, help="1: classes; 2: arousal, valence and dominance."
        ),
    ],
    file: Annotated[Path, typer.Option("--out", metavar="FILE", help="CSV file to write.")] = Path(
        "challenge.csv"
    ),
) -> None:
    """Write predictions of unlabelled utterances as the MSP-Podcast challenge takes them.

    Those of all seeds and folds are averaged.
    """
    with importing():
        from pipeline.commands.challenge import challenge as command
    command(run, task=task, out=file)


app.command(
    rich_help_panel=RESULTS,
    epilog="Example: heronry predict runs/cached/demo/heron calls/*.wav --csv emotions.csv",
)(predict)
app.command(
    rich_help_panel=RESULTS,
    epilog="Example: heronry export runs/cached/demo/heron exported --push someone/heron-demo",
)(export)
app.command(rich_help_panel=RESULTS, epilog="Example: heronry serve runs/cached/demo/heron")(serve)


@app.command(rich_help_panel=FEATURES, epilog="Example: heronry doctor cache/demo/minilm --repair")
def doctor(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help=_CACHES, autocompletion=completion.caches),
    ] = None,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move bad files to cache/.quarantine.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="Also load and hash the weights.")
    ] = False,
) -> None:
    """Read caches completely and report every fault; exit status 1 if there are any."""
    with importing():
        from pipeline.commands.doctor import doctor as command
    command(folders, repair=repair, weights=weights)


app.add_typer(cache, name="cache", rich_help_panel=FEATURES)
app.add_typer(share, name="share", rich_help_panel=FEATURES)
