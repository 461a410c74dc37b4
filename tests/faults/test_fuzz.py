"""No damaged image file breaks a reader or an encoder, and the fuzzer itself blames the right file."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

pytest.importorskip("resource", reason="processes are forked and limited as POSIX has it")

from blemish.errors import BlemishError
from tests.faults.cases import DamagedFiles
from tests.faults.corpus import BaseFile, base_files, scene_files
from tests.faults.fuzz import COLUMNS, FAULTS, OVER, Tally
from tests.faults.mutations import mutate, mutate_tags, splice, with_tag
from tests.faults.png import SIGNATURE, png_bytes, with_valid_checksums
from tests.faults.targets import READERS, TARGETS
from tests.faults.watchdog import Call, Limits, Result, Wrong, watched

ROOT = Path(__file__).parents[2]
FILES = sorted((Path(__file__).parent / "files").iterdir())
MUTATED, CUTS = 1700, 3


def ran(tmp_path: Path, *options: object) -> dict[str, Any]:
    """The document of ``python -m tests.faults fuzz``, in a process from which it is safe to fork."""
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.faults", "fuzz", *map(str, options), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert out.exists(), done.stderr
    document: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return document


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    found = ran(tmp_path, "--files", MUTATED, "--cuts", CUTS)
    total = found["counts"]["total"]
    assert (
        found["cases"]
        == MUTATED + CUTS * len(base_files())
        == sum(total[name] for name in COLUMNS) - total[OVER]
    )
    assert total["fine"] > 200
    assert total["refused"] > 1000
    assert not found["examples"]


@pytest.fixture(scope="module")
def read_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return ran(tmp_path_factory.mktemp("files"), "--these", *FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_that_broke_an_earlier_version_are_refused_or_read(
    path: Path, read_files: dict[str, Any]
) -> None:
    """The first word of a name says what they broke: the windowed reader, scenes, JPEG files, or reading as such."""
    assert read_files["cases"] == len(FILES) * len(TARGETS)
    assert not [example for example in read_files["examples"] if example["base"] == path.name]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "file",
    # A line of a fax that ends early is white from there on.
    [file for file in base_files() if file.suffix == ".tif" and file.name != "pillow-group4.tif"],
    ids=lambda file: file.name,
)
def test_a_tiff_with_fewer_parts_than_its_size_needs_is_refused(
    file: BaseFile, reader: str, tmp_path: Path
) -> None:
    path = tmp_path / file.name
    path.write_bytes(file.data)
    with tifffile.TiffFile(path) as tiff:
        sides = {name: tiff.pages[0].tags[name] for name in ("ImageWidth", "ImageLength")}
    read = []
    for name, tag in sides.items():
        path.write_bytes(with_tag(file.data, tag.code, 2 * tag.value))
        if error_of(READERS[reader], path) is None:
            read.append(name)
    assert not read


@pytest.mark.parametrize("reader", ["read_image", "open_windowed"])
@pytest.mark.parametrize(
    "file", [file for file in base_files() if file.suffix == ".tif"], ids=lambda file: file.name
)
def test_a_tiff_whose_pixels_would_lie_in_its_header_is_refused(
    file: BaseFile, reader: str, tmp_path: Path
) -> None:
    path = tmp_path / file.name
    path.write_bytes(file.data)
    with tifffile.TiffFile(path) as tiff:
        tag = "TileOffsets" if tiff.pages[0].is_tiled else "StripOffsets"
        code = tiff.pages[0].tags[tag].code
    path.write_bytes(with_tag(file.data, code, 0))  # which tifffile takes for a part that was left out
    assert error_of(READERS[reader], path) is not None


# -- the fuzzer ----------------------------------------------------------------------------------------


def fine() -> None:
    pass


def refused() -> None:
    raise BlemishError("no")


def wrong() -> None:
    raise Wrong("other pixels")


def raises() -> None:
    raise KeyError("key")


def exits() -> None:
    os.write(2, b"first\nlast words\n")
    os._exit(3)


def crashes() -> None:
    faulthandler.disable()  # which pytest has enabled
    os.kill(os.getpid(), signal.SIGSEGV)


def sleeps() -> None:
    subprocess.Popen(["sleep", "600"])
    time.sleep(600)


def allocates() -> None:
    np.ones(200 * 2**20, np.uint8)


CALLS: list[Call] = [fine, raises, exits, refused, allocates, wrong, crashes, fine]
LIMITS = Limits(growth=150 * 2**20)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_call_is_blamed_for_what_it_does(workers: int) -> None:
    batches = [range(len(CALLS)), range(len(CALLS), 2 * len(CALLS))][:workers]
    results = list(watched(lambda index: CALLS[index % len(CALLS)], batches, LIMITS, workers))
    assert sorted(result.index for result in results) == list(range(workers * len(CALLS)))
    by_call = {CALLS[result.index % len(CALLS)].__name__: result for result in results}
    assert {name: result.outcome for name, result in by_call.items()} == {
        "fine": "fine",
        "raises": "uncaught",
        "exits": "exit",
        "refused": "refused",
        "allocates": "fine",
        "wrong": "wrong",
        "crashes": "exit",
    }
    assert (by_call["raises"].type, by_call["raises"].message) == ("KeyError", "'key'")
    assert by_call["raises"].place.endswith(" raises")
    assert (by_call["exits"].type, by_call["exits"].message) == ("exit(3)", "last words")
    assert by_call["crashes"].type == "SIGSEGV"
    assert by_call["wrong"].message == "other pixels"
    assert by_call["allocates"].growth > LIMITS.growth > by_call["fine"].growth


def test_a_call_that_does_not_end_is_ended_and_the_others_go_on() -> None:
    calls = [fine, sleeps, fine]
    results = list(watched(lambda index: calls[index], [range(3)], Limits(seconds=2)))
    assert [result.outcome for result in results] == ["fine", "hang", "fine"]
    assert results[1].type == "over 2 s"


def test_what_a_call_started_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def starts() -> None:
        note.write_text(str(subprocess.Popen(["sleep", "600"]).pid))
        os._exit(0)

    (result,) = watched(lambda _: starts, [[0]], LIMITS)
    assert (result.outcome, result.type) == ("exit", "exit(0)")
    for _ in range(50):
        state = Path(f"/proc/{note.read_text()}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the process is still there")


def test_more_address_space_than_allowed_is_not_given() -> None:
    def call() -> None:
        np.ones(2**42, np.uint8)

    (result,) = watched(lambda _: call, [[0]], LIMITS)
    assert result.outcome == "uncaught"
    assert result.type.endswith("MemoryError")


def test_the_tally_counts_and_keeps_examples() -> None:
    tally = Tally()
    files = DamagedFiles(Path("unused"), 0, 50, 0)
    kept = [
        tally.add(Result(index, "exit", "exit(1)", "out of range"), files.case(0), Limits())
        for index in range(5)
    ]
    assert kept == [["exit"], ["exit"], ["exit"], [], []]
    assert tally.add(Result(5, "refused", growth=2**30), files.case(0), Limits()) == [OVER]
    document = tally.document()
    assert document["counts"]["image"] == {**dict.fromkeys(COLUMNS, 0), "refused": 1, "exit": 5, OVER: 1}
    assert [example["count"] for example in document["examples"]] == [5, 1]
    assert {example["outcome"] for example in document["examples"]} <= set(FAULTS)


def test_shares_of_the_targets(tmp_path: Path) -> None:
    files = DamagedFiles(tmp_path, 0, 100, 0)
    assert {files.target(index) for index in range(100)} == set(TARGETS)
    assert files.case(7) == DamagedFiles(tmp_path, 0, 100, 0).case(7)
    assert files.case(7) != DamagedFiles(tmp_path, 1, 100, 0).case(7)
    assert sorted(chain.from_iterable(files.batches(range(100)))) == list(range(100))


# -- base files and mutations --------------------------------------------------------------------------


def test_base_files_are_many_and_always_the_same() -> None:
    files = base_files()
    assert len({file.name for file in files}) == len(files) >= 72
    assert files == base_files()
    assert scene_files() == scene_files()
    assert files != base_files(seed=1)


@pytest.mark.parametrize("file", [*base_files(), *scene_files()], ids=lambda file: file.name)
def test_a_base_file_is_intact(file: BaseFile, tmp_path: Path) -> None:
    path = tmp_path / file.name
    path.write_bytes(file.data)
    errors = [error for reader in READERS.values() if (error := error_of(reader, path)) is not None]
    # No reader knows the format and the depth of a deep PPM; Pillow may not know WebP in a TIFF, and an image that is
    # read into memory must be there as a whole.
    assert len(errors) < len(READERS) or file.name == "deep.ppm"
    assert not [error for error in errors if "damaged" in error] or file.name in {"webp.tif", "sparse.tif"}


def error_of(reader: Callable[[Path], object], path: Path) -> str | None:
    try:
        reader(path)
    except BlemishError as error:
        return str(error)
    return None


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("depth", "colour_type", "channels"), [(8, 0, 1), (8, 2, 3), (8, 6, 4), (16, 0, 1)])
def test_png_files_hold_their_samples(
    interlaced: bool, depth: int, colour_type: int, channels: int, tmp_path: Path
) -> None:
    samples = np.random.default_rng(0).integers(0, 2**depth, (5, 9, channels))
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(samples, depth, colour_type, interlaced=interlaced))
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image).reshape(samples.shape), samples)


def test_mutations_are_drawn_from_the_generator() -> None:
    for file in base_files():
        mutated = [mutate(file.data, Random(seed), b"other") for seed in range(10)]
        assert mutated == [mutate(file.data, Random(seed), b"other") for seed in range(10)]
        assert sum(one != file.data for one in mutated) > 5


def test_checksums_of_png_files_are_valid_in_three_quarters() -> None:
    files = [file.data for file in base_files() if file.data.startswith(SIGNATURE)]
    damaged = [mutate(data, Random(seed)) for data in files for seed in range(100)]
    valid = sum(with_valid_checksums(data) == data for data in damaged)
    assert 0.7 < valid / len(damaged) < 0.95  # more where no checksum was damaged
    assert all(with_valid_checksums(data) == data for data in files)


def test_tags_are_changed_in_their_place() -> None:
    for file in (*base_files(), *scene_files()):
        if file.suffix != ".tif":
            assert mutate_tags(file.data, Random(0)) == file.data
            continue
        for seed in range(20):
            mutated = mutate_tags(file.data, Random(seed))
            assert len(mutated) == len(file.data)
            changed = [
                index for index, pair in enumerate(zip(mutated, file.data, strict=True)) if pair[0] != pair[1]
            ]
            assert len(changed) <= 3 * 8


def test_all_levels_of_a_pyramid_have_their_tags_changed(tmp_path: Path) -> None:
    (pyramid,) = (file for file in base_files() if file.name == "pyramid.tif")
    path = tmp_path / pyramid.name
    path.write_bytes(pyramid.data)
    with tifffile.TiffFile(path) as tiff:
        pages = [tiff.pages[0], *tiff.pages[0].pages]
        places = [range(page.offset, page.offset + 2 + 12 * len(page.tags)) for page in pages]
    hit = set()
    for seed in range(200):
        mutated = mutate_tags(pyramid.data, Random(seed))
        changed = [
            index for index, pair in enumerate(zip(mutated, pyramid.data, strict=True)) if pair[0] != pair[1]
        ]
        hit |= {number for number, place in enumerate(places) for index in changed if index in place}
    assert hit == {0, 1, 2}


def test_a_splice_is_of_both_files() -> None:
    found = {splice(b"aaaa", b"bbbb", Random(seed)) for seed in range(200)}
    assert all(one.lstrip(b"a").strip(b"b") == b"" for one in found)
    assert {b"aabb", b"aaaabbbb", b""} <= found
