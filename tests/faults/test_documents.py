"""Documents, lists, links and programs that no reader may stumble over: each is refused with an error of Blemish."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from blemish.data.datasets import find_images
from blemish.data.image import image_info, read_image
from blemish.data.items import Item
from blemish.data.layouts import read_labelled
from blemish.data.scenes import find_scenes
from blemish.data.windowed import open_windowed
from blemish.errors import BlemishError, FileError
from blemish.inspection.detector import load
from blemish.jpeg.batch.plan import EncodingJob, plan_jobs
from blemish.jpeg.batch.settings import BatchSettings
from blemish.jpeg.batch.worker import EncodedJob, encode_one
from blemish.jpeg.source_image import read_source
from blemish.recipes import load_recipe
from tests.faults.corpus import base_files

DEEP = 5000
LOSSLESS = BatchSettings(lossless=True)


def load_checkpoint(path: Path) -> object:
    import torch

    from blemish.training.checkpoint import load_checkpoint

    model = torch.nn.Linear(1, 1)
    return load_checkpoint(path.parent, {}, model, torch.optim.Adam(model.parameters()))


def load_model(path: Path) -> object:
    return load(path.parent)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("recipe.yaml", load_recipe),
        ("modalities.yaml", find_scenes),
        ("model.json", load_model),
        ("state.json", load_checkpoint),
    ],
)
@pytest.mark.parametrize(
    "text",
    ["[" * DEEP, "[" * DEEP + "]" * DEEP, "\0", "\ud800", "1e999", ""],
    ids=["open brackets", "nested lists", "NUL", "surrogate", "overflow", "empty"],
)
def test_nested_and_broken_documents_are_refused(
    name: str, read: Callable[[Path], object], text: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BlemishError, match=r": ") as raised:
        read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("read", [find_images, read_labelled])
@pytest.mark.parametrize(
    "text",
    ["path,label\na\0b.png,good\n", "path,label\n\0,good\n", "\0", "path\n" + "a" * 200_000, 'path\n"a'],
    ids=["NUL in a path", "NUL as a path", "NUL alone", "long cell", "open quote"],
)
def test_lists_with_impossible_paths_are_refused(
    read: Callable[[Path], object], text: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BlemishError, match=r"list\.csv.*; "):
        read(path)


def test_a_link_to_itself_does_not_stop_the_other_images(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(next(file.data for file in base_files() if file.name == "420.jpg"))
    (folder / "b.jpg").symlink_to(folder / "b.jpg")
    jobs, _ = plan_jobs([folder], tmp_path / "out", LOSSLESS, "")
    results = {job.item.name: encode_one(job) for job in jobs}
    assert isinstance(results.pop("a.jpg"), EncodedJob)
    assert all(isinstance(result, FileError) for result in results.values())


@pytest.mark.parametrize("read", [read_image, image_info, open_windowed])
def test_a_link_to_itself_is_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.symlink_to(path)
    with pytest.raises(FileError):
        read(path)


@pytest.mark.parametrize("name", ["x.png", "x.eps", "x.jpg"])
def test_a_postscript_program_is_refused_and_not_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "note"
    for program in ("gs", "gswin64c", "gswin32c"):
        stand_in = tmp_path / "bin" / program
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(f"#!/bin/sh\ntouch {note}\n")
        stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / name
    box = "%%BoundingBox: 0 0 64 64\n%%EndComments"
    path.write_text(f"%!PS-Adobe-3.0 EPSF-3.0\n{box}\n{{ }} loop\nshowpage\n", encoding="ascii")
    for read in (read_image, open_windowed, read_source):
        with pytest.raises(FileError):
            read(path)
    job = EncodingJob(Item(path, name), tmp_path / "out", "x.jpg", BatchSettings(quality=50), False, "")
    assert isinstance(encode_one(job), FileError)
    assert not note.exists()
