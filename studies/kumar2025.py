"""Kumar, Malik, Puglisi 2025: twelve denoising and contractive autoencoders, Tables 1 and 2.

Whole images in, the mean reconstruction error as score, and its mean over the training images as
threshold: good images below it are accepted, bad ones above it rejected. The second part shows what the
values that the paper leaves open (noise level, weight of the Jacobian, size of the latent) change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blemish.evaluation.compare import Run
from blemish.layers.pretrained import find_weights
from blemish.observer import Observer
from blemish.recipes import load_recipe
from studies.protocol import (
    PublishedTraining,
    Request,
    beside_paper,
    brightness_auroc,
    choose_examples,
    comparison,
    document,
    draw_curves,
    draw_examples,
    finish,
    fitted,
    generated,
    histories,
    read_example,
    record,
    show,
    spread,
    table,
)
from studies.result import StudyResult

PAPER = (
    "Kumar, Malik, Puglisi 2025, Unsupervised Anomaly Detection in Industrial Image Data with Autoencoders"
)
TRAINING = PublishedTraining(
    side=256,
    learning_rate=1e-4,
    steps=None,
    words="images of 256 × 256 pixels, batch 32, Adam with a learning rate of 0.0001, constant; it gives no "
    "number of epochs, so our full length, 1000 steps on a GPU, is a choice",
)
RECIPES = tuple(
    f"{kind}-{encoder}{measure}"
    for kind in ("dae", "cae")
    for encoder in ("", "vgg16-", "resnet50-")
    for measure in ("mse", "ssim")
)
"""In the order of the columns of Tables 1 and 2."""

# Per category: good accepted, bad rejected, overall accuracy, each for the recipes in that order.
_TABLES = {
    "hazelnut": (
        (0.73, 0.50, 0.05, 0.10, 0.75, 0.88, 0.65, 0.68, 0.825, 0.70, 0.275, 0.675),
        (0.86, 0.88, 1.00, 0.98, 0.70, 0.66, 0.87, 0.73, 0.67, 0.71, 0.89, 0.69),
        (0.81, 0.76, 0.64, 0.66, 0.72, 0.74, 0.79, 0.71, 0.73, 0.71, 0.66, 0.68),
    ),
    "bottle": (
        (0.35, 0.30, 0.25, 0.10, 0.75, 0.40, 0.25, 0.30, 0.15, 0.35, 0.30, 0.40),
        (0.97, 0.92, 1.00, 0.98, 0.33, 0.56, 0.92, 0.97, 0.98, 0.98, 0.84, 0.79),
        (0.82, 0.77, 0.81, 0.77, 0.43, 0.53, 0.76, 0.81, 0.78, 0.83, 0.71, 0.70),
    ),
    "pill": (
        (0.42, 0.53, 0.38, 0.35, 0.48, 0.35, 0.50, 0.58, 0.73, 0.50, 0.50, 0.65),
        (0.88, 0.84, 0.84, 0.94, 0.47, 0.59, 0.77, 0.83, 0.83, 0.86, 0.73, 0.63),
        (0.81, 0.80, 0.78, 0.84, 0.48, 0.55, 0.73, 0.79, 0.77, 0.80, 0.69, 0.63),
    ),
    "screw": (
        (0.34, 0.49, 0.10, 0.05, 0.00, 0.08, 0.93, 0.70, 0.05, 0.61, 0.66, 0.51),
        (0.83, 0.79, 0.92, 1.00, 0.31, 0.44, 0.61, 0.63, 0.87, 0.68, 0.64, 0.58),
        (0.71, 0.72, 0.68, 0.76, 0.23, 0.35, 0.69, 0.65, 0.66, 0.66, 0.64, 0.56),
    ),
    "tile": (
        (0.94, 0.43, 0.10, 0.00, 0.46, 0.27, 0.97, 0.64, 0.94, 0.00, 0.77, 0.94),
        (0.11, 0.81, 0.98, 1.00, 0.38, 0.83, 0.11, 0.62, 0.26, 1.00, 0.52, 0.13),
        (0.34, 0.67, 0.72, 0.72, 0.41, 0.68, 0.35, 0.62, 0.45, 0.72, 0.58, 0.36),
    ),
}


class Published(NamedTuple):
    """Published figures of one recipe on one category."""

    good_accepted: float
    bad_rejected: float
    accuracy: float


PUBLISHED = {
    category: {recipe: Published(*values) for recipe, *values in zip(RECIPES, *lines, strict=True)}
    for category, lines in _TABLES.items()
}


class Length(NamedTuple):
    """Amounts of generated images, where no data set is given, and of training."""

    images: dict[str, int]
    settings: tuple[str, ...]
    encoders: dict[str, tuple[str, ...]]
    """Further settings of the recipes with this encoder."""
    seeds: tuple[int, ...]
    pretrained_seeds: tuple[int, ...]
    """Seeds of the recipes with VGG16 and ResNet50."""
    varied: tuple[str, ...]
    """Recipes whose open values are varied."""


# The paper gives no number of epochs. 100 of MVTec's 320 screws in batches of 32 are 1000 steps.
FULL = Length(
    images={"good": 320, "test_good": 42, "per_blemish": 12, "size": 256},
    settings=("training.steps=1000", "training.validate_every=100"),
    encoders={},
    seeds=(0, 1, 2),
    pretrained_seeds=(0, 1, 2),
    varied=("dae-mse", "dae-ssim", "cae-mse", "cae-ssim"),
)
# A short training arrives somewhere with a falling learning rate, and a larger one than the paper's, of which
# VGG16 would die. A step of VGG16 or ResNet50 takes as long as 10 to 30 of the plain encoder.
QUICK = Length(
    images={"good": 100, "test_good": 28, "per_blemish": 4, "size": 64},
    settings=(
        "training.batch=16",
        "training.validate_every=20",
        "training.schedule=cosine",
        "image.size=64",
        "patch.size=64",
        "patch.stride=64",
    ),
    encoders={
        "kumar": ("training.steps=200", "training.learning_rate=1e-3"),
        "vgg16": ("training.steps=40",),
        "resnet50": ("training.steps=40", "training.learning_rate=1e-3"),
    },
    seeds=(0,),
    pretrained_seeds=(0,),
    varied=(),
)
# FULL takes days without a GPU; this is what two cores do in some two hours, on images half as large.
WITHOUT_GPU = Length(
    images=FULL.images,
    settings=(
        "training.validate_every=50",
        "training.schedule=cosine",
        "image.size=128",
        "patch.size=128",
        "patch.stride=128",
    ),
    encoders={
        "kumar": ("training.steps=500", "training.learning_rate=1e-3"),
        "vgg16": ("training.steps=40",),
        "resnet50": ("training.steps=100",),
    },
    seeds=(0, 1, 2),
    pretrained_seeds=(0,),
    varied=("dae-mse",),
)
FAMILY = "part"
TELLING = 0.9
"""Image AUROC of the mean grey level from which the page warns."""
EXAMPLES = 3


class Variation(NamedTuple):
    """One setting that the paper leaves open, and by what the recipe's own value is multiplied."""

    title: str
    key: str
    factors: tuple[float, ...]
    recipes: tuple[str, ...]


