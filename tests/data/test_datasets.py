from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.data.datasets import find_images
from blemish.data.items import Item, natural_key
from blemish.data.layouts import read_labelled
from blemish.data.masks import read_mask
from blemish.errors import FileError, ImageError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


def test_numbers_sort_as_numbers() -> None:
    assert sorted(["p10", "p9", "P1", "p9a", "q", "2/b", "10/a", "p009"], key=natural_key) == [
        "2/b",
        "10/a",
        "P1",
        "p009",
        "p9",
        "p9a",
        "p10",
        "q",
    ]


def test_a_folder_gives_all_images_below_it_in_natural_order(tmp_path: Path) -> None:
    touch(
        tmp_path, "b/p10.PNG", "b/p2.jpeg", "a.tif", "c/d/x.webp", "notes.txt", ".hidden.png", ".cache/y.png"
    )
    items = find_images(tmp_path)
    assert names(items) == ["a.tif", "b/p2.jpeg", "b/p10.PNG", "c/d/x.webp"]
    assert [item.path for item in items] == [tmp_path / name for name in names(items)]
    assert {(item.label, item.masks, item.split, item.is_good) for item in items} == {(None, (), None, None)}


def test_a_link_back_to_a_folder_above_is_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/p.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert names(find_images(tmp_path)) == ["a/p.png"]


def test_a_linked_folder_is_searched(tmp_path: Path) -> None:
    touch(tmp_path, "store/p.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "store")
    assert names(find_images(tmp_path / "set")) == ["link/p.png"]


def test_a_single_file(tmp_path: Path) -> None:
    touch(tmp_path, "p.png")
    assert find_images(tmp_path / "p.png") == [Item(tmp_path / "p.png", "p.png")]


def test_an_empty_folder_is_named_with_the_known_suffixes(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(FileError, match=r"no image \(\.bmp \.gif .*\.png .*\.webp\)") as caught:
        find_images(tmp_path)
    assert caught.value.path == tmp_path
    with pytest.raises(FileError, match="does not exist"):
        find_images(tmp_path / "none")


def test_a_name_that_the_disk_refuses_is_reported() -> None:
    for find in (find_images, read_labelled):
        with pytest.raises(FileError, match=r"cannot be read \(.*; check the path"):
            find("a" * 300)


def test_an_unreadable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "p.png")

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FileError, match="cannot be searched"):
        find_images(tmp_path)


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    root = tmp_path / "screw"
    touch(root, "train/good/000.png", "train/good/001.png", "test/good/000.png", "test/scratch/000.png")
    touch(root, "test/scratch/001.png", "test/thread/7.png", "test/odd/3.png")
    touch(
        root,
        "ground_truth/scratch/000_mask.png",
        "ground_truth/scratch/001.bmp",
        "ground_truth/thread/7_mask.tif",
    )
    return root


def test_a_data_sets_root_is_no_folder_of_images(mvtec: Path) -> None:
    with pytest.raises(FileError, match="train and test folders") as caught:
        find_images(mvtec)
    assert str(mvtec / "train" / "good") in caught.value.remedy
    assert names(find_images(mvtec / "train" / "good")) == ["000.png", "001.png"]
    assert len(find_images(mvtec / "test")) == 5


def test_the_mvtec_layout(mvtec: Path) -> None:
    found = read_labelled(mvtec)
    masks = mvtec / "ground_truth"
    assert found.problems == []
    assert [(item.name, item.label, item.split, item.is_good, item.masks) for item in found.items] == [
        ("train/good/000.png", "good", "train", True, ()),
        ("train/good/001.png", "good", "train", True, ()),
        ("test/good/000.png", "good", "test", True, ()),
        ("test/odd/3.png", "odd", "test", False, ()),
        ("test/scratch/000.png", "scratch", "test", False, (masks / "scratch" / "000_mask.png",)),
        ("test/scratch/001.png", "scratch", "test", False, (masks / "scratch" / "001.bmp",)),
        ("test/thread/7.png", "thread", "test", False, (masks / "thread" / "7_mask.tif",)),
    ]
    assert all(item.path == mvtec / item.name for item in found.items)


def test_an_image_without_mask_and_a_mask_without_image_are_named(mvtec: Path) -> None:
    touch(mvtec, "test/scratch/002.png", "ground_truth/thread/8_mask.png")
    found = read_labelled(mvtec)
    assert [(problem.path, problem.problem) for problem in found.problems] == [
        (mvtec / "test/scratch/002.png", "is a defective image without a mask"),
        (mvtec / "ground_truth/thread/8_mask.png", "is a mask without an image"),
    ]
    assert "002_mask.png" in found.problems[0].remedy
    (kept,) = (item for item in found.items if item.name == "test/scratch/002.png")
    assert (kept.label, kept.masks) == ("scratch", ())
    assert len(found.items) == 8


