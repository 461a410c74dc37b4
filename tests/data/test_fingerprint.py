from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.data.datasets import find_images
from blemish.data.fingerprint import Fingerprint, fingerprint, sampled_sha256
from blemish.data.items import Item
from blemish.errors import BlemishError, ImageError


def save(path: Path, *, seed: int = 0, size: tuple[int, int] = (6, 5), mode: str = "L") -> None:
    width, height = size
    rng = np.random.default_rng(seed)
    shape = (height, width) if mode in ("L", "I;16") else (height, width, len(mode))
    dtype: Any = np.uint16 if mode == "I;16" else np.uint8
    Image.fromarray(rng.integers(0, 256, shape, dtype=dtype)).save(path)


def test_a_fingerprint_holds_count_and_sizes(tmp_path: Path) -> None:
    for number, width in enumerate((10, 14, 30, 12)):
        save(tmp_path / f"{number}.png", size=(width, 5 + number))
    found, usable, problems = fingerprint(find_images(tmp_path))
    assert (found.count, found.channels, found.kind) == (4, 1, "uint8")
    assert (found.width.min, found.width.median, found.width.max) == (10, 13.0, 30)
    assert (found.height.min, found.height.median, found.height.max) == (5, 6.5, 8)
    assert usable == find_images(tmp_path)
    assert problems == []
    assert Fingerprint.model_validate_json(found.model_dump_json()) == found


def test_the_hash_follows_content_and_names_and_not_order_or_place(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for seed in range(3):
            save(tmp_path / folder / f"{seed}.png", seed=seed)
    items = find_images(tmp_path / "a")
    first = fingerprint(items)[0].sha256
    assert len(first) == 64
    assert fingerprint(items[::-1])[0].sha256 == first
    assert fingerprint(find_images(tmp_path / "b"))[0].sha256 == first
    assert fingerprint(items[:2])[0].sha256 != first
    save(tmp_path / "b" / "1.png", seed=9)
    changed = fingerprint(find_images(tmp_path / "b"))[0].sha256
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / "3.png")
    renamed = fingerprint(find_images(tmp_path / "a"))[0].sha256
    assert len({first, changed, renamed}) == 3


def test_other_channels_than_most_are_named(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png")
    save(tmp_path / "colour.png", mode="RGB")
    found, usable, problems = fingerprint(find_images(tmp_path))
    assert (found.count, found.channels, len(usable)) == (3, 1, 3)
    assert [str(problem) for problem in problems] == [
        f"{tmp_path / 'colour.png'}: has 3 channels where the others have 1; "
        "convert it, or fit with --set image.channels=1"
    ]


def test_another_depth_than_most_is_named(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", mode="I;16")
    save(tmp_path / "shallow.png")
    found, _, problems = fingerprint(find_images(tmp_path))
    assert found.kind == "uint16"
    assert [problem.problem for problem in problems] == ["is 8-bit where the others are 16-bit"]


def test_given_channels_bring_grey_and_colour_together(tmp_path: Path) -> None:
    save(tmp_path / "grey.png")
    save(tmp_path / "colour.png", mode="RGB")
    save(tmp_path / "alpha.png", mode="RGBA")
    found, usable, problems = fingerprint(find_images(tmp_path), channels=3)
    assert (found.count, found.channels, len(usable), problems) == (3, 3, 3, [])
    with pytest.raises(BlemishError, match="4 channels cannot be turned into one of 2"):
        fingerprint(find_images(tmp_path / "alpha.png"), channels=2)


def test_broken_files_are_found_though_their_headers_are_good(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / f"{number}.png", size=(40, 40))
    data = (tmp_path / "0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.png").touch()
    found, usable, problems = fingerprint(find_images(tmp_path))
    assert found.count == 2
    assert [item.name for item in usable] == ["0.png", "1.png"]
    assert [problem.path.name for problem in problems] == ["cut.png", "empty.png"]


def test_no_usable_image_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(BlemishError, match=r"none of 1 images can be used; the first: .*empty.png: is empty"):
        fingerprint([Item(tmp_path / "empty.png", "empty.png")])


def test_progress_counts_every_image(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"{number}.png")
    (tmp_path / "empty.png").touch()
    calls: list[tuple[int, int]] = []
    fingerprint(find_images(tmp_path), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 5) for done in range(1, 6)]


def test_ctrl_c_stops_the_fingerprint(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"{number}.png")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fingerprint(find_images(tmp_path), progress=stop)


def test_large_files_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["blemish.data.fingerprint"]  # a function of the room has the same name
    monkeypatch.setattr(module, "_SAMPLE", 2)
    monkeypatch.setattr(module, "_SAMPLES", 4)
    path = tmp_path / "scan.tif"

    def sha256(content: bytes) -> str:
        path.write_bytes(content)
        return sampled_sha256(path)

    before = sha256(b"0123456789")  # samples begin at 0, 2, 5 and 8
    assert sha256(b"0123456789") == before
    assert sha256(b"0123456789x") != before
    assert sha256(b"0123456780") != before
    assert sha256(b"0123x56789") == before
    assert sha256(b"0123456") != sha256(b"0123457")
    with pytest.raises(ImageError, match="cannot be read"):
        sampled_sha256(tmp_path / "gone.tif")


def test_faults_keep_no_image_in_memory(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(b"")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    Image.new("L", (8, 8)).save(tmp_path / "c.png")
    _, _, problems = fingerprint(find_images(tmp_path))
    assert len(problems) == 2
    assert all(problem.__traceback__ is problem.__context__ is None for problem in problems)
