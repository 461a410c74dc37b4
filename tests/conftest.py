"""One small model and small images, shared by the tests of the whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from blemish.errors import BlemishError
from blemish.observer import Observer

if TYPE_CHECKING:
    from blemish.export.parts import Parts
    from blemish.inspection.detector import Detector

# Set before torch is imported: images this small gain nothing by threads, and lose much when tests run
# side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests that import the runtime themselves send nothing either (blemish.runtime.telemetry).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

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
    "image.size=96",
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
    """Records stages and problems, and asks to stop once it was asked ``stop_after`` times."""

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
    """``draw(seed, height, width, dot=False)``: a good image, or the same with a bright dot."""
    return _draw


@pytest.fixture(scope="session")
def save() -> Callable[[Path, NDArray[np.generic]], Path]:
    return _save


@pytest.fixture(scope="session")
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture(scope="module")
def narrow_backbones() -> Iterator[None]:
    """VGG16 and ResNet50 with an eighth of their channels, and ResNet50 with five blocks instead of sixteen.

    For tests of the parts around them, which the networks of the papers would make slow.
    """
    # First of all, as it makes torchvision importable.
    from blemish.models.pretrained_encoders import ResNet50Encoder, VGG16Encoder  # isort: skip
    from torchvision.models.resnet import Bottleneck, ResNet
    from torchvision.models.vgg import VGG, cfgs, make_layers

    def vgg16(**settings: Any) -> VGG:
        widths = [width if width == "M" else int(width) // 8 for width in cfgs["D"]]
        return VGG(make_layers(widths), **settings)

    class NarrowResNet(ResNet):
        def _make_layer(self, block: Any, planes: int, *rest: Any, **settings: Any) -> Any:
            return super()._make_layer(block, planes // 8, *rest, **settings)

    def resnet50() -> ResNet:
        return NarrowResNet(Bottleneck, [2, 1, 1, 1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.models.vgg16", vgg16)
        patch.setattr("torchvision.models.resnet50", resnet50)
        for encoder in (VGG16Encoder, ResNet50Encoder):
            patch.setattr(encoder, "width", encoder.width // 8)
        yield


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Settings of a fit that takes a moment."""
    return list(TINY)


