"""Arrays of any size on disk, written block by block: a finished block stays, whatever happens to the next.

A tiled file is a Zarr group, ``NAME.zarr``, beside a log of its blocks, ``NAME.blocks.jsonl``. Every array is cut
into the same blocks, one chunk each, and a block's line is added to the log after its last chunk: a chunk is never
half old and half new, and a block that has a line is whole.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from blemish.errors import FileError, UsageError
from blemish.storage.blocks import Block, blocks
from blemish.storage.records_log import RecordsLog, unwritable
from blemish.storage.run_folder import RunFolder, RunMark

TILED, JOURNAL = ".zarr", ".blocks.jsonl"
CONTENT = "content_sha256"
"""Attribute of the arrays."""


class BlockRecord(BaseModel):
    """The line of a finished block; ``row`` and ``column`` count blocks."""

    model_config = ConfigDict(frozen=True)

    row: int
    column: int


R = TypeVar("R", bound=BlockRecord)


@dataclass(frozen=True)
class Layer:
    """One array of a tiled file: (*leading, height, width) of the area, divided by ``reduction``.

    A chunk is one block of one plane, or of all planes where they are wanted ``together``.
    """

    leading: tuple[int, ...] = ()
    reduction: int = 1
    dtype: str = "float16"
    together: bool = False


class TiledArrays:
    """The arrays of a tiled file that is there, to be written block by block; a copy in another process writes them too.

    Parameters
    ----------
    path: with its suffix.
    """

    def __init__(self, path: Path, layers: Mapping[str, Layer]) -> None:
        self.path, self.layers = path, dict(layers)
        self._arrays: dict[str, Any] = {}

    def __getitem__(self, layer: str) -> Any:
        if not self._arrays:
            with reading(self.path):
                self._arrays = {
                    name: zarr.open_array(str(self.path / name), mode="r+") for name in self.layers
                }
        return self._arrays[layer]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TiledArrays) and (self.path, self.layers) == (other.path, other.layers)

    def __hash__(self) -> int:
        return hash(self.path)

    def write(self, layer: str, block: Block, values: NDArray[Any]) -> None:
        """Write one block, (*leading, h, w) at the layer's own reduction; FileError where that fails."""
        array, part = self[layer], block.reduced(self.layers[layer].reduction)
        if array.dtype == np.float16:
            values = np.clip(values, -65504, 65504)  # the largest float16; beyond it lies infinity
        with _writing(self.path):
            array[..., part.rows, part.columns] = values.astype(array.dtype)

    def __reduce__(self) -> tuple[type[TiledArrays], tuple[Path, dict[str, Layer]]]:
        return type(self), (self.path, self.layers)


