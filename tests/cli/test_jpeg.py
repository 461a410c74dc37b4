from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from blemish.cli.jpeg import app
from blemish.errors import BlemishError


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def jpeg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command as ``blemish jpeg`` does, with a BlemishError as its exit code and line."""

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["blemish", "jpeg", *map(str, words)])
        capsys.readouterr()
        try:
            code = app([str(word) for word in words], standalone_mode=True) or 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BlemishError as error:
            print(f"blemish: {error}", file=sys.stderr)
            code = error.exit_code
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    y, x = np.mgrid[:48, :64]
    waves = np.stack([128 + 90 * np.sin(x / (5 + c)) * np.cos(y / 6) for c in range(3)], -1)
    image = Image.fromarray(waves.astype(np.uint8))
    image.save(folder / "a.jpg", quality=95)
    image.save(folder / "b.jpg", quality=90)
    return folder


def test_lossless_in_words(jpeg: Callable[..., Ran], photos: Path, tmp_path: Path) -> None:
    words = ("encode", photos, "--out", tmp_path / "small", "--lossless", "--workers", 1)
    ran = jpeg(*words)
    assert (ran.code, ran.err) == (0, "Encoding 2 images\n  2 of 2, 0:00 left\n")
    assert ran.out.startswith("2 images: ")
    assert "-" in ran.out
    assert "2 done by an earlier run" in jpeg(*words).out


def test_lossless_as_json(jpeg: Callable[..., Ran], photos: Path) -> None:
    ran = jpeg("encode", photos, "--in-place", "--lossless", "--workers", 1, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert [file["output"] for file in found] == ["a.jpg", "b.jpg"]
    assert all(file["bytes_after"] == (photos / file["output"]).stat().st_size for file in found)


def test_a_stopped_encode_prints_the_command_to_resume(
    jpeg: Callable[..., Ran], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    out.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (out / name).write_bytes(b"of someone else")
    words = ("encode", photos, "--out", out, "--lossless", "--workers", 1, "--overwrite")
    monkeypatch.setattr("blemish.cli.console.ConsoleObserver.should_stop", lambda self: True)
    stopped = jpeg(*words)
    assert stopped.code == 1
    assert stopped.err.rstrip().endswith("--overwrite")  # without it b.jpg would be left as it is
    monkeypatch.undo()
    assert (out / "b.jpg").read_bytes() == b"of someone else"


def test_bad_files_end_with_1(jpeg: Callable[..., Ran], photos: Path, tmp_path: Path) -> None:
    (photos / "c.jpg").write_bytes(b"")
    ran = jpeg("encode", photos, "--out", tmp_path / "small", "--lossless", "--workers", 1)
    assert ran.code == 1
    assert "skipped" in ran.err
    assert "c.jpg: is empty (0 bytes)" in ran.err
    assert ran.err.endswith("blemish: finished, but 1 file was skipped, see above\n")
    assert ran.out.startswith("2 images: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give either --out"),
        (["--out", "o", "--in-place"], "give either --out"),
        (["--out", "o", "--quality", "101"], "--quality is 101"),
        (["--out", "o", "--quality", "50", "--target-bpp", "1"], "exclude each other"),
        (["--out", "o", "--lossless", "--target-ssim", "0.9"], "leave --target-ssim out"),
        (["--out", "o", "--tune", "taste"], "taste"),
        (["--out", "o", "--sampling", "4:1:1"], "4:1:1"),
        (["--out", "o", "--workers", "0"], "--workers"),
        (["--out", "o", "--protect", "m", "--lossless"], "leave --protect out"),
        (["--out", "o", "--protect-strength", "2"], "give --protect too"),
        (["--out", "o", "--protect", "m", "--protect-strength", "0"], "--protect-strength 0: choose"),
        (["--out", "o", "--model", "m", "--tune", "balanced"], "leave --tune out"),
        (["--out", "o", "--model", "m", "--sampling", "4:2:0"], "leave --sampling out"),
        (["--out", "o", "--model", "m", "--protect", "m"], "leave --protect out"),
    ],
)
def test_wrong_usage_of_encode(
    jpeg: Callable[..., Ran], photos: Path, options: list[str], words: str
) -> None:
    before = sorted(photos.iterdir())
    ran = jpeg("encode", photos, *options)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert sorted(photos.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--encoders", "mozjepg"], "did you mean 'mozjpeg'"),
        (["--qualities", "10,x"], "whole numbers"),
        (["--qualities", "10,200"], "200 is not between 1 and 100"),
        (["--bpp", "0.2"], "two numbers"),
        (["--bpp", "1,0.2"], "the lower first"),
        (["--bpp", "0.2,inf"], "the lower first"),
    ],
)
def test_wrong_usage_of_evaluate(
    jpeg: Callable[..., Ran], photos: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    ran = jpeg("evaluate", photos, "--out", tmp_path / "out", *options)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_model_is_reported_in_one_line(
    jpeg: Callable[..., Ran], photos: Path, tmp_path: Path
) -> None:
    for option in ("--protect", "--model"):
        ran = jpeg("encode", photos, "--out", tmp_path / "small", option, tmp_path / "nowhere")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(f"blemish: {tmp_path / 'nowhere'}: ")
        assert ran.err.count("\n") == 1
    assert not (tmp_path / "small").exists()


def evaluating(photos: Path, out: Path) -> tuple[Any, ...]:
    ladder = ("--qualities", "10,40,80", "--bpp", "0.01,10", "--no-ssimulacra2", "--no-lpips")
    return ("evaluate", photos, "--out", out, "--encoders", "mozjpeg", *ladder, "--crops", 1, "--workers", 1)


def test_evaluate_in_words_and_as_json(jpeg: Callable[..., Ran], photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = jpeg(*evaluating(photos, out))
    assert ran.code == 0
    assert "BD-rate against pillow-420" in ran.out
    assert f"Report: {out / 'report.html'}" in ran.out
    again = jpeg(*evaluating(photos, out), "--json")
    assert (again.code, again.err) == (0, "")
    found = json.loads(again.out)
    assert [encoder["name"] for encoder in found["encoders"]] == ["pillow-420", "pillow-444", "mozjpeg"]
    assert found == json.loads((out / "evaluation.json").read_text())
    assert found["command"].startswith("blemish jpeg evaluate")


@pytest.mark.parametrize("command", ["encode", "evaluate"])
def test_help_has_an_example(jpeg: Callable[..., Ran], command: str) -> None:
    ran = jpeg(command, "--help")
    assert ran.code == 0
    assert f"blemish jpeg {command}" in ran.out
    assert "--json" in ran.out