@pytest.fixture(scope="session")
def tiny_options() -> list[str]:
    """The same for the command line, with the rate that so few images can promise."""
    words = ["--recipe", "ssim-ae", "--false-reject-rate", str(RATE)]
    return words + [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of good images, 48 × 40 pixels in grey."""
    folder = tmp_path_factory.mktemp("images") / "good"
    for seed in range(GOOD):
        _save(folder / f"{seed}.png", _draw(seed))
    return folder


@pytest.fixture(scope="session")
def fitted(good: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    """The detector that fit returned, and the folder that it wrote; not to be changed."""
    from blemish.training.fit import fit

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
    monkeypatch.setattr("blemish.training.trainer.VALIDATION_PATCHES", 4)
    return list(QUICK)


@pytest.fixture(scope="session")
def posed(bolts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    """Of the default recipe, on the bolts: the detector, and its folder; not to be changed."""
    from blemish.training.fit import fit

    folder = tmp_path_factory.mktemp("posed") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blemish.training.trainer.VALIDATION_PATCHES", 4)
        return fit(bolts, settings=QUICK, false_reject_rate=RATE, out=folder), folder


@pytest.fixture(scope="session")
def exported(
    fitted: tuple[Detector, Path], good: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Detector, Path]:
    """:func:`fitted` exported for ONNX Runtime: the detector, and its folder; not to be changed."""
    from blemish.export.export_model import export_model

    folder = tmp_path_factory.mktemp("exported") / "model"
    return export_model(fitted[1], folder, images=good), folder


@pytest.fixture(scope="session")
def exported_posed(
    posed: tuple[Detector, Path], bolts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Detector, Path]:
    """:func:`posed` exported for ONNX Runtime: the detector, and its folder; not to be changed."""
    from blemish.export.export_model import export_model

    folder = tmp_path_factory.mktemp("exported-posed") / "model"
    return export_model(posed[1], folder, images=bolts), folder


@pytest.fixture(scope="session")
def fitted_parts(fitted: tuple[Detector, Path]) -> Parts:
    """:func:`fitted` in parts that each runtime takes, traced once."""
    from blemish.export.parts import parts_of

    return parts_of(fitted[0].model, 1)


@pytest.fixture(scope="session")
def posed_parts(posed: tuple[Detector, Path]) -> Parts:
    """:func:`posed` in parts that each runtime takes, traced once."""
    from blemish.export.parts import parts_of

    return parts_of(posed[0].model, 1)


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """Evaluations with few bootstrap replicates, which are tested with the metrics and take most of the time."""
    from blemish.decision import PixelMetrics, bootstrap_interval

    with pytest.MonkeyPatch.context() as patch:
        module = "blemish.evaluation"
        patch.setattr(f"{module}.evaluate.PixelMetrics", partial(PixelMetrics, resamples=20))
        patch.setattr(f"{module}.figures.bootstrap_interval", partial(bootstrap_interval, resamples=100))
        yield


@pytest.fixture(scope="session")
def detector(fitted: tuple[Detector, Path]) -> Detector:
    return fitted[0]


@pytest.fixture
def model(fitted: tuple[Detector, Path], tmp_path: Path) -> Path:
    """A copy of the model folder, to be damaged at will."""
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
    """Run the command line in this process: ``blemish("inspect", model, images, "--out", out)``."""
    from blemish.__main__ import main

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["blemish", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        code = end.value.code
        return Ran(0 if code is None else int(code), captured.out, captured.err)

    return run


H, W = 64, 160

Painting = Callable[..., Path]


def surface(seed: int, height: int, width: int) -> NDArray[np.float64]:
    """Soft waves in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / height
    waves = np.sin(9 * x + 7 * y + 6 * rng.random()) + np.sin(13 * y - 5 * x + 6 * rng.random())
    return np.clip(0.5 + 0.2 * waves + 0.05 * rng.standard_normal((height, width)), 0, 1)


def paint(folder: Path, seed: int = 0, *, height: int = H, width: int = W) -> Path:
    """A scene of three sensors: RGB in 8 bits, infrared in 16-bit tiles, X-ray at half the resolution."""
    folder.mkdir(parents=True, exist_ok=True)
    grey = surface(seed, height, width)
    rgb = np.stack([grey, grey**2, 1 - grey], axis=-1)
    Image.fromarray((255 * rgb).round().astype(np.uint8)).save(folder / "rgb.png")
    tifffile.imwrite(
        folder / "infrared.tif", (65535 * grey).astype(np.uint16), tile=(32, 32), compression="zlib"
    )
    half = grey.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    tifffile.imwrite(folder / "xray.tif", (4095 * half).astype(np.uint16))
    return folder


@pytest.fixture(scope="session")
def painting() -> Painting:
    """``painting(folder, seed, height=64, width=160)``: writes a scene and returns its folder."""
    return paint


@pytest.fixture(scope="session")
def make_detector() -> Callable[..., Any]:
    """``make_detector(scene_folder, recipe, *settings)``: a detector of such scenes with random weights."""

    def make(source: Path, name: str = "fp-cae-add", *settings: str) -> Any:
        import torch

        from blemish.data.fingerprint import Fingerprint, Spread
        from blemish.data.scenes import find_scenes
        from blemish.decision import Calibration, SceneSquares
        from blemish.detectors.ensemble import for_inspection
        from blemish.detectors.factory import build_model
        from blemish.inspection.detector import Detector
        from blemish.inspection.document import FORMAT, ModelFile
        from blemish.preprocessing.transform import Preprocessing
        from blemish.recipes import load_recipe, override
        from blemish.storage.training_record import Machine, Training

        recipe = override(load_recipe(name), list(settings))
        modalities = find_scenes(source)[0].modalities
        channels = sum(modality.channels for modality in modalities)
        torch.manual_seed(0)
        model = build_model(recipe, channels, modalities)
        spread = Spread(min=W, median=W, max=W)
        file = ModelFile(
            format=FORMAT,
            blemish="0",
            versions={},
            recipe=recipe,
            preprocessing=Preprocessing(
                channels=channels, convert=False, kind="float32", size=None, modalities=modalities
            ),
            calibration=Calibration(
                scores=tuple(np.linspace(0.5, 1.0, 39)),
                map_maxima=tuple(np.linspace(0.8, 1.0, 39)),
                unit=SceneSquares(side=32),
            ),
            fingerprint=Fingerprint(
                count=1, channels=channels, kind="float32", width=spread, height=spread, sha256="0"
            ),
            split={"train": (), "validation": (), "calibration": ()},
            training=Training(
                steps=1,
                best_step=1,
                best_loss=1.0,
                seconds=1.0,
                machine=Machine(
                    device="cpu", processor="CPU", precision="float32", native_bfloat16=False, torch="2"
                ),
                history=(),
            ),
            weights_sha256="0",
        )
        return Detector(for_inspection(model), file)

    return make


@pytest.fixture(scope="session")
def ended() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
