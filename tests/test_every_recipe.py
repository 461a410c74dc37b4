"""Every recipe: fitted on images, saved, loaded, and exported."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from blemish.data.image import read_image
from blemish.export.export_model import exported_detector
from blemish.export.parts import Parts, parts_of
from blemish.inspection.detector import Detector, load
from blemish.observer import Observer
from blemish.recipes import load_recipe, recipe_names
from blemish.runtime.record import RuntimeName
from blemish.training import trainer as loop
from blemish.training.fit import fit

pytestmark = pytest.mark.usefixtures("narrow_backbones")
RUNTIMES: tuple[RuntimeName, ...] = ("onnx", "openvino")
SCORE, MAP = 1e-4, 1e-3
"""Largest differences: of a score, relative, and of a map, relative to its largest value."""


def settings_of(name: str) -> list[str]:
    """Settings for two steps on small patches without pretrained weights."""
    recipe = load_recipe(name)
    # Batch normalisation needs more than one location in the features of a single patch.
    patch = 64 if recipe.encoder is not None and recipe.encoder.name == "resnet50" else 32
    settings = [
        f"image.size={patch}",
        f"patch.size={patch}",
        f"patch.stride={patch}",
        "training.batch=2",
        "training.budget=null",
        "training.steps=2",
        "training.validate_every=2",
        "training.device=cpu",
        "training.precision=float32",
    ]
    if recipe.threshold.rule == "conformal":
        settings.append("threshold.false_reject_rate=0.2")
    if recipe.alignment is not None and recipe.alignment.settings.get("pretraining"):
        settings.append("alignment.pretraining=2")
    if "weights" in recipe.needs:
        settings += ["encoder.weights=none"] * (recipe.encoder.name in ("vgg16", "resnet50"))
        settings += [
            f"loss.{index}.network=gabor"
            for index, term in enumerate(recipe.loss)
            if "network" in term.settings
        ]
    return settings


class Fitted(NamedTuple):
    detector: Detector
    folder: Path
    images: Path
    image: Path
    """One that a memory bank does not contain."""


TRACED = (
    "blemish",
    "dae-ssim",
    "dae-vgg16-mse",
    "filter-bank",
    "fp-cae",
    "ssim-ae",
    "stn-ae-joint",
    "vae",
)
"""Recipes that have all kinds of networks and residuals between them, beside what ``tests/export`` traces of scenes."""
IN_SLOW = (
    "blemish-small",
    "cae-efficientnet-ssim",
    "cae-resnet50-ssim",
    "fm-ae",
    "fp-cae-concat",
    "l2-ae",
    "pen-nde",
    "stn-ae-unaligned",
)
"""One more of each family, traced in `make slow`; the rest, twins of these in other figures, in `make long`."""
OF_IMAGES = [name for name in recipe_names() if name != "other-pixels"]
"""Recipes that are fitted on single images; that one refuses them, and tests of its parts fit it on scenes."""


def _marks(name: str) -> list[pytest.MarkDecorator]:
    if name in TRACED:
        return []
    when = pytest.mark.slow if name in IN_SLOW else pytest.mark.long
    return [when, pytest.mark.xdist_group(f"recipe {name}")]


by_recipe = pytest.mark.parametrize("fitted", OF_IMAGES, indirect=True, scope="module")
by_exported_recipe = pytest.mark.parametrize(
    "fitted",
    [
        # One process has a recipe in all runtimes, so that a model is fitted and traced once.
        pytest.param(name, marks=_marks(name))
        for name in OF_IMAGES
    ],
    indirect=True,
    scope="module",
)


@pytest.fixture(scope="module")
def fitted(request: pytest.FixtureRequest, good: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    root = tmp_path_factory.mktemp(request.param)
    images = root / "good"
    images.mkdir()
    for path in sorted(good.iterdir())[:10]:
        (images / path.name).symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "VALIDATION_PATCHES", 4)
        detector = fit(images, request.param, settings=settings_of(request.param), out=root / "model")
    return Fitted(detector, root / "model", images, sorted(good.iterdir())[10])


@pytest.fixture(scope="module")
def parts(fitted: Fitted) -> Parts:
    """The parts of the model, which take long to make; of one runtime they differ in their format alone."""
    return parts_of(fitted.detector.model, 1)


@by_recipe
def test_it_fits_inspects_and_is_loaded_from_disk(fitted: Fitted) -> None:
    found = fitted.detector.inspect(fitted.image)
    assert np.isfinite(found.score)
    assert np.isfinite(found.threshold)
    assert found.map.shape == (40, 48)
    assert found.map.max() > 0
    again = load(fitted.folder).inspect(fitted.image)
    assert again.score == found.score
    assert again.threshold == found.threshold
    assert np.array_equal(again.map, found.map)
    if fitted.detector.recipe.threshold.rule == "train-mean":
        names = fitted.detector.file.split["train"]
        scores = [fitted.detector.inspect(fitted.images / each).score for each in names]
        assert found.threshold == np.mean(scores)


@by_exported_recipe
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_gives_the_same_answer_in_every_runtime(
    fitted: Fitted, parts: Parts, runtime: RuntimeName, tmp_path: Path
) -> None:
    exported = exported_detector(fitted.detector, runtime, tmp_path, Observer(), parts)
    exported.save(tmp_path)
    exported = load(tmp_path)
    for path in (fitted.image, min(fitted.images.iterdir())):
        one, other = fitted.detector.measure(read_image(path)), exported.measure(read_image(path))
        assert other.score == pytest.approx(one.score, rel=SCORE)
        np.testing.assert_allclose(other.map, one.map, rtol=0, atol=MAP * one.map.max())
        assert fitted.detector.inspect(path).is_anomalous == exported.inspect(path).is_anomalous
    assert exported.threshold == fitted.detector.threshold