VARIATIONS = (
    Variation("noise σ", "corruption.0.sigma", (0.5, 2, 4), ("dae-mse", "dae-ssim")),
    Variation("Jacobian λ", "loss.1.weight", (0.01, 0.1, 10), ("cae-mse", "cae-ssim")),
    Variation("latent", "bottleneck.0.latent", (0.25, 4), ("cae-mse", "cae-ssim")),
)


def run(
    out: Path,
    *,
    data: Path | None,
    quick: bool,
    seeds: tuple[int, ...] | None,
    settings: tuple[str, ...],
    observer: Observer,
) -> StudyResult:
    """Write ``kumar2025[-DATASET][-quick]`` ``.json``, ``.md``, ``.png`` and ``-curves.png`` to ``out``."""
    request = Request("kumar2025", out, data, quick, seeds, settings)
    length = request.length(QUICK, FULL, WITHOUT_GPU)
    common = (*length.settings, *settings)
    images = data or generated(request.work, FAMILY, **length.images, observer=observer)
    starts = {recipe: _start(recipe) for recipe in RECIPES}
    own = {recipe: _own_settings(recipe, starts[recipe], length) for recipe in RECIPES}
    runs: list[Run] = []
    for pretrained, chosen in ((False, seeds or length.seeds), (True, seeds or length.pretrained_seeds)):
        recipes = {name: own[name] for name in RECIPES if bool(_network(name)) == pretrained}
        runs += comparison(request.work, images, recipes, chosen, common, observer).runs
    varied = _vary(request.work, images, own, runs, length.varied, common, observer)
    category = published_category(request.dataset)
    brightness = brightness_auroc(images)
    figures = document(
        request,
        paper=PAPER,
        seeds=sorted({one.seed for one in runs}),
        length=length._asdict(),
        encoders=starts,
        rows=[record(one) for one in runs],
        sensitivity=varied,
        brightness_auroc=brightness,
        published={
            "source": "Tables 1 and 2",
            "category": category,
            "tables": {
                name: {recipe: values._asdict() for recipe, values in rows.items()}
                for name, rows in PUBLISHED.items()
            },
        },
    )
    drawn = _draw(request, images, runs)
    return finish(request, figures, _page(request, runs, starts, varied, category, brightness), drawn)


