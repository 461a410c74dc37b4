from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from blemish.data.envi import EnviImage, envi_header, read_header
from blemish.data.maps import write_image
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.data.windowed import open_windowed
from blemish.data.windowed_image import DecodedCache
from blemish.errors import ImageError

CUBE = np.random.default_rng(0).integers(0, 4096, (5, 12, 9)).astype(np.uint16)
AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}


def write_cube(
    path: Path, cube: NDArray[np.uint16], interleave: str = "bsq", order: str = "<", **more: object
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    offset = int(str(more.get("header_offset", 0)))
    stored = cube.transpose(AXES[interleave]).astype(order + "u2")
    path.write_bytes(b"\0" * offset + stored.tobytes())
    fields = {"samples": cube.shape[2], "lines": cube.shape[1], "bands": cube.shape[0], "data type": 12}
    fields |= {"interleave": interleave, "byte order": int(order == ">")}
    fields |= {name.replace("_", " "): value for name, value in more.items()}
    listed = "\n".join(f"{name} = {value}" for name, value in fields.items())
    path.with_suffix(".hdr").write_text(
        f"ENVI\ndescription = {{\n  a cube,\n  lines = 3 }}\n{listed}\nwavelength = {{400.0,\n 500.0}}\n"
    )
    return path


@pytest.mark.parametrize("interleave", AXES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_windows_hold_the_values_of_the_cube(tmp_path: Path, interleave: str, order: str) -> None:
    path = write_cube(tmp_path / "cube.img", CUBE, interleave, order, header_offset=7)
    opened = open_windowed(path)
    assert isinstance(opened, EnviImage)
    assert (opened.channels, opened.height, opened.width, opened.full_scale) == (5, 12, 9, 65535)
    window = opened.read(2, 3, 6, 4, DecodedCache(0))
    assert_array_equal(window.values, CUBE[:, 2:8, 3:7])
    assert window.absent is None
    assert window.values.dtype == np.uint16


def test_a_scale_factor_and_an_ignored_value_are_kept(tmp_path: Path) -> None:
    cube = CUBE.copy()
    cube[:, 4, 5] = 7
    cube[0, 0, 0] = 7
    path = write_cube(
        tmp_path / "cube.dat", cube, **{"reflectance scale factor": 4096, "data ignore value": 7}
    )
    opened = open_windowed(path)
    assert opened.full_scale == 4096
    absent = opened.read(0, 0, 12, 9, DecodedCache(0)).absent
    assert absent is not None
    assert np.argwhere(absent).tolist() == [[4, 5]]


def test_a_cube_is_a_modality_of_a_scene(tmp_path: Path) -> None:
    write_cube(tmp_path / "eve" / "cube.img", CUBE, "bil", **{"reflectance scale factor": 4096})
    write_image(tmp_path / "eve" / "visible.png", np.full((3, 12, 9), 0.5))
    (scene,) = find_scenes(tmp_path)
    assert [(one.name, one.channels) for one in scene.modalities] == [("cube", 5), ("visible", 3)]
    assert scene.notices == (), "the header is part of the cube"
    with SceneReader(scene) as reader:
        np.testing.assert_allclose(reader.read(0, 0, 12, 9)[:5], CUBE / 4096, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("bands = 5", "bands = many"), "has 'bands = many', which is no whole number; correct it"),
        (("bands = 5\n", ""), "has no 'bands'; correct it"),
        (("data type = 12", "data type = 6"), "has the data type 6, which is not supported"),
        (("interleave = bsq", "interleave = odd"), "which is none of bsq, bil and bip"),
        (("lines = 12", "lines = 13"), "cube.img: ends early: 1080 bytes, and cube.hdr describes 1170"),
    ],
)
def test_a_wrong_header_is_one_line(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    path = write_cube(tmp_path / "cube.img", CUBE)
    header = tmp_path / "cube.hdr"
    header.write_text(header.read_text().replace(*change))
    with pytest.raises(ImageError) as error:
        open_windowed(path).check()
    assert problem in str(error.value)


def test_a_header_of_another_kind_is_none(tmp_path: Path) -> None:
    (tmp_path / "photo.hdr").write_bytes(b"#?RADIANCE\n")
    assert envi_header(tmp_path / "photo.img") is None
    assert envi_header(write_cube(tmp_path / "cube.img", CUBE)) == tmp_path / "cube.hdr"
    assert read_header(tmp_path / "cube.hdr")["wavelength"].startswith("{400.0")
