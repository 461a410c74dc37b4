"""What a folder holds beside its images, and folders that are not all of good images."""

from __future__ import annotations

from pathlib import Path

import pytest

from blemish.data.datasets import find_images, look_for_images
from blemish.data.folders import refuse_mixed
from blemish.errors import FileError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_files_that_are_passed_over_are_counted_by_kind(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.png", "b.heic", "c.HEIC", "sub/d.dcm", "e.npy", "notes.txt", "report.html", ".hidden.dcm"
    )
    found = look_for_images(tmp_path)
    assert [item.name for item in found.items] == ["a.png"]
    assert found.passed_over == {".heic": 2, ".dcm": 1, ".npy": 1}
    (line,) = found.notices()
    assert "1 .dcm, 2 .heic, 1 .npy" in line


def test_a_folder_of_other_kinds_alone_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "a.dcm", "b.dcm")
    with pytest.raises(FileError, match=r"holds no image .*not read: 2 \.dcm"):
        find_images(tmp_path)


@pytest.mark.parametrize("mask", ["a_mask.png", "a-mask.bmp", "A_GT.png", "a_ground_truth.tif"])
def test_masks_beside_their_images_are_no_images(tmp_path: Path, mask: str) -> None:
    touch(tmp_path, "a.png", mask, "b_mask.png")  # the last one has no image b
    found = look_for_images(tmp_path)
    assert [item.name for item in found.items] == ["a.png", "b_mask.png"]
    assert [path.name for path in found.masks] == [mask]
    assert "masks of images beside them: 1" in found.notices()[0]


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (["ok/a.png", "ok/b.png", "def/c.png"], "def (1), ok (2)"),
        (["good/a.png", "scratch/b.png"], "good (1), scratch (1)"),
        (["OK/a.png", "NG/b.png"], "NG (1), OK (1)"),
        (["images/a.png", "masks/a.png"], "images (1), masks (1)"),
        (["line 1/bad/a.png", "line 1/x.png"], "line 1 (2)"),
        (["ground_truth/a.png", "b.png"], "ground_truth (1)"),
    ],
)
def test_folders_that_are_not_all_of_good_images_are_refused(
    tmp_path: Path, names: list[str], listed: str
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(FileError, match="holds folders that are not all of good images") as error:
        refuse_mixed(tmp_path, find_images(tmp_path))
    assert listed in str(error.value)


@pytest.mark.parametrize(
    "names", [["a.png"], ["left/a.png", "right/b.png"], ["good/a.png"], ["2024/01/a.png", "2024/02/b.png"]]
)
def test_other_folders_are_taken_as_they_are(tmp_path: Path, names: list[str]) -> None:
    refuse_mixed(touch(tmp_path, *names), find_images(tmp_path))


def test_masks_are_images_where_all_files_are_wanted(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a_mask.png")
    assert [item.name for item in find_images(tmp_path, with_masks=True)] == ["a.png", "a_mask.png"]


def test_labels_beside_all_images_are_masks_and_one_beside_some_is_a_view(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "kos/Part0.jpg",
        "kos/Part0_label.bmp",
        "kos/Part1.jpg",
        "kos/Part1_label.bmp",
    )
    touch(tmp_path, "views/a.png", "views/b.png", "views/b_label.png")
    found = look_for_images(tmp_path)
    assert [item.name for item in found.items] == [
        "kos/Part0.jpg",
        "kos/Part1.jpg",
        "views/a.png",
        "views/b.png",
        "views/b_label.png",
    ]
    touch(tmp_path / "others", "a.png", "a_seg.png", "b.jpg", "b_label.png", "a_label.png")
    assert [item.name for item in look_for_images(tmp_path / "others").items] == ["a.png", "b.jpg"]


def test_a_folder_of_labels_is_one_of_masks(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "Label/1_label.png")
    with pytest.raises(FileError, match="not all of good images"):
        refuse_mixed(tmp_path, find_images(tmp_path))
