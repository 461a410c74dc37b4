"""Commands that write records as those of the product do, some of them with a fault that kills bring out."""

from __future__ import annotations

import json
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

NAMES = ("a", "b", "c")
OUT = Path("out")
RECORDS = OUT / "records.jsonl"


def sound() -> None:
    """Go on behind the last record, after removing what a killed run left."""
    _clear()
    for name in _left(_recorded()):
        _write_file(name)
        _append(name)


def losing() -> None:
    """Take a file for finished that has no record."""
    _clear()
    for name in _left([path.stem for path in OUT.glob("*.txt")]):
        _write_file(name)
        _append(name)


def doubling() -> None:
    """Write a record before its file, and again where the file is missing."""
    _clear()
    for name in _left([path.stem for path in OUT.glob("*.txt")]):
        _append(name)
        _write_file(name)


def changing() -> None:
    """Write into the records how many the run found."""
    _clear()
    found = len(_recorded())
    for name in _left(_recorded()):
        _write_file(name)
        _append(name, score=found)


def leaving() -> None:
    """Leave the temporary file of a killed run."""
    OUT.mkdir(exist_ok=True)
    for name in _left(_recorded()):
        _write_file(name)
        _append(name)


def refusing() -> None:
    """Refuse what a killed run left, and offer nothing."""
    if RECORDS.exists():
        sys.exit(f"{RECORDS}: is there already")
    sound()


def offering() -> None:
    """Refuse what a killed run left, and offer to go on."""
    if RECORDS.exists() and "--resume" not in sys.argv:
        sys.exit(f"{RECORDS}: is there already; go on with --resume")
    sound()


def offering_removal() -> None:
    """Refuse what a killed run left, and offer to remove it."""
    if RECORDS.exists():
        sys.exit(f"blemish: {OUT}: is not empty; choose another, or remove that folder")
    sound()


def forgetting() -> None:
    """Refuse what a killed run left, and offer to throw its checkpoint away."""
    checkpoint = OUT / "checkpoint" / "state.json"
    if checkpoint.exists() and "--overwrite" not in sys.argv:
        sys.exit(f"{OUT}: is not empty; pass --overwrite")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text("{}", encoding="utf-8")
    sound()
    checkpoint.unlink()
    checkpoint.parent.rmdir()


def filling() -> None:
    """Say that the disk is full where it is."""
    try:
        sound()
    except OSError as error:
        sys.exit(f"{RECORDS}: the disk is full ({error.strerror}); free some space")


def careless() -> None:
    """Take no notice of a disk that is full."""
    _clear()
    for name in _left(_recorded()):
        with suppress(OSError):
            _write_file(name)
            _append(name)


def reading() -> None:
    """Record the content of each image of a folder, which is read once."""
    _read_images(twice=False)


def reading_twice() -> None:
    """Record parts of two contents of each image of a folder, where it changes between two readings."""
    _read_images(twice=True)


def _read_images(*, twice: bool) -> None:
    _clear()
    records = []
    for path in sorted(Path(sys.argv[1]).iterdir()):
        try:
            first = path.read_bytes()
            second = path.read_bytes() if twice else first
        except OSError:
            sys.exit(f"{path}: cannot be read; put it back")
        records.append(json.dumps({"path": path.name, "begin": first[:60].hex(), "end": second[-60:].hex()}))
    RECORDS.write_text("\n".join(records), encoding="utf-8")


def _clear() -> None:
    OUT.mkdir(exist_ok=True)
    for path in OUT.glob(".part-*"):
        path.unlink()


def _left(done: list[str]) -> list[str]:
    return [name for name in NAMES if name not in done]


def _recorded() -> list[str]:
    if not RECORDS.exists():
        return []
    return [json.loads(line)["path"] for line in RECORDS.read_text(encoding="utf-8").splitlines()]


def _write_file(name: str) -> None:
    temporary = OUT / f".part-{secrets.token_hex(4)}"
    temporary.write_text(name, encoding="utf-8")
    os.replace(temporary, OUT / f"{name}.txt")


def _append(name: str, score: int = 0) -> None:
    with open(RECORDS, "ab", buffering=0) as file:
        file.write(json.dumps({"path": name, "score": score}).encode() + b"\n")


FAULTY = {
    "losing": "lost",
    "doubling": "doubled",
    "changing": "differing",
    "leaving": "left_overs",
    "refusing": "refused",
    "forgetting": "unresumed",
}
"""The fault of each command that has one."""
