from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.data.image import read_image
from blemish.errors import FileError, ImageError
from blemish.storage.atomic import (
    atomic_folder,
    atomic_path,
    read_map,
    write_bytes,
    write_image,
    write_json,
    write_map,
    write_text,
)


def failing(code: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_file_appears_with_its_whole_content_in_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.bin"
    write_bytes(path, b"\x00\r\n\xff")
    assert path.read_bytes() == b"\x00\r\n\xff"
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_at_the_path_before_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        assert temporary.name.startswith(".")
        assert not path.exists()
    assert path.read_text() == "half"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_breaks_off_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def break_off() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
@pytest.mark.parametrize("step", ["replace", "open"])
def test_a_disk_that_refuses_is_told_in_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str, step: str
) -> None:
    path = tmp_path / "a.json"
    with monkeypatch.context() as patch:
        patch.setattr(os if step == "replace" else io, step, failing(code))
        with pytest.raises(FileError, match=words) as caught:
            write_json(path, [1, 2])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_a_map_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "save", failing(errno.ENOSPC))
    with pytest.raises(FileError, match="the disk is full"):
        write_map(tmp_path / "m.png", np.ones((2, 2)), full_scale=1)
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="is a file, not a folder"):
        write_text(tmp_path / "file" / "a.txt", "x")
    with pytest.raises(FileError, match="is a file, not a folder"):
        write_text(tmp_path / "file" / "deeper" / "a.txt", "x")
    with pytest.raises(FileError, match="a folder of this name"):
        write_text(tmp_path / "folder", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é\r\n×\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\r\n×\n".encode()


def test_json_comes_back_and_knows_no_nan(tmp_path: Path) -> None:
    value = {"name": "Maß", "scores": [0.1, 1e-300, 3]}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


def test_a_file_name_that_is_no_text_can_be_recorded(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    write_json(tmp_path / "a.json", name)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == name


def test_a_map_comes_back_within_half_a_count(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((11, 6)).astype(np.float32) * 0.7
    write_map(tmp_path / "m.png", values, full_scale=2.0, measure="1 - ssim")
    back = read_map(tmp_path / "m.png")
    assert (back.shape, back.dtype) == ((11, 6), np.float32)
    assert np.abs(back - values).max() <= 2.0 / 65535 / 2 + 1e-7
    with Image.open(tmp_path / "m.png") as image:
        assert image.info["blemish:measure"] == "1 - ssim"
        assert float(image.info["blemish:scale"]) == 2.0 / 65535
        assert image.mode == "I;16"


def test_a_map_above_full_scale_is_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0.0, 1.0, 5.0]])
    write_map(tmp_path / "m.png", values, full_scale=1.0)
    np.testing.assert_allclose(read_map(tmp_path / "m.png"), values, atol=5 / 65535)
    assert read_map(tmp_path / "m.png").max() == 5.0


def test_equal_full_scale_gives_equal_counts(tmp_path: Path) -> None:
    write_map(tmp_path / "a.png", np.array([[0.25, 0.5]]), full_scale=1.0)
    write_map(tmp_path / "b.png", np.array([[0.25, 0.0]]), full_scale=1.0)
    counts = [read_image(tmp_path / name).pixels[0, 0, 0] for name in ("a.png", "b.png")]
    assert counts[0] == counts[1] == round(0.25 * 65535)


def test_a_map_of_zeros_stays_zero(tmp_path: Path) -> None:
    write_map(tmp_path / "m.png", np.zeros((3, 4)), full_scale=1e-6)
    assert not read_map(tmp_path / "m.png").any()


@pytest.mark.parametrize(
    ("values", "full_scale"),
    [(np.full((2, 2), np.nan), 1), (-np.ones((2, 2)), 1), (np.ones((1, 2, 2)), 1), (np.ones((2, 2)), 0)],
)
def test_what_is_no_map_is_not_written(tmp_path: Path, values: Any, full_scale: float) -> None:
    with pytest.raises(ValueError, match=r"a map has|full_scale"):
        write_map(tmp_path / "m.png", values, full_scale=full_scale)
    assert not (tmp_path / "m.png").exists()


def test_an_image_without_scale_is_no_map(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 3), np.uint16)).save(tmp_path / "grey.png")
    Image.fromarray(np.zeros((3, 3), np.uint16)).save(tmp_path / "grey.tif")
    for name in ("grey.png", "grey.tif"):
        with pytest.raises(FileError, match="no map of Blemish"):
            read_map(tmp_path / name)
    with pytest.raises(ImageError, match="does not exist"):
        read_map(tmp_path / "none.png")


def test_an_edited_scale_is_refused(tmp_path: Path) -> None:
    write_map(tmp_path / "m.png", np.ones((2, 2)), full_scale=1.0)
    with Image.open(tmp_path / "m.png") as image:
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_text("blemish:scale", "much")
        image.save(tmp_path / "e.png", pnginfo=text)
    with pytest.raises(FileError, match="'much'"):
        read_map(tmp_path / "e.png")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_image_comes_back_in_8_bits(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(0).random((channels, 5, 7))
    write_image(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, np.rint(pixels * 255))


def test_other_channel_counts_are_shown_by_their_mean(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((6, 5, 7))
    write_image(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png").pixels, np.rint(pixels.mean(0) * 255)[np.newaxis]
    )


def test_values_outside_the_range_are_clipped(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.array([[[-1.0, 2.0]]]))
    assert read_image(tmp_path / "a.png").pixels.tolist() == [[[0, 255]]]


def test_a_folder_appears_with_all_its_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "set"
    with atomic_folder(path) as temporary:
        assert (temporary.name, list(temporary.iterdir())) == ("set", [])
        (temporary / "a.txt").write_text("a")
        assert not path.exists()
    assert (path / "a.txt").read_text() == "a"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_finished_leaves_nothing_and_what_a_kill_left_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "set"
    (tmp_path / ".part-set" / "set").mkdir(parents=True)
    (tmp_path / ".part-set" / "set" / "old.txt").touch()

    def break_off() -> None:
        with atomic_folder(path) as temporary:
            assert list(temporary.iterdir()) == []
            (temporary / "a.txt").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = r"set: cannot be made \(Not a directory\); choose another --out"
    with pytest.raises(FileError, match=words), atomic_folder(tmp_path / "file" / "set"):
        pass
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").touch()
    with pytest.raises(FileError, match="set: cannot be made"), atomic_folder(tmp_path / "set"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "set"]
