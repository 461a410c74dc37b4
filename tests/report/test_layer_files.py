from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
import zarr
from PIL import Image

from blemish.errors import FileError, Stopped, UsageError
from blemish.observer import Observer
from blemish.report import tiles
from blemish.report.layer_files import LayerFiles
from blemish.report.ome_zarr import multiscales
from blemish.report.save_settings import LOCAL_ADDRESS, SaveSettings
from blemish.report.tiles import image_information, tiles_of
from blemish.storage.pyramid import halved, level_sizes
from tests.report.stacks import make_stack, make_values, raster_of
from tests.services import needs

SIZE = (1031, 257)
ALL = ("tiff", "zarr", "iiif", "page", "regions")


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    return make_values(*SIZE)


@pytest.fixture(scope="module")
def saved(values: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    LayerFiles(folder, SaveSettings(ALL, dpi=600), Observer()).save(make_stack(values, dpi=600), "a")
    return folder


def means(image: np.ndarray) -> list[np.ndarray]:
    """Every level of an image (C, H, W)."""
    levels = [image]
    for _ in level_sizes(image.shape[1:])[1:]:
        levels.append(halved(levels[-1]))
    return levels


def test_tifffile_reads_every_level(saved: Path, values: dict[str, np.ndarray]) -> None:
    with tifffile.TiffFile(saved / "tiff/eve/visible.ome.tif") as file:
        assert file.is_bigtiff
        assert file.is_ome
        series = file.series[0]
        assert series.axes == "CYX"
        expected = means(values["visible"])
        assert len(series.levels) == len(expected) == 3
        for level, image in zip(series.levels, expected, strict=True):
            np.testing.assert_array_equal(level.asarray(), image)
        assert file.pages[0].is_tiled
        metadata = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert metadata["PhysicalSizeX"] == pytest.approx(25_400 / 600)
    assert metadata["PhysicalSizeXUnit"] == "µm"
    assert [channel["Name"] for channel in metadata["Channel"]] == ["red", "green", "blue"]


def test_libvips_reads_the_same_pixels(saved: Path, values: dict[str, np.ndarray]) -> None:
    path = str(saved / "tiff/eve/residual.ome.tif")
    for number, expected in enumerate(means(values["residual"])):
        image = pyvips.Image.new_from_file(path, subifd=number - 1)
        np.testing.assert_array_equal(image.numpy(), expected[0])
        # Pixels of no data are absent from no mean.
        assert np.isnan(image.numpy()).any()
    image = pyvips.Image.new_from_file(path)
    assert 25.4 * image.xres == pytest.approx(600, rel=1e-4)  # pixels a millimetre


def test_ome_zarr_has_valid_metadata_and_the_same_pixels(saved: Path, values: dict[str, np.ndarray]) -> None:
    reason = "ome-zarr-models needs Python 3.11"
    model = pytest.importorskip("ome_zarr_models.v04.image", reason=reason).Image
    from pydantic_zarr.v2 import ArraySpec

    model.model_rebuild(_types_namespace={"ArraySpec": ArraySpec})  # newer pydantic wants it to be defined
    folder = saved / "zarr/eve/visible.ome.zarr"
    image = model.from_zarr(zarr.open_group(str(folder), mode="r"))
    (scales,) = image.attributes.multiscales
    assert [axis.name for axis in scales.axes] == ["c", "y", "x"]
    assert scales.axes[1].unit == "micrometer"
    for number, (dataset, expected) in enumerate(zip(scales.datasets, means(values["visible"]), strict=True)):
        np.testing.assert_array_equal(zarr.open_array(str(folder / dataset.path), mode="r")[...], expected)
        scale, translation = dataset.coordinateTransformations
        assert scale.scale[1:] == pytest.approx([25_400 / 600 * 2**number] * 2)
        # Centres: the first pixel of a level is the mean of the first 2**number ones.
        assert translation.translation[1:] == pytest.approx([25_400 / 600 * (2**number - 1) / 2] * 2)


READ = """
import json, sys
import numpy as np
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

(node,) = Reader(parse_url(sys.argv[1], mode="r"))()
levels = [np.asarray(level) for level in node.data]
np.savez(sys.argv[2], *levels)
print(json.dumps({name: node.metadata[name] for name in ("channel_names", "visible", "colormap")}))
"""


@pytest.mark.parametrize("name", ["visible", "residual"])
def test_the_package_ome_zarr_reads_the_same_pixels(
    saved: Path, values: dict[str, np.ndarray], tmp_path: Path, name: str
) -> None:
    python = Path(needs("ome_zarr")).with_name("python")  # of an environment of its own
    command = [python, "-c", READ, saved / f"zarr/eve/{name}.ome.zarr", tmp_path / "levels.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    with np.load(tmp_path / "levels.npz") as levels:
        expected = means(values[name])
        assert len(levels.files) == len(expected)
        for number, image in enumerate(expected):
            np.testing.assert_array_equal(levels[f"arr_{number}"], image)
    if name == "visible":  # in colour, all channels at once
        assert shown["channel_names"] == ["red", "green", "blue"]
        assert shown["visible"] == [True, True, True]
        assert [end for _, end in shown["colormap"]] == np.eye(3).tolist()
    else:
        assert shown["visible"] == [True]
        assert shown["colormap"] == [[[0, 0, 0], [1, 1, 1]]]


def test_without_a_resolution_there_is_no_unit(values: dict[str, np.ndarray]) -> None:
    described = multiscales("a", [raster_of(values["residual"])], ["residual"], (0, 1))["multiscales"][0]
    assert "unit" not in described["axes"][1]
    assert described["datasets"][0]["coordinateTransformations"][0]["scale"] == [1, 1, 1]


@pytest.mark.parametrize("size", [(1, 1), (512, 512), (513, 100), (1101, 643), (2049, 3001)])
def test_tiles_follow_the_rules_of_iiif(size: tuple[int, int]) -> None:
    """The section of the Image API 3.0 on tiles, written anew."""
    information = image_information(size, "https://example.org/eve/map")
    (tiling,) = information["tiles"]
    named = set()
    for factor in tiling["scaleFactors"]:
        step = tiling["width"] * factor
        for y in range(0, information["height"], step):
            for x in range(0, information["width"], step):
                w, h = min(step, information["width"] - x), min(step, information["height"] - y)
                named.add(f"{x},{y},{w},{h}/{-(-w // factor)},{-(-h // factor)}/0/default.jpg")
    assert named == {tile.path for tile in tiles_of(size)}
    assert max(information["sizes"][-1].values()) <= 1024


@pytest.mark.parametrize("name", ["image-visible", "image-infra red#1", "residual"])
def test_every_tile_that_is_named_is_there(saved: Path, name: str) -> None:
    folder = saved / "zoom/eve" / name
    information = json.loads((folder / "info.json").read_text())
    assert (information["height"], information["width"]) == SIZE
    assert information["id"] == LOCAL_ADDRESS + "/eve/" + name.replace(" ", "%20").replace("#", "%23")
    named = {tile.path: tile.size for tile in tiles_of(SIZE)}
    for one in information["sizes"]:
        named[f"full/{one['width']},{one['height']}/0/default.jpg"] = one["width"], one["height"]
    largest = information["sizes"][-1]
    named["full/max/0/default.jpg"] = largest["width"], largest["height"]
    for path, size in named.items():
        with Image.open(folder / path) as image:
            assert image.size == size
            assert image.format == "JPEG"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")}
    assert there == set(named)


def test_tiles_show_the_image(saved: Path, values: dict[str, np.ndarray]) -> None:
    with Image.open(saved / "zoom/eve/image-visible/0,512,257,512/257,512/0/default.jpg") as image:
        shown = np.asarray(image, np.float32) / 255
    expected = values["visible"][:, 512:1024].transpose(1, 2, 0)
    assert np.abs(shown - expected).mean() < 0.01


def test_a_map_keeps_its_brightest_pixels_in_small_tiles(
    values: dict[str, np.ndarray], tmp_path: Path
) -> None:
    spot = np.zeros((1, *SIZE), np.float32)
    spot[0, 700, 200] = 1
    stack = make_stack({**values, "residual": spot})
    LayerFiles(tmp_path, SaveSettings(("iiif",)), Observer()).save(stack, "a")
    with Image.open(tmp_path / "zoom/eve/residual/full/65,258/0/default.jpg") as image:
        assert np.asarray(image).max() > 150


def test_regions_are_geojson(saved: Path) -> None:
    regions = json.loads((saved / "regions/eve.geojson").read_text())
    assert regions["type"] == "FeatureCollection"
    assert len(regions["features"]) == 2
    assert regions["features"][0]["properties"]["square_millimetres"] == pytest.approx(
        40 * 60 * (25.4 / 600) ** 2
    )


def test_nothing_is_written_twice(saved: Path, values: dict[str, np.ndarray]) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in saved.rglob("*") if path.name != "saved.jsonl"}

    before = times()
    stages: list[str] = []

    class Listening(Observer):
        def stage(self, text: str) -> None:
            stages.append(text)

    LayerFiles(saved, SaveSettings(ALL, dpi=600), Listening()).save(make_stack(values, dpi=600), "a")
    assert stages == []
    assert times() == before


def test_what_changed_is_written_anew(values: dict[str, np.ndarray], tmp_path: Path) -> None:
    def save(values: dict[str, np.ndarray], state: str) -> None:
        LayerFiles(
            tmp_path,
            SaveSettings(
                ("tiff", "zarr"),
            ),
            Observer(),
        ).save(make_stack(values), state)

    small = {name: image[:, :60, :70] for name, image in values.items()}
    save(small, "a")
    save({**small, "residual": small["residual"] * 2}, "b")
    expected = small["residual"] * 2
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "tiff/eve/residual.ome.tif"), expected[0])
    np.testing.assert_array_equal(
        zarr.open_array(str(tmp_path / "zarr/eve/residual.ome.zarr/0"))[...], expected
    )


