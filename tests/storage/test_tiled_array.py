from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.errors import FileError, UsageError
from blemish.storage.tiled_array import Block, BlockRecord, Layer, TiledFile, blocks, claim, open_tiled

LAYERS = {
    "map": Layer((2,)),
    "small": Layer((), reduction=4),
    "exact": Layer((3,), dtype="float32", together=True),
}


def opened(folder: Path, size: tuple[int, int] = (10, 14), **attributes: Any) -> TiledFile[BlockRecord]:
    return TiledFile(folder / "a", BlockRecord, LAYERS, size=size, side=8, attributes=attributes)


def values(layer: Layer, block: Block, seed: int = 0) -> np.ndarray:
    part = block.reduced(layer.reduction)
    return np.random.default_rng((seed, block.row, block.column)).random((*layer.leading, *part.shape))


def fill(file: TiledFile[BlockRecord], block: Block) -> None:
    for name, layer in LAYERS.items():
        file.write(name, block, values(layer, block))
    file.finish(BlockRecord(row=block.row, column=block.column))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (10, 14), (17, 3)])
def test_blocks_cover_every_pixel_once(size: tuple[int, int]) -> None:
    seen = np.zeros(size, int)
    for block in blocks(size, 8):
        seen[block.rows, block.columns] += 1
        assert block.shape == seen[block.rows, block.columns].shape
    assert (seen == 1).all()


def test_what_is_written_is_read_and_the_rest_is_nan(tmp_path: Path) -> None:
    file = opened(tmp_path)
    first, second, *_ = file.unfinished()
    fill(file, second)
    np.testing.assert_allclose(
        file.read("exact", (..., second.rows, second.columns)), values(LAYERS["exact"], second), rtol=1e-6
    )
    np.testing.assert_allclose(
        file.read("map", (..., second.rows, second.columns)), values(LAYERS["map"], second), rtol=2**-11
    )
    assert file.read("small").shape == (3, 4)
    assert np.isnan(file.read("map", (..., first.rows, first.columns))).all()
    assert file.read("map").dtype == np.float16


def test_values_past_the_largest_half_precision_number_stay_finite(tmp_path: Path) -> None:
    file = opened(tmp_path)
    block = next(iter(file.unfinished()))
    file.write("map", block, np.full((2, *block.shape), 1e9))
    assert (file.read("map", (0, 0, 0)), np.isfinite(file.read("map", (0, 0, 0)))) == (65504, True)


def test_it_goes_on_with_what_is_not_finished(tmp_path: Path) -> None:
    file = opened(tmp_path, kind="x")
    everything = list(file.unfinished())
    assert len(everything) == file.count == 4
    fill(file, everything[2])
    again = opened(tmp_path, kind="x")
    assert list(again.unfinished()) == [everything[0], everything[1], everything[3]]
    for block in again.unfinished():
        fill(again, block)
    assert list(opened(tmp_path, kind="x").unfinished()) == []
    np.testing.assert_allclose(
        open_tiled(file.path)["exact"][:, 8:, :8], values(LAYERS["exact"], everything[2]), rtol=1e-6
    )


def test_what_has_no_finished_block_is_made_anew(tmp_path: Path) -> None:
    file = opened(tmp_path, size=(40, 40))
    file.write("small", next(iter(file.unfinished())), np.ones((2, 2)))
    assert np.isnan(opened(tmp_path).read("small")).all()


def test_another_area_or_origin_is_refused(tmp_path: Path) -> None:
    file = opened(tmp_path, kind="x")
    fill(file, next(iter(file.unfinished())))
    with pytest.raises(UsageError, match=r"size \[10, 14\], not \[10, 15\]"):
        opened(tmp_path, size=(10, 15), kind="x")
    with pytest.raises(UsageError, match="kind x, not y"):
        opened(tmp_path, kind="y")


@pytest.mark.parametrize("damage", ["metadata", "chunk", "journal"])
def test_damage_is_reported_in_one_line(tmp_path: Path, damage: str) -> None:
    file = opened(tmp_path)
    for block in file.unfinished():
        fill(file, block)
    if damage == "journal":
        (tmp_path / "a.blocks.jsonl").write_text("no record\n")
        with pytest.raises(FileError, match="line 1 is not a record"):
            opened(tmp_path)
        return
    (path,) = (
        [file.path / "map" / "zarr.json"]
        if damage == "metadata"
        else [p for p in (file.path / "map").rglob("*") if p.is_file() and p.parts[-3:] == ("0", "0", "0")]
    )
    path.write_bytes(b"{damage")
    with pytest.raises(FileError) as failure:
        opened(tmp_path).read("map")
    assert "\n" not in str(failure.value)
    assert str(file.path) in str(failure.value)
    assert "--overwrite" in str(failure.value)


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.zarr: does not exist"):
        open_tiled(tmp_path / "none.zarr")


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="a part of this path is a file"):
        opened(tmp_path / "file" / "below")


def claimed(folder: Path, settings: dict[str, Any], **how: bool) -> None:
    chosen = {"resume": False, "overwrite": False, **how}
    claim(folder, "s.json", settings, below="maps", command="inspect", remove=("report.html",), **chosen)


def test_claiming_writes_the_settings_and_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    claimed(tmp_path, {"stride": 8})
    assert json.loads((tmp_path / "s.json").read_text()) == {"stride": 8}
    file = opened(tmp_path / "maps" / "below")
    fill(file, next(iter(file.unfinished())))
    (tmp_path / "maps" / "mine.zarr").mkdir()
    (tmp_path / "report.html").write_text("")
    claimed(tmp_path, {"stride": 8}, resume=True)
    assert file.path.exists()
    claimed(tmp_path, {"stride": 16}, overwrite=True)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "maps", "maps/below", "maps/mine.zarr", "s.json"
    ]  # fmt: skip
    with pytest.raises(UsageError, match="another stride"):
        claimed(tmp_path, {"stride": 8}, resume=True)
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(FileError, match="use --overwrite"):
        claimed(tmp_path, {"stride": 8}, resume=True)
