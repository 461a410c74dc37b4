"""One small model and small pictures, shared by the tests of the whole."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.errors import BlemishError
from blemish.observer import Observer

if TYPE_CHECKING:
    from blemish.inspector import Inspector

# Set before torch is imported: pictures this small gain nothing by threads, and lose much when tests run
# side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Draw = Callable[..., NDArray[np.uint8]]

TINY = (
    "patch.size=32",
    "patch.stride=16",
    "encoder.latent=8",
    "training.batch=16",
    "training.steps=6",
    "training.validate_every=6",
    "training.device=cpu",
    "training.precision=float32",
)
QUICK = (
    "picture.size=96",
    "patch.size=32",
    "patch.stride=32",
    "encoder.widths=[4, 8, 8]",
    "memory.patch=8",
    "memory.dimensions=16",
    "memory.capacity=2000",
    "training.batch=4",
    "training.budget=null",
    "training.steps=2",
    "training.validate_every=2",
    "training.device=cpu",
    "training.precision=float32",
)
RATE = 0.2
GOOD = 24


class Recorder(Observer):
    """Remembers what it was told, and asks to stop once it was asked ``stop_after`` times."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stages: list[str] = []
        self.problems: list[BlemishError] = []
        self.asked = 0
        self._stop_after = stop_after

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def problem(self, error: BlemishError) -> None:
        self.problems.append(error)

    def should_stop(self) -> bool:
        self.asked += 1
        return self._stop_after is not None and self.asked > self._stop_after


class Ran(NamedTuple):
    """How a command of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The line that ended the command; its one and only."""
        lines = [line for line in self.err.splitlines() if line.startswith("blemish: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]

    @property
    def skipped(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("skipped ")]


def _draw(seed: int, height: int = 40, width: int = 48, *, dot: bool = False) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(2 * np.pi * (x / 8 + rng.random())) * np.sin(2 * np.pi * (y / 8 + rng.random()))
    values = 128 + 50 * waves + rng.normal(0, 4, (height, width))
    if dot:
        values[12:20, 20:30] = 250
    return np.clip(values, 0, 255).astype(np.uint8)


def _draw_part(seed: int, height: int = 96, width: int = 103, *, broken: bool = False) -> NDArray[np.uint8]:
    """A bolt, 64 pixels long, that lies anyhow on a plain ground; ``broken``: its shank has a gap."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform(-4, 4, 2) + np.array([height, width]) / 2
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width] - middle[:, None, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), np.abs(y * np.cos(angle) - x * np.sin(angle))
    head, shank = (
        np.minimum(8 - np.abs(along + 24), 13 - across),
        np.minimum(24 - np.abs(along - 8), 7 - across),
    )
    metal = 70 + 25 * np.sin(along)
    if broken:
        metal = np.where(np.abs(along - 14) < 4, 200, metal)
    cover = np.clip(np.maximum(head, shank) + 0.5, 0, 1)
    values = 200 + cover * (metal - 200) + rng.normal(0, 2, (height, width))
    return np.clip(values, 0, 255).astype(np.uint8)


def _dot_mask(height: int = 40, width: int = 48) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    mask[12:20, 20:30] = 255
    return mask


def _save(path: Path, pixels: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def draw() -> Draw:
    """``draw(seed, height, width, dot=False)``: a good picture, or the same with a bright dot."""
    return _draw


@pytest.fixture(scope="session")
def save() -> Callable[[Path, NDArray[np.generic]], Path]:
    return _save


@pytest.fixture(scope="session")
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Settings of a fit that takes a moment."""
    return list(TINY)


@pytest.fixture(scope="session")
def tiny_options() -> list[str]:
    """The same for the command line, with the rate that so few pictures can promise."""
    words = ["--recipe", "ssim-ae", "--false-reject-rate", str(RATE)]
    return words + [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of good pictures, 48 × 40 pixels in grey."""
    folder = tmp_path_factory.mktemp("pictures") / "good"
    for seed in range(GOOD):
        _save(folder / f"{seed}.png", _draw(seed))
    return folder


@pytest.fixture(scope="session")
def fitted(good: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Inspector, Path]:
    """The inspector that fit returned, and the folder that it wrote; not to be changed."""
    from blemish.fitting import fit

    folder = tmp_path_factory.mktemp("fitted") / "model"
    return fit(good, "ssim-ae", settings=TINY, false_reject_rate=RATE, out=folder), folder


@pytest.fixture(scope="session")
def draw_part() -> Draw:
    """``draw_part(seed, height, width, broken=False)``: a bolt that lies anyhow, or one with a gap."""
    return _draw_part


@pytest.fixture(scope="session")
def bolts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of bolts, each lying otherwise, 103 × 96 pixels in grey."""
    folder = tmp_path_factory.mktemp("bolts") / "good"
    for seed in range(GOOD):
        _save(folder / f"{seed}.png", _draw_part(seed))
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings of a fit of the default recipe that takes a moment."""
    monkeypatch.setattr("blemish.training.loop.VALIDATION_PATCHES", 4)
    return list(QUICK)


@pytest.fixture(scope="session")
def posed(bolts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Inspector, Path]:
    """Of the default recipe, on the bolts: the inspector, and its folder; not to be changed."""
    from blemish.fitting import fit

    folder = tmp_path_factory.mktemp("posed") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blemish.training.loop.VALIDATION_PATCHES", 4)
        return fit(bolts, settings=QUICK, false_reject_rate=RATE, out=folder), folder


@pytest.fixture(scope="session")
def inspector(fitted: tuple[Inspector, Path]) -> Inspector:
    return fitted[0]


@pytest.fixture
def model(fitted: tuple[Inspector, Path], tmp_path: Path) -> Path:
    """A copy of the model folder, to be spoiled at will."""
    return Path(shutil.copytree(fitted[1], tmp_path / "model"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout: 24 good ones to train; 4 good ones, 3 dots and 2 specks with masks to test."""
    root = tmp_path_factory.mktemp("dataset") / "waves"
    for seed in range(GOOD):
        _save(root / "train" / "good" / f"{seed}.png", _draw(seed))
    for index in range(4):
        _save(root / "test" / "good" / f"{index}.png", _draw(100 + index))
    for kind, count in (("dot", 3), ("speck", 2)):
        for index in range(count):
            _save(root / "test" / kind / f"{index}.png", _draw(200 + index, dot=True))
            _save(root / "ground_truth" / kind / f"{index}_mask.png", _dot_mask())
    return root


@pytest.fixture
def blemish(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command line in this process: ``blemish("inspect", model, pictures, "--out", out)``."""
    from blemish.__main__ import main

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["blemish", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        code = end.value.code
        return Ran(0 if code is None else int(code), said.out, said.err)

    return run
