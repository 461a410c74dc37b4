from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose, assert_array_equal

from blemish.data.hdf5 import Hdf5Image, holds_image
from blemish.data.maps import write_image
from blemish.data.modality import Modality
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.data.windowed import open_windowed
from blemish.data.windowed_image import DecodedCache
from blemish.errors import FileError, ImageError

CUBE = np.random.default_rng(0).integers(0, 4096, (5, 24, 18)).astype(np.uint16)


def write(path: Path, fill: Callable[[h5py.File], Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def nexus(file: h5py.File) -> None:
    """A stack with an axis and a second image, as NeXus writes it."""
    file.attrs["default"] = "entry"
    entry = file.create_group("entry")
    entry.attrs["default"] = "data"
    data = entry.create_group("data")
    data.attrs["signal"] = "counts"
    data.create_dataset("counts", data=CUBE, chunks=(5, 8, 8), compression="gzip")
    data["energy"] = np.arange(5.0)
    entry["dark"] = CUBE[0]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_windows_hold_the_values_with_the_channels_on_the_shortest_axis(
    tmp_path: Path, axis: int, order: str
) -> None:
    stored = np.moveaxis(CUBE, 0, axis).astype(order)
    opened = open_windowed(write(tmp_path / "cube.h5", lambda file: file.create_dataset("a/b", data=stored)))
    assert isinstance(opened, Hdf5Image)
    assert (opened.channels, opened.height, opened.width, opened.full_scale) == (5, 24, 18, 65535)
    window = opened.read(2, 3, 6, 4, DecodedCache(0))
    assert_array_equal(window.values, CUBE[:, 2:8, 3:7])
    assert window.values.dtype == np.uint16
    assert window.absent is None


@pytest.mark.parametrize(("interpretation", "axis"), [("image", 0), ("spectrum", 2), (b"spectrum", 2)])
def test_an_interpretation_says_which_axis_is_the_channels(
    tmp_path: Path, interpretation: str | bytes, axis: int
) -> None:
    cube = np.arange(20 * 24 * 18, dtype=np.float32).reshape(20, 24, 18)

    def fill(file: h5py.File) -> None:
        file["a"] = np.moveaxis(cube, 0, axis)
        file["a"].attrs["interpretation"] = interpretation

    opened = open_windowed(write(tmp_path / "cube.h5", fill))
    assert (opened.channels, opened.height, opened.width, opened.full_scale) == (20, 24, 18, 1)
    assert_array_equal(opened.read(0, 0, 24, 18, DecodedCache(0)).values, cube)


def test_a_grey_dataset_and_its_fill_value(tmp_path: Path) -> None:
    grey = CUBE[0].astype(np.float32) / 4096
    grey[4, 5] = -1

    def fill(file: h5py.File) -> None:
        file["grey"] = grey
        file["grey"].attrs["_FillValue"] = np.float32(-1)

    opened = open_windowed(write(tmp_path / "grey.hdf5", fill))
    assert opened.channels == 1
    absent = opened.read(2, 2, 10, 10, DecodedCache(0)).absent
    assert absent is not None
    assert np.argwhere(absent).tolist() == [[2, 3]]


def test_the_default_signal_of_nexus_is_read(tmp_path: Path) -> None:
    opened = open_windowed(write(tmp_path / "stack.nxs", nexus))
    assert_array_equal(opened.read(1, 1, 20, 10, DecodedCache(0)).values, CUBE[:, 1:21, 1:11])
    assert open_windowed(tmp_path / "stack.nxs", "entry/dark").channels == 1


def test_a_default_that_leads_back_is_no_signal(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        nexus(file)
        del file["entry/data"].attrs["signal"]
        file["entry/data"].attrs["default"] = "."

    with pytest.raises(ImageError, match="2 datasets with the axes of an image"):
        open_windowed(write(tmp_path / "stack.nxs", fill))


def test_two_datasets_of_a_file_are_two_modalities(tmp_path: Path) -> None:
    write(tmp_path / "eve" / "scan.h5", nexus)
    entries = [
        {"name": "spectra", "file": "scan.h5", "dataset": "/entry/data/counts", "range": [0, 4096]},
        {"name": "dark", "file": "scan.h5", "dataset": "entry/dark", "range": [0, 4096]},
    ]
    (tmp_path / "modalities.yaml").write_text(yaml.safe_dump({"modalities": entries}))
    (scene,) = find_scenes(tmp_path)
    assert [(one.name, one.channels) for one in scene.modalities] == [("spectra", 5), ("dark", 1)]
    with SceneReader(scene) as reader:
        assert_allclose(reader.read(0, 0, 24, 18), np.concatenate([CUBE, CUBE[:1]]) / 4096, rtol=1e-6)
    (again,) = find_scenes(tmp_path, scene.modalities)
    assert [one.dataset for one in again.modalities] == ["/entry/data/counts", "entry/dark"]
    entries[1]["dataset"] = "/entry/data/counts"
    (tmp_path / "modalities.yaml").write_text(yaml.safe_dump({"modalities": entries}))
    with pytest.raises(FileError, match=r"gives the file 'scan\.h5 /entry/data/counts' twice"):
        find_scenes(tmp_path)


def test_a_scene_of_another_format_has_no_dataset(tmp_path: Path) -> None:
    write_image(tmp_path / "eve" / "spectra.png", np.full((3, 24, 18), 0.5))
    write_image(tmp_path / "eve" / "dark.png", np.full((1, 24, 18), 0.5))
    wanted = [
        Modality(name="spectra", channels=3, file="scan.h5", dataset="entry/data"),
        Modality(name="dark", channels=1, file="scan.h5", dataset="entry/dark"),
    ]
    (scene,) = find_scenes(tmp_path, wanted)
    assert [(one.file, one.dataset) for one in scene.modalities] == [("spectra.png", ""), ("dark.png", "")]
    with SceneReader(scene) as reader:
        assert reader.read(0, 0, 24, 18).shape == (4, 24, 18)


def test_a_file_with_one_image_is_a_modality_and_another_is_named(tmp_path: Path) -> None:
    write(tmp_path / "eve" / "cube.h5", lambda file: file.create_dataset("a", data=CUBE))
    write(tmp_path / "eve" / "notes.h5", lambda file: file.create_dataset("a", data=np.arange(9.0)))
    write_image(tmp_path / "eve" / "visible.png", np.full((3, 24, 18), 0.5))
    (scene,) = find_scenes(tmp_path)
    assert [(one.name, one.channels) for one in scene.modalities] == [("cube", 5), ("visible", 3)]
    assert scene.notices == ("notes.h5: not used, no modality of this scene names it",)


def two_images(file: h5py.File) -> None:
    file["first"], file["second"] = CUBE, CUBE[0]


def in_another_file(file: h5py.File) -> None:
    file.create_dataset("a", (24, 18), "u2", external=[("values.bin", 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((24, 18), "u2")
    layout[:] = h5py.VirtualSource("other.h5", "a", (24, 18))
    file.create_virtual_dataset("a", layout)


def linked(file: h5py.File) -> None:
    file["a"] = h5py.ExternalLink("/etc/hostname", "/a")


@pytest.mark.parametrize(
    ("fill", "dataset", "problem"),
    [
        (two_images, "", "has 2 datasets with the axes of an image (/first, /second); name one as 'dataset'"),
        (two_images, "frist", "has no dataset 'frist' with the axes of an image; did you mean '/first'?"),
        (
            lambda file: file.create_dataset("a", data=np.arange(9)),
            "",
            "no dataset with the axes of an image",
        ),
        (
            lambda file: file.create_dataset("a", data=np.zeros((20, 24, 18))),
            "",
            "which axis of /a (20 × 24 × 18)",
        ),
        (lambda file: file.create_dataset("a", data=CUBE.astype("c8")), "", "no dataset with the axes"),
        (in_another_file, "", "keeps the values of /a in other files; copy them into one file"),
        (virtual, "", "keeps the values of /a in other files"),
        (linked, "", "has no dataset with the axes of an image"),
    ],
)
def test_what_is_no_image_is_one_line(
    tmp_path: Path, fill: Callable[[h5py.File], Any], dataset: str, problem: str
) -> None:
    path = write(tmp_path / "a.h5", fill)
    with pytest.raises(ImageError) as error:
        open_windowed(path, dataset)
    assert str(error.value).startswith(f"{path}: ")
    assert problem in str(error.value)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", nexus)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"a\.h5: "):
        open_windowed(path)
    assert not holds_image(path)
    path.write_bytes(data[:2100] + bytes(len(data) - 2100))
    with pytest.raises(ImageError, match=r"a\.h5: "):
        open_windowed(path, "entry/data/counts").read(0, 0, 24, 18, DecodedCache(0))


def test_a_dataset_of_another_format_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((1, 8, 8), 0.5))
    with pytest.raises(ImageError, match="is no HDF5 file, and has no dataset 'data'; remove 'dataset'"):
        open_windowed(tmp_path / "a.png", "data")


def test_without_h5py_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.h5", nexus)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImageError, match=r"for which h5py is not installed; type.*pip install.*\[large\]"):
        open_windowed(path)