def test_after_a_stop_what_is_finished_stays(values: dict[str, np.ndarray], tmp_path: Path) -> None:
    class Stopping(Observer):
        asked = 0

        def should_stop(self) -> bool:
            self.asked += 1
            return self.asked > 20

    with pytest.raises(Stopped, match="finished stay"):
        LayerFiles(tmp_path, SaveSettings(ALL), Stopping()).save(make_stack(values), "a")
    assert not list(tmp_path.rglob(".part*"))
    lines = (tmp_path / "saved.jsonl").read_text().splitlines()
    assert lines
    assert {json.loads(line)["path"] for line in lines} == set(whole_outputs(tmp_path))
    LayerFiles(tmp_path, SaveSettings(ALL), Observer()).save(make_stack(values), "a")
    assert (tmp_path / "zoom/eve/index.html").is_file()


def whole_outputs(folder: Path) -> list[str]:
    """Files and folders that are one output each."""
    found = [
        *folder.glob("tiff/*/*"),
        *folder.glob("zarr/*/*"),
        *folder.glob("zoom/*/*"),
        *folder.glob("regions/*"),
    ]
    return [path.relative_to(folder).as_posix() for path in found]


@pytest.mark.parametrize("kind", ["tiff", "zarr", "iiif"])
def test_on_a_full_disk_nothing_half_is_left(
    kind: str, values: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills in the second output."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    written = 0

    def filling(write: Any) -> Any:
        def wrapped(*given: Any, **named: Any) -> Any:
            nonlocal written
            written += 1
            if written > 4:
                raise full
            return write(*given, **named)

        return wrapped

    monkeypatch.setattr(tifffile.FileHandle, "write", filling(tifffile.FileHandle.write))
    if kind == "zarr":
        monkeypatch.setattr("blemish.storage.pyramid._write", _filling_arrays(full))
    monkeypatch.setattr(tiles.Image.Image, "save", filling(Image.Image.save))
    with pytest.raises(FileError) as caught:
        LayerFiles(tmp_path, SaveSettings((kind,)), Observer()).save(make_stack(values), "a")
    assert "\n" not in str(caught.value)
    assert "the disk is full" in str(caught.value)
    assert not list(tmp_path.rglob(".part*"))
    lines = (tmp_path / "saved.jsonl").read_text().splitlines()
    assert {json.loads(line)["path"] for line in lines} == set(whole_outputs(tmp_path))
    monkeypatch.undo()
    LayerFiles(tmp_path, SaveSettings((kind,)), Observer()).save(make_stack(values), "a")
    assert len(whole_outputs(tmp_path)) == (3 if kind == "iiif" else 2)


def _filling_arrays(full: OSError) -> Any:
    from blemish.storage import pyramid

    write, count = pyramid._write, 0

    def wrapped(array: Any, folder: Path, *rest: Any) -> None:
        nonlocal count
        count += 1
        if count > 5:
            raise pyramid.unwritable(folder, full)
        write(array, folder, *rest)

    return wrapped


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("tif", None, None), "--save tif: is not known; did you mean 'tiff'"),
        ((",", None, None), "name what to save"),
        (("tiff", 0.0, None), "--dpi 0"),
        (("iiif", None, "example.org"), "give a URL"),
        ((None, 300.0, None), "--dpi is for files that are saved"),
        ((None, None, "https://example.org"), "--address is for files that are saved"),
    ],
)
def test_options_that_cannot_be(options: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SaveSettings.of_options(*options)


def test_nothing_is_saved_unless_asked() -> None:
    assert SaveSettings.of_options(None, None, None) is None
    assert SaveSettings.of_options("tiff, page", 600, None) == SaveSettings(("tiff", "page"), 600)
