"""Columns, published figures and lengths of training of Rádli & Czúni 2022."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from blemish.layers.affine import AffineRange
from blemish.recipes import Recipe, load_recipe, override
from studies.protocol import PublishedTraining

PAPER = (
    "Rádli & Czúni 2022, Improving the Efficiency of Autoencoders for Visual Defect Detection with Orientation "
    "Normalization, VISAPP"
)
TRAINING = PublishedTraining(
    side=128,
    learning_rate=2e-4,
    steps=62_500,
    words="patches of 128 × 128 pixels of images resized to 256, turned at random; 200 epochs of 10,000 patches, which "
    "are 62500 steps of batch 32 (50000 if a fifth of them is held out first), transformers after 12500 of their own; Adam "
    "with a learning rate of 0.0002; 5 repeats",
    repeats=5,
)


class Column(NamedTuple):
    """Column of the tables: a recipe with settings of its own, which others may override."""

    title: str
    recipe: str
    settings: tuple[str, ...] = ()
    transforms: AffineRange = AffineRange()
    """Of the training, held-out and test images of a data set; any rotation in the paper."""


COLUMNS = {
    "plain": Column("AE", "stn-ae-unaligned"),
    "frozen": Column("S+AE pretrained, frozen", "stn-ae-frozen"),
    "joint": Column("S+AE random weights", "stn-ae-joint"),
    "finetuned": Column("S+AE pretrained, not frozen", "stn-ae-finetuned"),
    "joint-direction": Column(
        "S+AE random weights, direction (ours)", "stn-ae-joint", ("alignment.output=direction",)
    ),
}
"""The four of the paper's tables in their order, and joint training with our output of the transformer."""
VARIED = AffineRange(translation=0.05, scale=0.1, shear=5)
"""Transforms that the paper leaves to future work, beside rotation."""
VARIED_COLUMNS = {
    "plain-varied": Column("AE, images also moved, scaled, sheared (ours)", "stn-ae-unaligned", (), VARIED),
    "frozen-varied": Column(
        "S+AE pretrained, frozen, images also moved, scaled, sheared (ours)", "stn-ae-frozen", (), VARIED
    ),
}
"""Of a data set alone: what a transformer of rotation alone is worth where images differ by more."""
ALL_COLUMNS = COLUMNS | VARIED_COLUMNS
PRINTED = 4
PRETRAINED = ("frozen", "finetuned")
"""Strategies of alignment that are pretrained, and the columns of the paper that have them."""
RESIDUALS = ("SSIM", "MSE")
CURVES = {"auroc": "ROC", "ap": "PRC", "iou_auc": "IoU"}
DEFECTS = {"mvtec_screw": "thread_top", "screw": "thread_top"}
"""The paper tests the screws of this defect type alone."""


class Published(NamedTuple):
    """Figures of Tables 3 to 8 for one class, each in the order of the first columns."""

    mse: tuple[float, ...]
    ssim: tuple[float, ...]
    areas: dict[str, dict[str, tuple[float, ...]]]


PUBLISHED = {
    "texture_1": Published(
        mse=(82.4781, 77.1195, 83.0611, 74.8105),
        ssim=(0.8453, 0.8790, 0.8411, 0.8883),
        areas={
            "SSIM": {
                "auroc": (0.8622, 0.8752, 0.8591, 0.8712),
                "ap": (0.3996, 0.3993, 0.3882, 0.4008),
                "iou_auc": (0.1228, 0.1228, 0.1228, 0.1227),
            },
            "MSE": {
                "auroc": (0.6514, 0.6694, 0.6635, 0.6672),
                "ap": (0.2007, 0.2229, 0.2093, 0.2215),
                "iou_auc": (0.0744, 0.0796, 0.0768, 0.0803),
            },
        },
    ),
    "texture_2": Published(
        mse=(88.3534, 86.1341, 89.9087, 87.9534),
        ssim=(0.7915, 0.8174, 0.7675, 0.7911),
        areas={
            "SSIM": {
                "auroc": (0.8379, 0.8409, 0.8216, 0.8253),
                "ap": (0.2785, 0.3228, 0.2648, 0.2683),
                "iou_auc": (0.1148, 0.1242, 0.1113, 0.1141),
            },
            "MSE": {
                "auroc": (0.5826, 0.6087, 0.5833, 0.5879),
                "ap": (0.1795, 0.1976, 0.1710, 0.1808),
                "iou_auc": (0.0661, 0.0702, 0.0647, 0.0656),
            },
        },
    ),
    "screw": Published(
        mse=(36.2071, 34.2324, 37.7939, 35.2554),
        ssim=(0.8729, 0.9075, 0.8707, 0.8893),
        areas={
            "SSIM": {
                "auroc": (0.7586, 0.7911, 0.7829, 0.7902),
                "ap": (0.4191, 0.4234, 0.4162, 0.4219),
                "iou_auc": (0.0088, 0.0093, 0.0088, 0.0092),
            },
            "MSE": {
                "auroc": (0.5179, 0.5541, 0.4833, 0.4751),
                "ap": (0.3136, 0.3228, 0.2886, 0.2823),
                "iou_auc": (0.0081, 0.0093, 0.0055, 0.0048),
            },
        },
    ),
}