def published_category(dataset: str | None) -> str | None:
    """The category of the paper that a data set's folder is named after, such as ``screw`` or ``mvtec_screw``.

    >>> published_category("mvtec_screw"), published_category("magnetic_tile")
    ('screw', None)
    """
    words = [
        word for word in re.split(r"[^a-z]+", (dataset or "").lower()) if word not in ("", "mvtec", "ad")
    ]
    return words[0] if words and words[0] in PUBLISHED else None


def _encoder(recipe: str) -> str:
    encoder = load_recipe(recipe).encoder
    assert encoder is not None
    return encoder.name


def _network(recipe: str) -> str | None:
    """The pretrained network that ``recipe`` begins with, if any."""
    name = _encoder(recipe)
    return name if name in ("vgg16", "resnet50") else None


def _start(recipe: str) -> str:
    network = _network(recipe)
    return "ImageNet" if network and find_weights(network) else "scratch"


def _own_settings(recipe: str, start: str, length: Length) -> tuple[str, ...]:
    settings = length.encoders.get(_encoder(recipe), ())
    return (*settings, "encoder.weights=none") if _network(recipe) and start == "scratch" else settings


def _vary(
    work: Path,
    data: Path,
    own: Mapping[str, Sequence[str]],
    runs: Sequence[Run],
    recipes: Sequence[str],
    settings: Sequence[str],
    observer: Observer,
) -> list[dict[str, Any]]:
    """One row for each value of each variation of ``recipes``, the recipe's own value from ``runs``."""
    found: list[dict[str, Any]] = []
    for variation in VARIATIONS:
        for recipe in (name for name in variation.recipes if name in recipes):
            plain = next(one for one in runs if one.recipe == recipe)
            usual = _value(plain, variation.key)
            by_value = {usual: plain}
            for value in (usual * factor for factor in variation.factors):
                setting = f"{variation.key}={value:g}"
                changed = {recipe: (*own[recipe], setting)}
                other = comparison(work / setting, data, changed, (plain.seed,), settings, observer)
                by_value[value] = other.runs[0]
            found += [
                {
                    "varied": variation.title,
                    "value": value,
                    "usual": value == usual,
                    **record(by_value[value]),
                }
                for value in sorted(by_value)
            ]
    return found


def _value(one: Run, key: str) -> float:
    value: Any = one.evaluation.settings.model_dump(mode="json")
    for name in key.split("."):
        value = value[int(name)] if isinstance(value, list) else value[name]
    return float(value)


def _draw(request: Request, data: Path, runs: Sequence[Run]) -> tuple[Path, Path]:
    items = choose_examples(data, EXAMPLES)
    seeds = {recipe: next(one.seed for one in runs if one.recipe == recipe) for recipe in RECIPES}
    shown = {recipe: show(fitted(request.work, recipe, seed), items) for recipe, seed in seeds.items()}
    return (
        draw_examples(request.image(".png"), [read_example(item) for item in items], shown),
        draw_curves(request.file("-curves.png"), histories(runs)),
    )


# -- the page ------------------------------------------------------------------------------------------

