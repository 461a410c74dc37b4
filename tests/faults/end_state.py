"""End states of output folders: what a run left on disk, without its times, and how two of them differ."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

# Keys of JSON documents that hold a time, or follow from one.
VOLATILE = frozenset(
    {
        "added",
        "command",
        "computing",
        "content_sha256",
        "milliseconds_per_image",
        "reading",
        "seconds",
        "time",
        "training_seconds",
        "writing",
    }
)
# Keys by which records of a log are told apart; the first that a record has.
_NAMES = (("path",), ("output",), ("name",), ("row", "column"))
_TIMES = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?|[\d.]+(?:e-?\d+)?(?=\s*(?:ms|s|min|h|milliseconds?|seconds?)\b)"
)
_TABLE, _ROW, _CELL = (re.compile(f"<{tag}\\b.*?</{tag}>", re.S) for tag in ("table", "tr", "td"))
_HEAD = re.compile(r"<th\b[^>]*>(?:<button[^>]*>)?([^<]*)")
_UNITS = frozenset({"ms", "s", "seconds"})

Record = tuple[str, str]
"""Name and content of a record."""
Content = str | Counter[Record]


@dataclass(frozen=True)
class Differences:
    """Differences of an end state from that of an undisturbed run, as lines for people."""

    lost: list[str] = field(default_factory=list)
    """Files and records that are missing."""
    doubled: list[str] = field(default_factory=list)
    """Records that are there more than once."""
    wrong: list[str] = field(default_factory=list)
    """Files and records with other content, and records that should not be there."""
    left_overs: list[str] = field(default_factory=list)
    """Files and folders that should not be there."""

    @property
    def lines(self) -> list[str]:
        """All differences."""
        return [
            f"{kind}: {line}"
            for kind, lines in (
                ("lost", self.lost),
                ("doubled", self.doubled),
                ("wrong", self.wrong),
                ("left over", self.left_overs),
            )
            for line in lines
        ]


def read_state(folder: Path, ignored: Collection[str] = ()) -> dict[str, Content]:
    """Content of every file and folder below ``folder`` by its path, without times.

    A log (``.jsonl``), or a table (``.csv``), is the count of its records, other JSON a document without ``VOLATILE`` keys, a page its text
    without times; any other file is its SHA-256. Folders end in a slash. Paths that match a pattern of ``ignored`` are left out.
    """
    state: dict[str, Content] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(fnmatch(name, pattern) for pattern in ignored):
            continue
        if path.is_dir():
            state[f"{name}/"] = "folder"
        else:
            state[name] = _read(path)
    return state


def differences(expected: Mapping[str, Content], found: Mapping[str, Content]) -> Differences:
    """Differences of the state ``found`` from ``expected``."""
    result = Differences()
    result.lost.extend(name for name in expected if name not in found)
    result.left_overs.extend(name for name in found if name not in expected)
    for name, content in expected.items():
        other = found.get(name, content)
        if isinstance(content, Counter) and isinstance(other, Counter):
            _compare_records(name, content, other, result)
        elif content != other:
            result.wrong.append(name)
    return result


def _compare_records(
    log: str, expected: Counter[Record], found: Counter[Record], result: Differences
) -> None:
    wanted, there = _by_name(expected), _by_name(found)
    for name in {**wanted, **there}:
        line, before, after = f"{log}: {name}", wanted[name], there[name]
        if after.total() < before.total():
            result.lost.append(line)
        elif not before:
            result.wrong.append(line)
        elif after.total() > before.total():
            result.doubled.append(line)
        elif after != before:
            result.wrong.append(line)


def _by_name(records: Counter[Record]) -> dict[str, Counter[str]]:
    named: dict[str, Counter[str]] = {}
    for (name, content), count in records.items():
        named.setdefault(name, Counter())[content] += count
    return _Missing(named)


class _Missing(dict[str, Counter[str]]):
    """Dictionary with no records under names that it lacks."""

    def __missing__(self, name: str) -> Counter[str]:
        return Counter()


def _read(path: Path) -> Content:
    data = path.read_bytes()
    read = _READERS.get(path.suffix)
    if read is not None:
        try:
            return read(data.decode("utf-8"))
        except ValueError:
            return f"damaged {hashlib.sha256(data).hexdigest()}"
    return hashlib.sha256(data).hexdigest()


def _document(text: str) -> str:
    return json.dumps(_timeless(json.loads(text)), sort_keys=True)


def _text(text: str) -> str:
    return _TIMES.sub("TIME", text)


def _page(text: str) -> str:
    """An HTML page without times, which in tables have their unit in the head of their column."""
    return _text(_TABLE.sub(lambda table: _timeless_table(table[0]), text))


def _timeless_table(table: str) -> str:
    timed = {place for place, head in enumerate(_HEAD.findall(table)) if not _UNITS.isdisjoint(head.split())}

    def row(found: re.Match[str]) -> str:
        cells = _CELL.findall(found[0])
        return "".join("TIME" if place in timed else cell for place, cell in enumerate(cells))

    return _ROW.sub(row, table) if timed else table


def _log(text: str) -> Counter[Record]:
    """Records of a log; a line that is none has no name."""
    records: Counter[Record] = Counter()
    for line in text.splitlines():
        try:
            record = _timeless(json.loads(line))
        except ValueError:
            records["a damaged line", line] += 1
            continue
        records[_name_of(record), json.dumps(record, sort_keys=True)] += 1
    return records


def _rows(text: str) -> Counter[Record]:
    """Records of a table in CSV."""
    rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    return Counter((_name_of(row), json.dumps(_timeless(row), sort_keys=True)) for row in rows)


def _name_of(record: Any) -> str:
    if isinstance(record, dict):
        for keys in _NAMES:
            if all(key in record for key in keys):
                return ", ".join(str(record[key]) for key in keys)
    return "a record without a name"


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    return value


_READERS: dict[str, Callable[[str], Content]] = {
    ".csv": _rows,
    ".html": _page,
    ".json": _document,
    ".jsonl": _log,
    ".md": _text,
}
