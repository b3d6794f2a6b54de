"""Finished parts of a prediction, kept until all are done: a killed command goes on from them.

They are lines of a file in the work store, `predictions/<fingerprint>/done.jsonl`, named by
everything that decides the numbers: models, backbones, recordings, pieces, kind of device. A line
is one part; one that was torn is computed again.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from features.errors import MachineError
from features.files.writing import lock, make_folder, open_lock, remove_folder
from features.settings.locations import store_root
from pipeline.predict.predictor import Answer
from pipeline.runtime.resume import PREDICTIONS, forget

FORMAT = "1"  # of the lines
HELD = 8  # parts that are kept parsed: rows of a dialogue may lie in several


class Work:
    """The finished parts of one prediction; made by `Work.opened`.

    Args:
        folder: Folder of this prediction alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "done.jsonl"
        self._places = dict(self._sound())
        self.read = functools.lru_cache(HELD)(self._read)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, facts: Mapping[str, Any]) -> Iterator[Work]:
        """Context that holds the finished parts of what `facts` describe, and locks them.

        They are removed by `forget`, or by a prediction a month later.

        Raises:
            MachineError: If another process is at the same prediction.
        """
        text = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
        folder = store_root() / PREDICTIONS / hashlib.sha256(text.encode()).hexdigest()
        make_folder(folder)
        with open_lock(folder / "lock") as file:
            if not lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                raise MachineError(
                    f"another process predicts the same (its work is in {folder}); expected one "
                    "at a time: wait for it, or end it"
                )
            remove_folder(folder / "scratch")  # of a process that was killed
            yield cls(folder)

    def scratch(self, name: str) -> Path:
        """Folder for temporary files of one process."""
        return self.folder / "scratch" / name

    def has(self, group: int, part: int) -> bool:
        """Whether a part is finished."""
        return (group, part) in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, group: int, part: int, answers: Sequence[Answer]) -> None:
        """Keep the answers of a part."""
        fields = {"group": group, "part": part, "answers": [_plain(each) for each in answers]}
        with self._path.open("ab") as file:
            self._places[group, part] = file.tell()
            file.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")

    def forget(self) -> None:
        """Remove all of it: it has been written elsewhere."""
        forget(self.folder)

    def _read(self, group: int, part: int) -> list[Answer]:
        with self._path.open("rb") as file:
            file.seek(self._places[group, part])
            return [Answer(**fields) for fields in json.loads(file.readline())["answers"]]

    def _sound(self) -> Iterator[tuple[tuple[int, int], int]]:
        """Place of each whole line; what follows the last of them is cut off."""
        if not self._path.exists():
            return
        place = 0
        with self._path.open("rb+") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                fields = json.loads(line)
                yield (fields["group"], fields["part"]), place
                place += len(line)
            file.truncate(place)


def _plain(answer: Answer) -> dict[str, Any]:
    """Fields that say something."""
    return {name: value for name, value in asdict(answer).items() if value or value == ""}
