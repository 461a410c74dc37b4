"""Lists as spreadsheets write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from blemish.data.lists import read_list
from blemish.errors import FileError

ROWS = [["path", "label", "group"], ["a, b.png", "OK", "1"], ["ä.png", "Riß", "1"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_and_encodings(tmp_path: Path, encoding: str, delimiter: str, end: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes((end.join(delimiter.join(row) for row in ROWS) + end).encode(encoding))
    assert [(item.name, item.label, item.group) for item in read_list(path)] == [
        ("a, b.png", "good", "1"),
        ("ä.png", "Riß", "1"),
    ]


@pytest.mark.parametrize("heading", ["image", "File", "filename", "file_name", "image_path"])
def test_usual_headings(tmp_path: Path, heading: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"{heading},class\na.png,0\nb.png,1\n")
    assert [(item.name, item.label) for item in read_list(path)] == [
        ("a.png", "good"),
        ("b.png", "defective"),
    ]


def test_paths_with_backslashes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").touch()
    path = tmp_path / "list.csv"
    path.write_text("path\nsub\\a.png\n")
    (item,) = read_list(path)
    assert item.path.exists()
    assert item.name == "sub/a.png"


def test_several_masks_of_one_image(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,label,mask\na.png,dent,m1.png|m2.png\n")
    (item,) = read_list(path)
    assert [mask.name for mask in item.masks] == ["m1.png", "m2.png"]


def test_a_heading_of_its_own_goes_before_one_that_means_the_same(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("image,path\nx,a.png\n")
    assert [item.name for item in read_list(path)] == ["a.png"]


def test_a_nul_byte_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(b"path\na.png\nb\0.png\n")
    with pytest.raises(FileError, match="line 3 holds a NUL byte"):
        read_list(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sep=;\r\npath;label\r\na.png;OK\r\nb.png;x\r\n", [("a.png", "good", None), ("b.png", "x", None)]),
        ('"SEP=,"\npath,label\na.png,OK\n', [("a.png", "good", None)]),
        ("path,label\na.png,0.0\nb.png,1.0\n", [("a.png", "good", None), ("b.png", "defective", None)]),
        (
            "path,label,split\na.png,ok,val\nb.png,ok,Validation\n",
            [("a.png", "good", "train"), ("b.png", "good", "train")],
        ),
        ("File Name,Label \na.png,pass\n", [("a.png", "good", None)]),
        ("filepath,is_defect\na.png,0\nb.png,1\n", [("a.png", "good", None), ("b.png", "defective", None)]),
        ('path, label\na.png, ok\nb.png, "x, y"\n', [("a.png", "good", None), ("b.png", "x, y", None)]),
        ("path,label,group\na.png,ok,nan\nb.png,NaN,nan\n", [("a.png", "good", None), ("b.png", None, None)]),
    ],
    ids=["sep", "quoted sep", "floats", "validation", "spaced heading", "is_defect", "spaces", "nan"],
)
def test_lists_of_spreadsheets_and_pandas(
    text: str, expected: list[tuple[str, str | None, str | None]], tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode())
    found = read_list(path)
    assert [(item.name, item.label, item.split) for item in found] == expected
    assert all(item.group is None for item in found)