def test_layouts_that_hold_no_test_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(FileError, match="no test folder"):
        read_labelled(tmp_path)
    (tmp_path / "test").mkdir()
    touch(tmp_path, "test/loose.png")
    with pytest.raises(FileError, match="no folder with images"):
        read_labelled(tmp_path)
    with pytest.raises(FileError, match="neither a folder nor a CSV"):
        read_labelled(tmp_path / "a.png")


def write_list(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "list.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_list(tmp_path: Path, encoding: str) -> None:
    text = (
        'Path,label,mask,split\r\nb/2.png,Good,,train\r\n\r\n"a, é.png",scratch,m/1.png,TEST\r\nc.png,,,\r\n'
    )
    source = write_list(tmp_path, text, encoding)
    assert find_images(source) == [
        Item(tmp_path / "b/2.png", "b/2.png", "good", (), "train"),
        Item(tmp_path / "a, é.png", "a, é.png", "scratch", (tmp_path / "m/1.png",), "test"),
        Item(tmp_path / "c.png", "c.png"),
    ]


def test_a_list_may_name_groups(tmp_path: Path) -> None:
    source = write_list(tmp_path, "path,label,group\na.png,good,tile 1\nb.png,good,\n")
    assert [item.group for item in find_images(source)] == ["tile 1", None]
    assert [item.group for item in read_labelled(source).items] == ["tile 1", None]


def test_an_image_is_not_taken_for_the_group_of_the_same_name(tmp_path: Path) -> None:
    source = write_list(tmp_path, "path,group\na.png,\nb.png,a.png\nc.png,a.png\nd.png,\n")
    a, b, c, d = (item.group_key for item in find_images(source))
    assert b == c
    assert len({a, b, d}) == 3


def test_a_list_of_paths_alone(tmp_path: Path) -> None:
    assert names(find_images(write_list(tmp_path, "path\na.png\nb.png\n"))) == ["a.png", "b.png"]


def test_names_from_a_list_stay_within_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    source = write_list(folder, f"path\n../x/a.png\n{folder}/in.png\n/other/b.png\nsub/../c.png\n")
    items = find_images(source)
    assert names(items) == ["x/a.png", "in.png", "other/b.png", "c.png"]
    assert items[0].path.resolve() == tmp_path / "x/a.png"
    assert items[2].path == Path("/other/b.png")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,label\na.png,good\n", "no column 'path'"),
        ("", "no column 'path'"),
        ("path,label\n", "lists no image"),
        ("path,label\na.png,good\nb.png\n", "line 3 has 1 cells where the header has 2"),
        ("path,label\n,good\n", "line 2 has no path"),
        ("path,split\na.png,\nb.png,dev\n", "line 3 has the split 'dev'"),
        ("path\na.png\nb.png\n./a.png\n", "line 4 lists a.png again, after line 2"),
        ('path\n"a.png\n', "no valid CSV"),
    ],
)
def test_a_faulty_list_is_named_by_its_line(tmp_path: Path, text: str, words: str) -> None:
    source = write_list(tmp_path, text)
    with pytest.raises(FileError, match=words) as caught:
        find_images(source)
    assert str(caught.value).startswith(f"{source}: ")
    assert "\n" not in str(caught.value)


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        find_images(tmp_path / "none.csv")
    (tmp_path / "odd.csv").write_bytes(b"\xff\xfep\xd8")  # half a character of UTF-16
    with pytest.raises(FileError, match="UTF-8"):
        find_images(tmp_path / "odd.csv")


def test_a_labelled_list(tmp_path: Path) -> None:
    rows = ["path,label,mask,split", "a.png,good,,train", "b.png,good,,", "c.png,dent,c_mask.png,test"]
    source = write_list(tmp_path, "\n".join([*rows, "d.png,,,", "e.png,,,train"]))
    found = read_labelled(source)
    assert [(item.name, item.split, item.is_good) for item in found.items] == [
        ("a.png", "train", True),
        ("b.png", "test", True),
        ("c.png", "test", False),
        ("e.png", "train", None),
    ]
    assert found.items[2].masks == (tmp_path / "c_mask.png",)
    assert [(problem.path, problem.problem) for problem in found.problems] == [
        (tmp_path / "d.png", "is a test image without a label")
    ]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_masks_of_any_kind_mark_what_is_not_zero(tmp_path: Path, mode: str) -> None:
    marked = np.zeros((5, 8), bool)
    marked[1:3, 4:7] = True
    if mode == "I;16":
        image = Image.fromarray(marked.astype(np.uint16))
    else:
        image = Image.fromarray(marked.astype(np.uint8) * 255).convert(mode)
    image.save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", size=(8, 5))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, marked)


def test_faint_mask_values_count(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 2, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", size=(4, 1)).tolist() == [[False, True, True, True]]


def test_a_mask_of_another_size_is_refused_with_both(tmp_path: Path) -> None:
    Image.new("L", (8, 5)).save(tmp_path / "m.png")
    with pytest.raises(ImageError, match="mask of 8 × 5 pixels for an image of 5 × 8"):
        read_mask(tmp_path / "m.png", size=(5, 8))
