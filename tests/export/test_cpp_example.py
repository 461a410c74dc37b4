"""The example in C++ gives the scores and decisions of Blemish."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import blemish
from blemish.data.image import read_image
from blemish.export.export_model import export_model, exported_detector
from blemish.export.parts import Parts
from blemish.inspection.detector import Detector
from blemish.observer import Observer
from blemish.training.fit import fit
from tests.services import needs

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the command lines of the example's page are for Linux"
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp"
Draw = Callable[..., NDArray[np.uint8]]


def blocks() -> list[str]:
    """Command lines of the example's page."""
    return re.findall(
        r"```sh\n(.*?)```", (EXAMPLE / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )


def shell(lines: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["sh", "-ec", lines], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built as its page says."""
    needs("c++")
    folder = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("example") / "cpp"))
    shell(blocks()[0], folder)
    return folder / "inspect"


@pytest.fixture(scope="module")
def grey(exported: tuple[Detector, Path]) -> Path:
    """Folder of a model of grey images in 8 bits, for ONNX Runtime."""
    return exported[1]


def run(program: Path, *words: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *words], capture_output=True, text=True)


def write_pnm(path: Path, pixels: NDArray[Any]) -> Path:
    """PGM of pixels (H, W), or PPM of (H, W, 3), with a comment; 16 bits with the high byte first."""
    kind, full = ("P5", "P6")[pixels.ndim - 2], np.iinfo(pixels.dtype).max
    header = f"{kind}\n# drawn by a test\n{pixels.shape[1]} {pixels.shape[0]}\n{full}\n".encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + pixels.astype(pixels.dtype.newbyteorder(">")).tobytes())
    return path


def agrees(program: Path, exported: Path, images: list[Path]) -> list[bool]:
    """Whether each image is rejected, after a comparison with Blemish."""
    ran = run(program, exported, *images)
    assert ran.returncode == 0, ran.stderr
    detector = blemish.load(exported)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    for line, image in zip(lines, images, strict=True):
        found = detector.inspect(image)
        assert line["image"] == str(image)
        assert line["score"] == pytest.approx(found.score, rel=1e-4)
        assert line["threshold"] == pytest.approx(found.threshold, rel=1e-8)
        assert line["rejected"] == found.is_anomalous
        assert (line["other_kind"] is None) == (found.other_kind is None)
    return [line["rejected"] for line in lines]


def drawn(folder: Path, draw: Draw, as_file: Callable[[NDArray[np.uint8]], NDArray[Any]]) -> list[Path]:
    """A good image, one with a dot, odd sizes below and above a tile, and one with the lamp off."""
    images = [draw(100), draw(101, dot=True), draw(102, 29, 47), draw(103, 47, 61), 0 * draw(104)]
    return [write_pnm(folder / f"{number}.pnm", as_file(image)) for number, image in enumerate(images)]


def test_grey_images_in_8_bits(program: Path, grey: Path, draw: Draw, tmp_path: Path) -> None:
    rejected = agrees(program, grey, drawn(tmp_path, draw, lambda image: image))
    assert rejected[:2] == [False, True]
    assert rejected[4]


def test_graphs_of_openvino(
    program: Path, fitted: tuple[Detector, Path], fitted_parts: Parts, draw: Draw, tmp_path: Path
) -> None:
    exported_detector(fitted[0], "openvino", tmp_path, Observer(), fitted_parts).save(tmp_path / "exported")
    rejected = agrees(program, tmp_path / "exported", drawn(tmp_path, draw, lambda image: image))
    assert rejected[:2] == [False, True]


@pytest.mark.parametrize(
    ("settings", "colours"),
    [
        (["image.range=4095", "image.size=36", "score.name=top-quantile"], True),
        (["image.size=36", "image.scale=common", "score.name=multi-scale-max", "score.sigma=2"], False),
    ],
    ids=["RGB", "grey"],
)
def test_images_in_16_bits(
    settings: list[str], colours: bool, program: Path, draw: Draw, tiny: list[str], tmp_path: Path
) -> None:
    def as_file(image: NDArray[np.uint8]) -> NDArray[np.uint16]:
        own = np.stack([image, 255 - image, image // 2], -1) if colours else image
        return own.astype(np.uint16) * 16

    for seed in range(24):
        write_pnm(tmp_path / "good" / f"{seed}.pnm", as_file(draw(seed)))
    fit(
        tmp_path / "good",
        "ssim-ae",
        settings=[*tiny, *settings],
        false_reject_rate=0.2,
        out=tmp_path / "model",
    )
    export_model(tmp_path / "model", tmp_path / "exported")
    rejected = agrees(program, tmp_path / "exported", drawn(tmp_path, draw, as_file))
    assert not all(rejected)
    assert any(rejected)


@pytest.mark.parametrize("name", ["max", "mean"])
def test_other_scores(name: str, program: Path, grey: Path, draw: Draw, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(grey, tmp_path / "exported"))
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps({**settings, "score": name}))
    image = write_pnm(tmp_path / "image.pgm", draw(100))
    detector = blemish.load(grey)
    pixels = detector.file.preprocessing.apply(read_image(image)).pixels
    expected = {"max": np.max, "mean": np.mean}[name](detector.examine(pixels)[0])
    line = json.loads(run(program, folder, image).stdout)
    assert line["score"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"combination": "soft-maximum"},
            "settings.json: this program is for calibrated models of one network",
        ),
        ({"area": True}, "settings.json: this program is for calibrated models of one network"),
        ({"pose": True}, "settings.json: this program is for calibrated models of one network"),
        ({"pixel_type": "float32", "full_scale": 1}, "settings.json: this program is for calibrated models"),
        ({"format": 2}, "settings.json: this program is for calibrated models of one network"),
        ({"full_scale": 65535}, "image.pgm: has another depth than the images of the model"),
        ({"channels": 3}, "image.pgm: has another number of channels than the model"),
        ({"range": 100}, "image.pgm: has values above the range"),
        ({"tile": 128}, "the image is too small for the tiles of the model"),
    ],
)
def test_what_it_does_not_cover_is_refused_in_one_line(
    change: dict[str, Any], words: str, program: Path, grey: Path, draw: Draw, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(grey, tmp_path / "exported"))
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps({**settings, **change}))
    ran = run(program, folder, write_pnm(tmp_path / "image.pgm", draw(100)))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("inspect: ")
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_files_that_cannot_be_read_are_refused_in_one_line(
    program: Path, grey: Path, draw: Draw, tmp_path: Path
) -> None:
    image = write_pnm(tmp_path / "image.pgm", draw(100))
    short = tmp_path / "short.pgm"
    short.write_bytes(image.read_bytes()[:-1])
    none = tmp_path / "none.pgm"
    other = tmp_path / "other.pgm"
    other.write_bytes(b"GIF89a")
    for words, problem in (
        ((grey,), "usage: inspect EXPORTED IMAGE..."),
        ((tmp_path, image), "settings.json: cannot be read"),
        ((grey, short), "short.pgm: ends early"),
        ((grey, none), "none.pgm: is no PGM or PPM"),
        ((grey, other), "other.pgm: is no PGM or PPM"),
    ):
        ran = run(program, *words)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert problem in ran.stderr
        assert ran.stderr.count("\n") == 1


def test_cmake_finds_the_runtime(tmp_path: Path) -> None:
    needs("c++")
    needs("cmake")
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "cpp"))
    *configure, build = blocks()[1].strip().splitlines()
    assert build.startswith("cmake --build build")  # which compiles what the other command line does
    shell("\n".join(configure), folder)
    assert (folder / "build" / "CMakeCache.txt").is_file()
