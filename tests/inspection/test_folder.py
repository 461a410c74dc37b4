from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from blemish.data.image import read_image
from blemish.data.maps import read_map
from blemish.decision import Calibration, read_records
from blemish.errors import FileError, Stopped, UsageError
from blemish.inspection.card import model_card
from blemish.inspection.detector import Detector
from blemish.inspection.folder import Outputs, inspect_folder
from blemish.recipes import load_recipe
from blemish.storage.run_folder import RunFolder
from blemish.storage.run_lock import owned

Draw = Callable[..., np.ndarray]
Save = Callable[..., Path]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def parts(tmp_path: Path, draw: Draw, save: Save) -> Path:
    """Five images with the names that people give."""
    folder = tmp_path / "parts"
    names = ["a.png", "a.bmp", "a.bmp.png", "left side/ä ö.png", "<script>alert(1)<.tif"]
    for seed, name in enumerate(names):
        save(folder / name, draw(300 + seed, 40 + seed, 48 - seed, dot=seed == 0))
    return folder


@pytest.fixture
def bad(parts: Path, draw: Draw, save: Save) -> dict[str, str]:
    """Files that cannot be used, put among the five: name, and a word of the message."""
    whole = (parts / "a.png").read_bytes()
    (parts / "empty.png").write_bytes(b"")
    (parts / "cut.png").write_bytes(whole[: len(whole) // 2])
    (parts / "text.png").write_text("a letter")
    save(parts / "colour.png", np.stack([draw(1)] * 3, axis=-1))
    save(parts / "deep.png", draw(1).astype(np.uint16) * 256)
    save(parts / "small.png", draw(1, 15, 60))
    holes = draw(1).astype(np.float32) / 255
    holes[3, 4] = np.nan
    tifffile.imwrite(parts / "nan.tif", holes)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    (parts / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    return {
        "bomb.png": "60000 × 60000",
        "colour.png": "3 channels",
        "cut.png": "truncated",
        "deep.png": "16-bit",
        "empty.png": "0 bytes",
        "nan.tif": "NaN",
        "small.png": "too small",
        "text.png": "is not a PNG",
    }


# -- what an inspection leaves -------------------------------------------------------------------------


def test_every_image_leaves_a_record_a_map_an_overlay_and_a_reconstruction(
    detector: Detector, parts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found"
    inspect_folder(detector, parts, out)
    images = {"a.png", "a.bmp.png", "a.bmp.png.png", "left side/ä ö.png", "<script>alert(1)<.tif.png"}
    expected = {f"{kind}/{name}" for kind in ("maps", "overlays", "reconstructions") for name in images}
    assert files(out) == expected | {"inspections.jsonl", "inspections.csv", "inspection.json", "report.html"}
    for record in read_records(out / "inspections.jsonl"):
        found = detector.inspect(parts / record.path)
        assert record.score == found.score
        assert record.size == found.size
        name = record.path if record.path in ("a.png", "left side/ä ö.png") else f"{record.path}.png"
        with Image.open(out / "maps" / name) as image:
            assert image.mode == "I;16"
            assert image.size == found.size
            step = float(image.text["blemish:scale"])  # type: ignore[attr-defined]
            assert image.text["blemish:measure"] == "1 − SSIM"  # type: ignore[attr-defined]
        np.testing.assert_allclose(read_map(out / "maps" / name), found.map, rtol=0, atol=0.51 * step)
        assert read_image(out / "overlays" / name).size == found.size
        redrawn = read_image(out / "reconstructions" / name).floats()
        np.testing.assert_allclose(redrawn, found.reconstruction, rtol=0, atol=0.51 / 255)


def test_the_report_escapes_names_and_states_training_and_guarantee(
    detector: Detector, parts: Path, tmp_path: Path
) -> None:
    inspect_folder(detector, parts, tmp_path / "found")
    page = (tmp_path / "found" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;.tif" in page
    assert "ä ö.png" in page
    assert re.search(r"trained on 17 good images with ssim-ae in \d+ s", page)
    assert "false-reject rate at most" in page
    assert str(tmp_path) not in page
    inspect_folder(detector.with_threshold(0.1), parts, tmp_path / "fixed")
    assert "false-reject rate at most" not in (tmp_path / "fixed" / "report.html").read_text(encoding="utf-8")


def test_an_image_that_cannot_be_converted_is_left_out_and_the_others_are_inspected(
    detector: Detector, parts: Path, tmp_path: Path
) -> None:
    five = np.zeros((5, 40, 48), np.uint8)
    tifffile.imwrite(parts / "five.tif", five, photometric="minisblack", metadata={"axes": "CYX"})
    preparation = detector.file.preprocessing.model_copy(update={"convert": True})
    file = detector.file.model_copy(update={"preprocessing": preparation})
    output = inspect_folder(Detector(detector.model, file), parts, tmp_path / "found")
    (problem,) = map(str, output.problems)
    assert problem.startswith(f"{parts / 'five.tif'}: an image of 5 channels cannot be turned into one of 1")
    assert len(output.records) == 5


def test_an_image_scores_the_same_alone_and_among_others(
    detector: Detector, good: Path, tmp_path: Path
) -> None:
    inspect_folder(detector, good, tmp_path / "many")
    inspect_folder(detector, good / "7.png", tmp_path / "one")
    many = {record.path: record for record in read_records(tmp_path / "many" / "inspections.jsonl")}
    (alone,) = read_records(tmp_path / "one" / "inspections.jsonl")
    assert alone.score == many["7.png"].score
    assert alone.p_value == many["7.png"].p_value
    name = Path("maps") / "7.png"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
    calibration = [many[name].score for name in detector.file.split["calibration"]]
    assert calibration == list(detector.file.calibration.scores)


# -- bad input -----------------------------------------------------------------------------------------


def test_bad_files_are_named_and_the_others_inspected(
    blemish: Callable[..., Any], model: Path, parts: Path, bad: dict[str, str], tmp_path: Path
) -> None:
    ran = blemish("inspect", model, parts, "--out", tmp_path / "found")
    assert ran.code == 1
    assert len(ran.skipped) == len(bad)
    for line, (name, words) in zip(ran.skipped, sorted(bad.items()), strict=True):
        assert line.startswith(f"skipped {parts / name}: ")
        assert words in line
        assert "; " in line
    assert "8 files were skipped" in ran.error
    records = read_records(tmp_path / "found" / "inspections.jsonl")
    assert len(records) == 5
    page = (tmp_path / "found" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in bad)


def test_a_name_that_is_not_valid_text_is_reported(
    detector: Detector, parts: Path, tmp_path: Path, recorder: type
) -> None:
    shutil.copy(parts / "a.png", os.fsdecode(os.fsencode(parts) + b"/\xff.png"))
    recorded = recorder()
    folder = inspect_folder(detector, parts, tmp_path / "found", observer=recorded)
    assert len(folder.records) == 5
    assert "rename it" in str(recorded.problems[0])


@pytest.mark.parametrize(
    ("images", "words"),
    [("empty", "holds no image"), ("missing", "does not exist"), ("notes", "holds no image")],
)
def test_a_folder_without_images_is_refused(
    blemish: Callable[..., Any], model: Path, tmp_path: Path, images: str, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("")
    ran = blemish("inspect", model, tmp_path / images, "--out", tmp_path / "found")
    assert ran.code == 1
    assert ran.error.startswith(f"blemish: {tmp_path / images}: {words}")
    assert not (tmp_path / "found").exists()


def test_a_folder_of_unusable_images_is_reported(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.png").write_bytes(b"")
    folder = inspect_folder(detector, tmp_path / "parts", tmp_path / "found")
    assert folder.records == []
    assert "No image was inspected" in (tmp_path / "found" / "report.html").read_text(encoding="utf-8")


# -- output that cannot be written ---------------------------------------------------------------------


def test_an_output_path_below_a_file_is_refused(
    blemish: Callable[..., Any], model: Path, parts: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ran = blemish("inspect", model, parts, "--out", tmp_path / "file" / "found")
    assert ran.code == 1
    assert "file: is a file, so nothing can be written here; choose another --out" in ran.error


@pytest.mark.parametrize("place", ["maps", "overlays", "reconstructions"])
def test_full_disk_keeps_finished_records_and_leaves_no_half_file(
    detector: Detector, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    out = tmp_path / "found"
    real = Image.Image.save
    written: list[Path] = []

    def save(self: Image.Image, fp: Any, *rest: Any, **options: Any) -> None:
        if isinstance(fp, Path) and fp.parent == out / place:
            written.append(fp)
            if len(written) > 2:
                fp.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
        real(self, fp, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", save)
        with pytest.raises(FileError, match="the disk is full; free some space") as error:
            inspect_folder(detector, parts, out)
    assert error.value.path.parent == out / place
    done = read_records(out / "inspections.jsonl")
    assert len(done) == 2
    assert not [name for name in files(out) if ".part-" in name]
    assert "2 images" in (out / "report.html").read_text(encoding="utf-8")
    folder = inspect_folder(detector, parts, out, resume=True)
    assert folder.records[:2] == done
    assert len(folder.records) == 5


def test_full_disk_is_one_line(
    blemish: Callable[..., Any],
    model: Path,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("blemish.storage.atomic.os.replace", full)
    ran = blemish("inspect", model, parts, "--out", tmp_path / "found")
    assert ran.code == 1
    assert "the disk is full" in ran.error
    assert files(tmp_path / "found") == set()


# -- stop, resume, overwrite ---------------------------------------------------------------------------


def test_resume_inspects_only_the_remaining_images(
    detector: Detector, parts: Path, tmp_path: Path, recorder: type
) -> None:
    out = tmp_path / "found"
    with pytest.raises(Stopped, match="stopped after 2 of 5 images"):
        inspect_folder(detector, parts, out, observer=recorder(2))
    first = read_records(out / "inspections.jsonl")
    assert len(first) == 2
    assert "2 images" in (out / "report.html").read_text(encoding="utf-8")
    times = {path: path.stat().st_mtime_ns for path in (out / "maps").rglob("*.png")}
    with pytest.raises(UsageError, match="--resume"):
        inspect_folder(detector, parts, out)
    recorded = recorder()
    inspect_folder(detector, parts, out, resume=True, observer=recorded)
    assert recorded.stages == [
        "Comparing 2 inspected images with the files",
        f"Inspecting 3 images in {parts}, 2 already done",
    ]
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    inspect_folder(detector, parts, tmp_path / "whole")
    resumed, whole = (
        {(r.path, r.score, r.p_value, r.regions) for r in read_records(folder / "inspections.jsonl")}
        for folder in (out, tmp_path / "whole")
    )
    assert resumed == whole
    assert files(out) == files(tmp_path / "whole")


def test_resume_refuses_another_decision_and_another_model(
    detector: Detector, parts: Path, tmp_path: Path, recorder: type
) -> None:
    out = tmp_path / "found"
    with pytest.raises(Stopped):
        inspect_folder(detector, parts, out, observer=recorder(2))
    with pytest.raises(UsageError, match="another threshold; use --overwrite"):
        inspect_folder(detector.with_threshold(0.1), parts, out, resume=True)
    settings = json.loads((out / "inspection.json").read_text())
    (out / "inspection.json").write_text(json.dumps({**settings, "weights_sha256": "0"}))
    with pytest.raises(UsageError, match="another weights"):
        inspect_folder(detector, parts, out, resume=True)
    (out / "inspection.json").unlink()
    with pytest.raises(FileError, match="use --overwrite"):
        inspect_folder(detector, parts, out, resume=True)
    assert len(read_records(out / "inspections.jsonl")) == 2


def test_overwrite_removes_what_the_earlier_inspection_wrote_and_nothing_else(
    detector: Detector, good: Path, parts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found"
    inspect_folder(detector, parts, out)
    (out / "maps" / "mine.png").write_bytes(b"kept")
    (out / "notes.txt").write_text("kept")
    (out / "evaluation.json").write_text("{}")
    inspect_folder(detector.with_threshold(0.1), good / "7.png", out, overwrite=True)
    assert files(out) == {
        "maps/7.png",
        "maps/mine.png",
        "overlays/7.png",
        "reconstructions/7.png",
        "inspections.jsonl",
        "inspections.csv",
        "inspection.json",
        "report.html",
        "notes.txt",
    }
    assert not (out / "overlays" / "left side").exists()
    assert [record.threshold for record in read_records(out / "inspections.jsonl")] == [0.1]


def test_overwrite_never_leaves_its_folder(
    detector: Detector, parts: Path, tmp_path: Path, save: Save, draw: Draw
) -> None:
    out = tmp_path / "found"
    inspect_folder(detector, parts / "a.png", out)
    mine = save(tmp_path / "mine.png", draw(1))
    line = (out / "inspections.jsonl").read_text()
    for name in ("../../mine.png", str(mine)):
        (out / "inspections.jsonl").write_text(line.replace('"a.png"', json.dumps(name)))
        inspect_folder(detector, parts / "a.png", out, overwrite=True)
        assert mine.exists()


def test_overwrite_replaces_unreadable_records(detector: Detector, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    inspect_folder(detector, parts, out)
    (out / "inspections.jsonl").write_text("no record\n")
    with pytest.raises(FileError, match="line 1 is not a record"):
        inspect_folder(detector, parts, out, resume=True)
    assert len(inspect_folder(detector, parts, out, overwrite=True).records) == 5


def test_an_output_name_that_the_disk_refuses(detector: Detector, parts: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="File name too long"):
        inspect_folder(detector, parts, tmp_path / ("a" * 300))
    with pytest.raises(FileError, match="cannot be read"):
        inspect_folder(detector, "a" * 300, tmp_path / "found")


def test_resume_and_overwrite_contradict_each_other(detector: Detector, parts: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give one"):
        inspect_folder(detector, parts, tmp_path / "found", resume=True, overwrite=True)


def test_ctrl_c_keeps_finished_images_and_prints_the_command_to_resume(
    blemish: Callable[..., Any], model: Path, tmp_path: Path, draw: Draw, save: Save
) -> None:
    parts, out = tmp_path / "many parts", tmp_path / "found"
    count = 30
    for seed in range(count):
        save(parts / f"{seed}.png", draw(seed, 100, 120))
    words = ["inspect", str(model), str(parts), "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "blemish", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        records = out / "inspections.jsonl"
        while process.poll() is None and not (records.exists() and records.read_bytes().count(b"\n") > 1):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, output = process.communicate()
    assert process.returncode == 1
    last = output.splitlines()[-1]
    stopped = re.fullmatch(rf"blemish: stopped after (\d+) of {count} images.*; go on with: (.*)", last)
    assert stopped, output
    done = read_records(out / "inspections.jsonl")
    assert 1 < len(done) == int(stopped[1]) < count
    assert (out / "report.html").exists()
    assert stopped[2] == f"blemish inspect {model} '{parts}' --out {out} --resume"
    ran = blemish(*words, "--resume")
    assert ran.code == 0
    resumed = read_records(out / "inspections.jsonl")
    assert resumed[: len(done)] == done
    assert len({record.path for record in resumed}) == len(resumed) == count


# -- like the training images? -----------------------------------------------------------------------


def test_drift_is_reported_in_a_line_and_in_the_report(
    blemish: Callable[..., Any], detector: Detector, draw: Draw, save: Save, tmp_path: Path
) -> None:
    calibration = Calibration(scores=tuple(np.linspace(0.1, 0.2, 40)), map_maxima=(0.5,) * 40)
    file = detector.file.model_copy(update={"calibration": calibration})
    strict = Detector(detector.model, file)
    strict.save(tmp_path / "model")
    for seed in range(12):
        save(tmp_path / "parts" / f"{seed}.png", draw(300 + seed))
    scores = [strict.inspect(path).score for path in (tmp_path / "parts").iterdir()]
    ran = blemish(
        "inspect", tmp_path / "model", tmp_path / "parts", "--out", tmp_path / "a", "--threshold", 99
    )
    (line,) = [line for line in ran.out.splitlines() if "look like" in line]
    side = "higher" if np.mean(scores) > 0.15 else "lower"
    assert line.startswith("These images do not look like the training images")
    assert f"score {side} than" in line
    assert line in (tmp_path / "a" / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")


def test_known_defective_images_do_not_count_as_drift(
    detector: Detector, parts: Path, tmp_path: Path
) -> None:
    output = inspect_folder(detector, parts, tmp_path / "found")
    before = output.drift()
    assert before.count == 5
    output.records = [record.model_copy(update={"label": "dot"}) for record in output.records[:1]] + [
        record.model_copy(update={"label": "good"}) for record in output.records[1:]
    ]
    assert output.drift().count == 4


def test_too_few_images_for_drift_are_reported(
    blemish: Callable[..., Any], model: Path, parts: Path, tmp_path: Path
) -> None:
    ran = blemish("inspect", model, parts / "a.png", "--out", tmp_path / "found")
    assert "are too few" in ran.out


# -- what a record vouches for -------------------------------------------------------------------------


def test_another_image_under_the_same_name_is_inspected_again(
    detector: Detector, parts: Path, tmp_path: Path, draw: Draw, save: Save
) -> None:
    out = tmp_path / "found"
    before = {record.path: record for record in inspect_folder(detector, parts, out).records}
    save(parts / "a.png", draw(77, 50, 44))
    after = {record.path: record for record in inspect_folder(detector, parts, out, resume=True).records}
    assert after["a.png"].size == (44, 50)
    assert after["a.png"].sha256 != before["a.png"].sha256
    del before["a.png"], after["a.png"]
    assert after == before
    assert len(read_records(out / "inspections.jsonl")) == 5


@pytest.mark.parametrize("folder", ["maps", "overlays", "reconstructions"])
def test_a_record_without_its_files_is_made_again(
    detector: Detector, parts: Path, tmp_path: Path, folder: str
) -> None:
    out = tmp_path / "found"
    inspect_folder(detector, parts, out)
    (out / folder / "a.png").unlink()
    inspect_folder(detector, parts, out, resume=True)
    assert (out / folder / "a.png").exists()
    assert sorted(record.path for record in read_records(out / "inspections.jsonl")) == sorted(
        path.relative_to(parts).as_posix() for path in parts.rglob("*") if path.is_file()
    )


def test_records_of_before_there_were_hashes_count(
    detector: Detector, parts: Path, tmp_path: Path, recorder: Callable[..., Any]
) -> None:
    out = tmp_path / "found"
    inspect_folder(detector, parts, out)
    lines = [json.loads(line) for line in (out / "inspections.jsonl").read_text().splitlines()]
    former = "".join(
        json.dumps({key: value for key, value in line.items() if key != "sha256"}) + "\n" for line in lines
    )
    (out / "inspections.jsonl").write_text(former)
    recorded = recorder()
    inspect_folder(detector, parts, out, resume=True, observer=recorded)
    assert "5 already done" in recorded.stages[-1]


@pytest.mark.parametrize("stop_at", [1, 2, 3, 8, 15])
@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_an_overwriting_that_is_killed_while_it_clears_leaves_no_gap(
    detector: Detector,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_at: int,
    option: str,
) -> None:
    out = tmp_path / "found"
    inspect_folder(detector, parts, out)
    whole = files(out)
    removed = []
    remove = RunFolder.remove

    def killed(self: RunFolder, name: str) -> None:
        removed.append(name)
        if len(removed) == stop_at:
            raise KeyboardInterrupt
        remove(self, name)

    monkeypatch.setattr(RunFolder, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        inspect_folder(detector, parts, out, overwrite=True)
    monkeypatch.undo()
    inspect_folder(detector, parts, out, resume=option == "--resume", overwrite=option == "--overwrite")
    assert files(out) == whole
    assert len(read_records(out / "inspections.jsonl")) == 5


# -- one image does not stop the others ----------------------------------------------------------------


@pytest.mark.parametrize("long", [True, False])
def test_an_image_whose_results_cannot_take_its_name_is_skipped(
    detector: Detector,
    parts: Path,
    tmp_path: Path,
    draw: Draw,
    save: Save,
    long: bool,
    recorder: Callable[..., Any],
) -> None:
    if long:
        name = "n" * 248 + ".bmp"  # with .png behind it, longer than a name may be
        save(parts / name, draw(7))
    else:
        name = "a.tif.png/b.png"
        save(parts / "a.tif", draw(7))
        save(parts / name, draw(8))  # the map of a.tif is where this one's folder would be
    out, recorded = tmp_path / "found", recorder()
    found = inspect_folder(detector, parts, out, observer=recorded)
    problem = str(*recorded.problems)
    assert "has a name that its results cannot take" in problem
    assert problem.endswith("; rename it")
    assert len(found.records) == (5 if long else 6)
    assert "its results cannot take" in found.report.read_text(encoding="utf-8")


def test_problems_keep_no_image_in_memory(detector: Detector, parts: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(parts / "colour.png")
    found = inspect_folder(detector, parts, tmp_path / "found")
    (problem,) = found.problems
    assert problem.__traceback__ is problem.__context__ is problem.__cause__ is None


def test_an_image_that_does_not_fit_into_memory_is_skipped(
    detector: Detector,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorder: Callable[..., Any],
) -> None:
    contiguous = np.ascontiguousarray

    def scarce(array: Any, *rest: Any, **more: Any) -> Any:
        if getattr(array, "shape", ())[-2:] == (40, 48):
            raise MemoryError
        return contiguous(array, *rest, **more)

    monkeypatch.setattr("blemish.data.image.np.ascontiguousarray", scarce)
    recorded = recorder()
    found = inspect_folder(detector, parts, tmp_path / "found", observer=recorded)
    assert ["does not fit into memory" in str(problem) for problem in recorded.problems] == [True]
    assert len(found.records) == 5 - len(recorded.problems)


def test_two_runs_do_not_share_a_folder(
    blemish: Callable[..., Any], model: Path, parts: Path, tmp_path: Path
) -> None:
    with owned(tmp_path / "found"):
        ran = blemish("inspect", model, parts, "--out", tmp_path / "found")
    assert ran.code == 2
    assert re.search(r"found: is in use by .* \(process \d+ on .*\); wait for its end, or choose", ran.error)
    assert blemish("inspect", model, parts, "--out", tmp_path / "found").code == 0


def test_control_characters_in_names_are_shown_escaped(
    blemish: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pa\nrts"
    folder.mkdir()
    (folder / "a\x1b]0;title\x07\n.png").write_bytes(b"no image")
    ran = blemish("inspect", model, folder, "--out", tmp_path / "fo\x1b[31mund")
    assert "\x1b" not in ran.out + ran.err
    assert "\x07" not in ran.err
    (line,) = ran.skipped
    assert "pa\\nrts/a\\x1b]0;title\\x07\\n.png: is not a PNG" in line


# -- outputs -------------------------------------------------------------------------------------------


def test_a_table_for_spreadsheets_lies_beside_the_records(
    detector: Detector, parts: Path, tmp_path: Path
) -> None:
    Image.open(parts / "a.png").save(parts / "=cmd().png")
    found = inspect_folder(detector, parts, tmp_path / "found")
    text = (tmp_path / "found" / "inspections.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    by_name = {record.path: record for record in found.records}
    assert {row["path"].removeprefix("'") for row in rows} == set(by_name)
    assert "'=cmd().png" in {row["path"] for row in rows}
    for row in rows:
        record = by_name[row["path"].removeprefix("'")]
        assert float(row["score"]) == record.score
        assert row["rejected"] == str(int(record.is_anomalous))
        assert (row["x"] == "") == (not record.regions)
        assert row["sha256"] == record.sha256


def test_regions_agree_with_the_decision(detector: Detector, parts: Path) -> None:
    for threshold in (0.0, detector.threshold, 1e6):
        decided = detector.with_threshold(threshold)
        for path in sorted(parts.rglob("*.*")):
            found = decided.inspect(path)
            assert found.is_anomalous == bool(found.regions) == bool(found.mask.any())
            if found.regions and found.map.max() <= found.pixel_threshold:
                y, x = np.unravel_index(found.map.argmax(), found.map.shape)
                region = found.regions[0]
                assert region.x <= x < region.x + region.width
                assert region.y <= y < region.y + region.height


@pytest.mark.parametrize("overlays", ["all", "rejected", "none"])
def test_overlays_masks_and_annotations_on_request(
    detector: Detector, parts: Path, tmp_path: Path, overlays: Any
) -> None:
    out = tmp_path / "found"
    scores = sorted(detector.inspect(path).score for path in parts.rglob("*.*"))
    decided = detector.with_threshold(scores[2])
    outputs = Outputs(overlays=overlays, masks=True, coco=True)
    found = inspect_folder(decided, parts, out, outputs=outputs)
    rejected = {record.path for record in found.records if record.is_anomalous}
    assert len(rejected) == 2
    written = {path.relative_to(out / "overlays").as_posix() for path in out.glob("overlays/**/*.png")}
    assert len(written) == {"all": 5, "rejected": 2, "none": 0}[overlays]
    coco = json.loads((out / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [record.path for record in found.records]
    for record, image in zip(found.records, coco["images"], strict=True):
        own = [one for one in coco["annotations"] if one["image_id"] == image["id"]]
        mask = read_image(out / found_mask(record.path)).pixels[0]
        assert mask.shape == (image["height"], image["width"])
        assert (mask.max() == 255) == (record.path in rejected)
        assert sum(one["area"] for one in own) == (mask > 0).sum()
        assert sorted(one["bbox"] for one in own) == sorted(
            [region.x, region.y, region.width, region.height] for region in record.regions
        )
        drawn = np.zeros(mask.size, bool)
        for one in own:
            ends = np.cumsum(one["segmentation"]["counts"])
            for start, stop in zip(ends[::2], ends[1::2], strict=False):
                drawn[start:stop] = True
        np.testing.assert_array_equal(drawn.reshape(mask.shape, order="F"), mask > 0)
    assert inspect_folder(decided, parts, out, outputs=outputs, resume=True).records == found.records
    if overlays != "all":
        with pytest.raises(UsageError, match="another overlays"):
            inspect_folder(decided, parts, out, resume=True)


def found_mask(name: str) -> str:
    keeps = name.endswith(".png") and not name.endswith(".bmp.png")
    return f"masks/{name}" if keeps else f"masks/{name}.png"


def test_several_sources_and_wildcards(
    blemish: Callable[..., Any], model: Path, parts: Path, tmp_path: Path, draw: Draw, save: Save
) -> None:
    other = tmp_path / "other"
    save(other / "a.png", draw(1))
    ran = blemish("inspect", model, parts, other, tmp_path / "*.nothing", "--out", tmp_path / "none")
    assert "fits no file and no folder" in ran.error
    ran = blemish("inspect", model, parts / "*.png", other, "--out", tmp_path / "found")
    assert ran.code == 0
    names = {record.path for record in read_records(tmp_path / "found" / "inspections.jsonl")}
    assert names == {"a.png", "a.bmp.png", "other/a.png"}
    ran = blemish("inspect", model, parts / "a.png", other / "a.png", "--out", tmp_path / "twice")
    assert "would have the name of" in ran.error


def test_a_script_hears_of_rejects_by_the_exit_code(
    blemish: Callable[..., Any], model: Path, parts: Path, tmp_path: Path
) -> None:
    words = ["inspect", model, parts, "--fail-on-reject", "--out"]
    assert blemish(*words, tmp_path / "low", "--threshold", 0).code == 3
    assert blemish(*words, tmp_path / "high", "--threshold", 1e6).code == 0


# -- images of another kind ----------------------------------------------------------------------------


def test_an_image_of_another_kind_is_rejected_with_the_reason(
    blemish: Callable[..., Any], model: Path, good: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "parts"))
    for name, level in (("white.png", 255), ("black.png", 0)):
        Image.fromarray(np.full((40, 48), level, np.uint8)).save(folder / name)
    ran = blemish("inspect", model, folder, "--out", tmp_path / "found", "--threshold", 1e6)
    assert ran.code == 0
    assert "2 of 26 images rejected, 2 of them as of another kind than the good images." in ran.out
    records = {record.path: record for record in read_records(tmp_path / "found" / "inspections.jsonl")}
    assert {name for name, record in records.items() if record.other_kind} == {"white.png", "black.png"}
    for name in ("white.png", "black.png"):
        assert records[name].is_anomalous
        assert "mean brightness" in str(records[name].other_kind)
        assert records[name].regions == ()
    page = (tmp_path / "found" / "report.html").read_text(encoding="utf-8")
    assert "Not of the kind of the good images: mean brightness 1, good images have" in page
    text = (tmp_path / "found" / "inspections.csv").read_text(encoding="utf-8-sig")
    assert sum("mean brightness" in line for line in text.splitlines()) == 2


@pytest.mark.parametrize(
    ("sees_areas", "encoder", "is_said"), [(False, True, True), (True, True, False), (False, False, True)]
)
def test_the_card_says_to_what_a_memory_bank_is_blind(
    detector: Detector, sees_areas: bool, encoder: bool, is_said: bool
) -> None:
    changes = {"threshold": detector.recipe.threshold, **({} if encoder else {"encoder": None})}
    recipe = load_recipe("blemish").model_copy(update=changes)
    card = model_card(detector.file.model_copy(update={"recipe": recipe}), sees_areas=sees_areas)
    assert ("Blind to: an even change of brightness or colour" in card) is is_said
    assert ("what its network has learned" in card) is (is_said and encoder)
    assert "Blind to" not in model_card(detector.file)  # an autoencoder reconstructs colours


def test_images_of_another_kind_can_be_accepted(detector: Detector, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 48), 255, np.uint8)).save(tmp_path / "white.png")
    assert detector.inspect(tmp_path / "white.png").other_kind is not None
    image = detector.recipe.image.model_copy(update={"other_kinds": "accept"})
    recipe = detector.recipe.model_copy(update={"image": image})
    lenient = detector.with_file(detector.file.model_copy(update={"recipe": recipe}))
    assert lenient.inspect(tmp_path / "white.png").other_kind is None
    assert "of another kind are rejected" in detector.card()
    assert "of another kind are rejected" not in lenient.card()


def test_the_promise_is_kept_with_images_of_the_kind(detector: Detector, draw: Draw) -> None:
    assert all(detector.inspect(draw(seed)).other_kind is None for seed in range(1000, 1040))


def test_no_part_and_two_parts_are_of_another_kind(posed: tuple[Detector, Path], draw_part: Draw) -> None:
    detector = posed[0]
    one = draw_part(500, 103, 96)
    assert detector.inspect(one).other_kind is None
    ground = np.full_like(one, np.median(one[0]))
    assert "no object is found" in str(detector.inspect(ground).other_kind)
    two = np.concatenate([one, draw_part(501, 103, 96)])
    assert "2 objects are found, in good images one" in str(detector.inspect(two).other_kind)
