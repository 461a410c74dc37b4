"""Listing of an archive: names as an inspection gives them, rows of a Parquet list, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blemish.data.datasets import look_in_all
from blemish.errors import FileError, UsageError
from blemish.scale.listing import ArchiveImage, look_at
from blemish.scale.store import below, fetch, is_url, listed_files


def write_list(file: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), file)
    return str(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/2.png", "a/10.png", "b/1.jpg", ".hidden.png", "b/notes.txt"):
        path = tmp_path / "parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "parts"


def test_names_of_folders_are_those_of_an_inspection(folder: Path) -> None:
    for sources in ([folder], [folder / "a", folder / "b"]):
        listed = list(look_at([str(source) for source in sources]).images())
        expected = look_in_all(sources).items
        assert [(one.name, one.place) for one in listed] == [(one.name, str(one.path)) for one in expected]


def test_the_version_of_a_file_changes_with_it(folder: Path) -> None:
    def versions() -> dict[str, str | None]:
        return {one.name: one.version for one in look_at([str(folder)]).images()}

    before = versions()
    (folder / "a/2.png").write_bytes(b"another")
    after = versions()
    assert {name for name in before if before[name] != after[name]} == {"a/2.png"}


def test_a_parquet_list_names_paths_and_urls_and_carries_columns(folder: Path) -> None:
    images = ["a/2.png", str(folder / "b/1.jpg"), "s3://bucket/x/y.png"]
    source = write_list(folder / "list.parquet", image=images, lot=[7, 8, 9], version=[None, None, "etag"])
    listing = look_at([source])
    first, second, third = listing.images()
    assert [field.name for field in listing.carried] == ["lot"]
    assert (first.name, first.place, first.carried) == ("a/2.png", str(folder / "a/2.png"), (7,))
    assert first.version is not None
    assert (second.name, second.place) == (str(folder / "b/1.jpg").lstrip("/"), images[1])
    assert third == ArchiveImage("bucket/x/y.png", "s3://bucket/x/y.png", "etag", (9,))


def test_names_of_a_list_may_be_given(folder: Path) -> None:
    source = write_list(folder / "list.parquet", image=["a/2.png"], name=["first"])
    assert [one.name for one in look_at([source]).images()] == ["first"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"path": ["a/2.png"]}, "has no column image (path)"),
        ({"image": ["../a.png"]}, "row 1: '../a.png' leads out of the folder"),
        ({"image": ["a/2.png", None]}, "row 2 has no text in the column image"),
        ({"image": pa.array([], pa.string())}, "holds no image"),
    ],
)
def test_a_list_that_is_none_is_refused(folder: Path, columns: dict[str, Any], words: str) -> None:
    source = write_list(folder / "list.parquet", **columns)
    with pytest.raises(FileError) as refused:
        list(look_at([source]).images())
    assert str(refused.value).startswith(f"{source}: {words}")


def test_what_is_no_parquet_file_is_refused(folder: Path) -> None:
    (folder / "list.parquet").write_bytes(b"PAR1 nonsense")
    for name in ("list.parquet", "gone.parquet"):
        with pytest.raises(FileError, match=name):
            look_at([str(folder / name)])


def test_columns_of_one_list_among_several_sources_are_refused(folder: Path) -> None:
    source = write_list(folder / "list.parquet", image=["a/2.png"], lot=[7])
    with pytest.raises(UsageError, match="lot"):
        look_at([source, str(folder)])


@pytest.mark.parametrize("url", ["ssh://host/a.png", "zip://a.png::http://host/b.zip", "hdfs://host/a.png"])
def test_only_listed_protocols_are_read(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read; give a path, or a URL of s3"):
        fetch(url, tmp_path / "copy")
    with pytest.raises(UsageError):
        list(listed_files(url))


def test_places_of_files_below_a_folder_or_url() -> None:
    assert below("s3://bucket/a/", "b/c.jpg") == "s3://bucket/a/b/c.jpg"
    assert below("/out/files", "b/c.jpg") == str(Path("/out/files/b/c.jpg"))
    assert is_url("s3://bucket/a")
    assert not is_url("C:/a")