class TiledFile(Generic[R]):
    """Layers of one area (height, width) in blocks of ``side``; NaN where nothing was written.

    Parameters
    ----------
    path: without its suffix; an unfinished file is continued, its ``records`` are those of its finished blocks.
    record: the type of a block's line.
    attributes: stored with the file, in JSON; a file with others is refused.
    content: SHA-256 of what the file is made from; a file made from other content is made anew.

    Raises
    ------
    FileError
        When it cannot be read or written.
    UsageError
        When the file that is there is of another area, or was made with other attributes.
    """

    def __init__(
        self,
        path: Path,
        record: type[R],
        layers: Mapping[str, Layer],
        *,
        size: tuple[int, int],
        side: int,
        attributes: Mapping[str, Any],
        content: str | None = None,
    ) -> None:
        self.path = tiled(path)
        self.size, self.side, self.layers = size, side, dict(layers)
        self.attributes: dict[str, Any] = json.loads(json.dumps({"size": size, "block": side, **attributes}))
        self._content = content
        fresh = not os.path.isdir(self.path) or content_of(self.path) not in (content, None)
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if fresh:
                _remove_file(_journal_of(self.path))
        self._journal = RecordsLog(_journal_of(self.path), record)
        if not self._journal.records:  # nothing is finished: a file that a kill left half made is made anew
            with _writing(self.path):
                shutil.rmtree(self.path, ignore_errors=True)
                self._create()
        self._check_attributes()
        self.arrays = TiledArrays(self.path, self.layers)
        """To write blocks into."""
        self.done = {(record.row, record.column) for record in self._journal.records}

    @property
    def records(self) -> list[R]:
        """Records of the finished blocks, in the order in which they were finished."""
        return self._journal.records

    def _create(self) -> None:
        group = zarr.open_group(str(self.path), mode="w")
        for name, layer in self.layers.items():
            planes = layer.leading if layer.together else (1,) * len(layer.leading)
            height, width = (-(-length // layer.reduction) for length in self.size)
            side = self.side // layer.reduction
            zarr.open_array(
                str(self.path / name),
                mode="w",
                shape=(*layer.leading, height, width),
                chunks=(*planes, side, side),
                dtype=layer.dtype,
                fill_value=np.nan,
            )
        group.attrs.update({**self.attributes, **({CONTENT: self._content} if self._content else {})})

    def _check_attributes(self) -> None:
        there, wanted = dict(open_tiled(self.path).attrs), self.attributes
        there.pop(CONTENT, None)
        for key in sorted({*wanted, *there}):
            if there.get(key) != wanted.get(key):
                raise UsageError(
                    f"{self.path}: was made with {key} {there.get(key)}, not {wanted.get(key)}; "
                    f"use --overwrite or another --out"
                )

    @property
    def count(self) -> int:
        """Number of blocks."""
        return math.prod(-(-length // self.side) for length in self.size)

    def unfinished(self) -> Iterator[Block]:
        """The blocks that are still to be made, row by row."""
        return (block for block in blocks(self.size, self.side) if (block.row, block.column) not in self.done)

    def write(self, layer: str, block: Block, values: NDArray[Any]) -> None:
        """Write one block, (*leading, h, w) at the layer's own reduction."""
        self.arrays.write(layer, block, values)

    def finish(self, record: R) -> None:
        """Record that the block is finished."""
        self._journal.append(record)
        self.done.add((record.row, record.column))

    def read(self, layer: str, index: Any = ...) -> NDArray[Any]:
        """The values of a layer at ``index``."""
        with reading(self.path):
            values: NDArray[Any] = self.arrays[layer][index]
        return values


def tiled(path: Path) -> Path:
    """Path of the arrays of the tiled file at ``path``, which is without suffix."""
    return path.with_name(path.name + TILED)


def open_tiled(path: Path) -> Any:
    """The Zarr group at ``path``, read-only.

    Raises
    ------
    FileError
        When there is none, or it cannot be read.
    """
    if not os.path.isdir(path):
        raise FileError(path, "does not exist", "check the path")
    with reading(path):
        return zarr.open_group(str(path), mode="r")


def content_of(path: Path) -> str | None:
    """SHA-256 of what the arrays at ``path`` were made from; None where that is not known."""
    try:
        found = open_tiled(path).attrs.get(CONTENT)
    except FileError:
        return None
    return found if isinstance(found, str) else None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error of a damaged file into a FileError of one line."""
    try:
        yield
    except (OSError, ValueError, LookupError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise FileError(path, f"cannot be read ({reason})", "make it again with --overwrite") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def claim(
    folder: Path,
    settings_file: str,
    settings: Mapping[str, Any],
    *,
    below: str,
    command: str,
    remove: tuple[str, ...] = (),
    resume: bool,
    overwrite: bool,
) -> RunFolder:
    """Make ``folder`` the output of ``command``, or resume the run that it holds.

    Tiled files lie in the folder ``below`` it, ``settings`` in ``settings_file``, which is written first and so
    marks that there is something. Overwriting removes these and the names to ``remove``, and nothing else.

    Raises
    ------
    UsageError
        For a folder that holds results and neither ``resume`` nor ``overwrite``, or both, or that was made with
        other settings.
    FileError
        When the folder cannot be used.
    """
    refusal = (
        f"already holds what blemish {command} made; replace it with --overwrite, choose another --out, or go on "
        f"with an unfinished one by --resume"
    )
    run = RunFolder(folder, [RunMark(settings_file, refusal)], settings_file=settings_file)

    def written() -> Iterator[str | Path]:
        for journal in list((folder / below).rglob(f"*{JOURNAL}")):
            yield _tiled_of(journal).relative_to(folder)
            yield journal.relative_to(folder)
        yield from remove

    run.claim(settings, resume=resume, overwrite=overwrite, written=written)
    return run


def _remove_file(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _journal_of(tiled: Path) -> Path:
    return tiled.with_name(tiled.name.removesuffix(TILED) + JOURNAL)


def _tiled_of(journal: Path) -> Path:
    return journal.with_name(journal.name.removesuffix(JOURNAL) + TILED)