FIGURES = {
    "good accepted": "good_accepted",
    "bad rejected": "bad_rejected",
    "accuracy": "accuracy",
    "F1": "f1",
    "image AUROC": "auroc",
}


def _page(
    request: Request,
    runs: Sequence[Run],
    starts: dict[str, str],
    varied: list[dict[str, Any]],
    category: str | None,
    brightness: float,
) -> str:
    first = runs[0]
    test = first.evaluation.image["all"]
    text = (
        f"# Kumar et al. 2025: denoising and contractive autoencoders on {_title(request)}\n\n"
        f"Mean over seeds (smallest to largest). Tested on {test.good} good and {test.defective} "
        f"defective images; rejecting every one would give accuracy "
        f"{test.defective / (test.good + test.defective):.2f}. Threshold: mean score of the training images. "
        f"{_machines(runs)}\n\n"
        f"{beside_paper(request, [one.evaluation.settings for one in runs], TRAINING)}\n\n"
    )
    text += (
        f"The mean grey level of a test image, without any network, has an image AUROC of {brightness:.2f} in one "
        "direction or the other.\n\n"
    )
    if brightness > TELLING:
        text += (
            "So the good and the defective test images were lit differently, and the error of a whole image, "
            "which feels the light, tells them apart, or confuses them, by that: the image AUROC, and with it the "
            "shares accepted and rejected, say little of defects here. The maps and the pixel figures do.\n\n"
        )
    if request.data is None:
        text += (
            "Generated defects are small and faint beside what differs between good images, so the mean over "
            "a whole image, the paper's score, tells little of them. They lie on the part, so even a map that "
            "shows no more than the part has a pixel AUROC near 0.9.\n\n"
        )
    networks = {_network(recipe) for recipe, start in starts.items() if start == "scratch"}
    absent = sorted(network for network in networks if network)
    if absent:
        text += (
            f"No ImageNet weights were on this machine for {' and '.join(absent)}: these encoders were trained "
            "from scratch, where the paper begins with ImageNet.\n\n"
        )
    return text + _rows(runs, starts, category) + _sensitivity(varied)


def _title(request: Request) -> str:
    return request.dataset or f"generated images ({FAMILY})"


def _machines(runs: Sequence[Run]) -> str:
    machines = sorted({one.evaluation.training.machine_words for one in runs})
    return f"Trained on {'; '.join(machines)}."


def _rows(runs: Sequence[Run], starts: dict[str, str], category: str | None) -> str:
    columns = [
        "recipe",
        "encoder from",
        "seeds",
        "steps",
        "learning rate",
        *FIGURES,
        "pixel AUROC",
        "training s",
    ]
    if category:
        columns += [f"paper: {name}" for name in ("good accepted", "bad rejected", "accuracy")]
    rows = []
    for recipe, start in starts.items():
        own = [one for one in runs if one.recipe == recipe]
        images = [one.evaluation.image["all"].figures for one in own]
        row = [
            recipe,
            start,
            str(len(own)),
            spread([one.training_steps for one in own], 0),
            f"{own[0].evaluation.settings.training.learning_rate:g}",
            *(spread([image[key].value for image in images], 2) for key in FIGURES.values()),
        ]
        row.append(spread([one.evaluation.pixel.auroc for one in own], 2))
        row.append(spread([one.training_seconds for one in own], 0))
        if category:
            row += [f"{value:.2f}" for value in PUBLISHED[category][recipe]]
        rows.append(row)
    note = f"\nPaper: {category}, Tables 1 (dae) and 2 (cae).\n" if category else ""
    return table(columns, rows, left=2) + note


def _sensitivity(varied: list[dict[str, Any]]) -> str:
    if not varied:
        return ""
    rows = []
    for row in varied:
        figures = [spread([row["image"]["all"]["figures"][key]["value"]], 2) for key in FIGURES.values()]
        own = " (the recipe's)" if row["usual"] else ""
        rows.append([row["recipe"], f"{row['varied']} = {row['value']:g}{own}", *figures])
    head = (
        f"\n## What the paper leaves open\n\n"
        f"Each value alone, the rest as above; one seed ({varied[0]['seed']}).\n\n"
    )
    return head + table(["recipe", "changed", *FIGURES], rows, left=2)
