"""Cost of sharing: bytes that a push moves, and DVC's time and disk for a cache of 5 GiB.

    python -m benchmarks.sharing [--json] [--clips 1000] [--gib 5] [--shards 200] [--folder DISK]

Run it in the project's folder; it works in a temporary one. Two parts:

- `moved`: a copy of this project with a corpus of synthetic clips and the backbones `tone` and
  `logmel`. After each change `dvc repro`, then `dvc push` into an empty folder that serves as the
  remote, whose growth is what a push moves (a pull moves as much).
- `large`: a DVC stage whose output is a folder of `--shards` files of random bytes, `--gib` in
  all, as a cache folder is one; what DVC does with a file depends on its size alone. Seconds of
  making the stage known (every byte is hashed once), of `dvc status` and `dvc repro` with nothing
  to do, of push and of pull, and the growth of the disk when the folder is checked out by each
  kind of link.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.shared.sharing_project import MIB, LargeProject, SmallProject, size_of

ROUNDS = 5  # of what takes seconds and changes nothing
LINKS = ("reflink", "hardlink", "symlink", "copy")


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    clips: Annotated[int, typer.Option(min=100, help="Clips of 2 s in the corpus.")] = 1000,
    gib: Annotated[float, typer.Option(help="Size of the large folder.")] = 5.0,
    shards: Annotated[int, typer.Option(min=1, help="Its files.")] = 200,
    folder: Annotated[Path | None, typer.Option(help="On the disk to measure.")] = None,
) -> None:
    """Measure and print both parts."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="heronry-benchmark-") as made:
        result = {"moved": moved(SmallProject(Path(made) / "small", clips), clips)}
    with tempfile.TemporaryDirectory(dir=folder, prefix="heronry-benchmark-") as made:
        result["large"] = large(LargeProject(Path(made), int(gib * 2**30), shards))
    print(json.dumps(result) if as_json else table(result))


def moved(project: SmallProject, clips: int) -> dict[str, Any]:
    """Growth of the remote after each change, and seconds of the push."""
    rows = {"first push": _push(project, {})}
    project.add_clips(clips // 100)
    rows["1 % new utterances"] = _push(project, {})
    rows["one new backbone"] = _push(project, {"fusion": "both"})
    rows["another fusion of the same features"] = _push(project, {"fusion": "wider"})
    return {"clips": clips, "shards": project.shards(), "changes": rows}


def _push(project: SmallProject, changes: dict[str, Any]) -> dict[str, Any]:
    project.change(changes)
    project.dvc("repro")
    before = size_of(project.remote)
    seconds = project.dvc("push")
    return {
        "mib": round((size_of(project.remote) - before) / MIB, 2),
        "push_seconds": round(seconds, 1),
        "features_mib": round(size_of(project.root / "cache") / MIB, 2),
    }


def large(project: LargeProject) -> dict[str, Any]:
    """Seconds of DVC's commands, and the disk that each kind of link takes."""
    result: dict[str, Any] = {"gib": round(project.size / 2**30, 2), "shards": project.shards}
    result["first_repro_seconds"] = round(project.dvc("repro"), 1)
    for name, words in {"status": ("status",), "noop_repro": ("repro",)}.items():
        found = [project.dvc(*words) for _ in range(ROUNDS)]
        result[f"{name}_seconds"] = {
            "median": round(statistics.median(found), 2),
            "range": [round(min(found), 2), round(max(found), 2)],
        }
    result["push_seconds"] = round(project.dvc("push"), 1)
    result["lock_bytes"] = (project.root / "dvc.lock").stat().st_size
    result["listing_bytes"] = project.listing_bytes()
    result["links"] = {kind: project.checkout(kind) for kind in LINKS}
    project.forget()
    result["pull_seconds"] = round(project.dvc("pull"), 1)
    return result


def table(result: dict[str, Any]) -> str:
    """Both parts for people."""
    small, big = result["moved"], result["large"]
    lines = [f"{small['clips']} clips, {small['shards']} shards a backbone"]
    lines += [
        f"  {name:36} {row['mib']:8} MiB moved in {row['push_seconds']} s; "
        f"caches hold {row['features_mib']} MiB"
        for name, row in small["changes"].items()
    ]
    lines.append(f"{big['gib']} GiB in {big['shards']} shards")
    lines += [
        f"  {name:36} {json.dumps(value)}"
        for name, value in big.items()
        if name not in ("gib", "shards", "links")
    ]
    lines += [f"  checkout by {kind:24} {json.dumps(row)}" for kind, row in big["links"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