RANKINGS = {
    "texture_1": ((1, 4, 0, 2), (1, 1, 0, 3), (1, 1, 3, 1), (3, 0, 3, 0)),
    "texture_2": ((0, 6, 0, 0), (4, 0, 0, 2), (1, 0, 1, 4), (1, 0, 5, 0)),
    "screw": ((0, 6, 0, 0), (3, 0, 0, 3), (2, 0, 5, 0), (1, 0, 1, 3)),
}
"""Table 9: how often each of the first columns is first, second, third and fourth among the six areas of Tables 6 to 8."""


class Length(NamedTuple):
    """Amounts of training and testing; the cloth has settings of its own."""

    settings: tuple[str, ...]
    pretraining: int
    cloth_settings: tuple[str, ...]
    cloth_pretraining: int
    cloth_size: int
    cloth_good: int
    cloth_tests: int
    seeds: tuple[int, ...]


# A larger step than the paper's, and a falling one, so that a short training arrives somewhere.
_SHORT = ("training.learning_rate=1e-3", "training.schedule=cosine")
# The paper: 200 epochs of 10,000 patches, after 50 of 8,000 for the transformer; batches of 32 are ours.
FULL = Length(
    settings=("image.size=256", "training.steps=62500", "training.validate_every=2500"),
    pretraining=12_500,
    # The paper's learning rate: with a larger one the networks stop at chance places, and seeds tell nothing.
    cloth_settings=("training.steps=2000", "training.validate_every=200"),
    cloth_pretraining=200,
    cloth_size=64,
    cloth_good=600,
    cloth_tests=100,
    seeds=(0, 1, 2, 3, 4),
)
QUICK = FULL._replace(
    settings=(
        *_SHORT,
        "image.size=128",
        "patch.size=64",
        "patch.stride=32",
        "training.steps=300",
        "training.validate_every=50",
    ),
    pretraining=150,
    cloth_settings=(*_SHORT, "training.steps=300", "training.validate_every=50"),
    cloth_pretraining=150,
    cloth_good=300,
    cloth_tests=60,
    seeds=(0,),
)
# FULL takes days without a GPU; this is what two cores do in two hours.
WITHOUT_GPU = FULL._replace(
    settings=(*_SHORT, "image.size=256", "training.steps=400", "training.validate_every=100"),
    pretraining=300,
)


def published_category(dataset: str | None) -> str | None:
    """The class of the paper that a data set's folder is named after.

    >>> published_category("mvtec_screw"), published_category("texture1"), published_category("magnetic_tile")
    ('screw', 'texture_1', None)
    """
    words = re.sub(r"[^a-z0-9]", "", (dataset or "").lower())
    return next((name for name in PUBLISHED if name.replace("_", "") in words), None)


class Part(NamedTuple):
    """One set of images with its fits."""

    title: str
    good: Path
    work: Path
    settings: tuple[str, ...]
    pretraining: int
    is_transformed: bool = False
    """Whether images are transformed as the columns say; the cloth lies at every angle anyway."""

    @property
    def columns(self) -> dict[str, Column]:
        return ALL_COLUMNS if self.is_transformed else COLUMNS


def recipe_of(part: Part, column: str, seed: int) -> Recipe:
    """The recipe of ``column`` with all that is set; only pretrained transformers take steps of pretraining."""
    chosen = ALL_COLUMNS[column]
    transforms = chosen.transforms._asdict() if part.is_transformed else {}
    settings = [
        *chosen.settings,
        *([f"augmentation={json.dumps([{'name': 'rotation', **transforms}])}"] if transforms else []),
        f"alignment.pretraining={part.pretraining}",
        *part.settings,
        f"training.seed={seed}",
    ]
    recipe = load_recipe(chosen.recipe)
    assert recipe.alignment is not None
    pretrained = recipe.alignment.settings["strategy"] in PRETRAINED
    kept = [one for one in settings if pretrained or not one.startswith("alignment.pretraining")]
    return override(recipe, kept)
