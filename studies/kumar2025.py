"""Kumar, Malik, Puglisi 2025: twelve denoising and contractive autoencoders, Tables 1 and 2.

Whole images in, the mean reconstruction error as score, and its mean over the training images as
threshold: good images below it are accepted, bad ones above it rejected. The second part shows what the
values that the paper leaves open (noise level, weight of the Jacobian, size of the latent) change, the third what the
paper names as future work (attention, adversarial, perceptual and multi-scale losses), and an encoder whose ImageNet
weights are an ordinary package.

Given the root of MVTec AD, all of the paper's categories that are there are run, for Tables 1 and 2 as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blemish.data.layouts import read_labelled
from blemish.errors import MissingExtraError
from blemish.evaluation.compare import Run
from blemish.layers.efficientnet_lite import find_package_weights
from blemish.layers.pretrained import find_weights
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from studies.baselines import kept_baselines
from studies.kumar2025_page import page
from studies.kumar2025_tables import PAPER, PUBLISHED, RECIPES, published_category
from studies.protocol import (
    Allowance,
    Request,
    brightness_auroc,
    choose_examples,
    comparison,
    document,
    draw_curves,
    draw_examples,
    finish,
    fitted,
    generated,
    grey_levels,
    histories,
    read_example,
    record,
    show,
)
from studies.result import StudyResult


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
    extended: bool = False
    """Whether the extensions are run."""


ALL_TRAIN = "threshold.hold_out=false"
"""As in the paper, whose threshold needs no calibration."""

# The paper gives no number of epochs. 100 of MVTec's 320 screws in batches of 32 are 1000 steps.
FULL = Length(
    images={"good": 320, "test_good": 42, "per_blemish": 12, "size": 256},
    settings=(ALL_TRAIN, "training.steps=1000", "training.validate_every=100"),
    encoders={},
    seeds=(0, 1, 2),
    pretrained_seeds=(0, 1, 2),
    varied=("dae-mse", "dae-ssim", "cae-mse", "cae-ssim"),
    extended=True,
)
# A short training arrives somewhere with a falling learning rate, and a larger one than the paper's, of which
# VGG16 would die. A step of VGG16 or ResNet50 takes as long as 10 to 30 of the plain encoder.
QUICK = Length(
    images={"good": 100, "test_good": 28, "per_blemish": 4, "size": 64},
    settings=(
        ALL_TRAIN,
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
        "efficientnet-lite": ("training.steps=100", "training.learning_rate=1e-3"),
    },
    seeds=(0,),
    pretrained_seeds=(0,),
    varied=(),
)
# FULL takes days without a GPU; this is what two cores do in some two hours, on images half as large.
WITHOUT_GPU = Length(
    images=FULL.images,
    settings=(
        ALL_TRAIN,
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
        "efficientnet-lite": ("training.steps=200", "training.learning_rate=1e-3"),
    },
    seeds=(0, 1, 2),
    pretrained_seeds=(0,),
    varied=("dae-mse", "cae-mse"),
    extended=True,
)
FAMILY = "part"
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


class Extension(NamedTuple):
    """A recipe with something that the paper names as future work, or with another encoder."""

    title: str
    recipe: str
    beside: str
    """The recipe of the paper that it is compared with."""
    settings: tuple[str, ...] = ()


SCALES = (0.07, 0.45, 0.48)
"""Weights of MS-SSIM: the first three of its paper, with the sum 1, so that images of 64 pixels will do."""


def extensions() -> tuple[Extension, ...]:
    perceptual = (
        "perceptual, weight: 0.1" if find_weights("vgg16") else "perceptual, network: gabor, weight: 0.1"
    )
    words = (
        "perceptual loss" if find_weights("vgg16") else "perceptual loss by a Gabor bank, for want of weights"
    )
    return (
        Extension("attention", "dae-ssim", "dae-ssim", ("bottleneck=[{name: attention}]",)),
        Extension(
            "adversarial loss",
            "dae-mse",
            "dae-mse",
            ("loss=[{name: mse}, {name: adversarial, weight: 0.01}]",),
        ),
        Extension(words, "dae-mse", "dae-mse", (f"loss=[{{name: mse}}, {{name: {perceptual}}}]",)),
        Extension(
            "MS-SSIM loss", "dae-ssim", "dae-ssim", (f"loss=[{{name: ms-ssim, weights: {list(SCALES)}}}]",)
        ),
        *(
            Extension(
                f"{recipe}, encoder from {start}",
                recipe,
                f"{kind}-{measure}",
                (f"encoder.weights={weights}",),
            )
            for kind in ("dae", "cae")
            for measure in ("mse", "ssim")
            for recipe in (f"{kind}-efficientnet-{measure}",)
            for start, weights in (("ImageNet", "package"), ("scratch", "none"))
        ),
    )


def categories_of(root: Path) -> list[str]:
    """The paper's categories below ``root``; none where it is a data set itself."""
    if (root / "train").is_dir() or not root.is_dir():
        return []
    return [name for name in PUBLISHED if (root / name / "train").is_dir()]


def check(data: Path) -> None:
    """Read the list of images of a data set, or of every category of an MVTec root, before anything is fitted."""
    for folder in [data / name for name in categories_of(data)] or [data]:
        read_labelled(folder)


def run(
    out: Path,
    *,
    data: Path | None,
    quick: bool,
    seeds: tuple[int, ...] | None,
    settings: tuple[str, ...],
    observer: Observer,
    rows: int | None = None,
) -> StudyResult:
    """Write ``kumar2025[-DATASET][-quick]`` ``.json``, ``.md``, ``.png`` and ``-curves.png`` to ``out``.

    Of an MVTec root every category has an image of its own.
    """
    request = Request("kumar2025", out, data, quick, seeds, settings, rows)
    length = request.length(QUICK, FULL, WITHOUT_GPU)
    allowance = Allowance(rows)
    common = (*length.settings, *settings)
    starts = {recipe: _start(recipe) for recipe in RECIPES}
    own = {recipe: scratch_settings(recipe, starts[recipe], length.encoders) for recipe in RECIPES}
    parts = _parts(request, length, observer)
    found: list[dict[str, Any]] = []
    varied: list[dict[str, Any]] = []
    extended: list[dict[str, Any]] = []
    baselines: list[dict[str, Any]] = []
    brightness: dict[str, float] = {}
    levels: dict[str, dict[str, float]] = {}
    drawn: list[Path] = []
    for part in parts:
        runs: list[Run] = []
        for pretrained, chosen in ((False, seeds or length.seeds), (True, seeds or length.pretrained_seeds)):
            recipes = {name: own[name] for name in RECIPES if bool(_network(name)) == pretrained}
            runs += comparison(part.work, part.data, recipes, chosen, common, observer, allowance).runs
        in_category = {"category": part.name}
        found += [in_category | record(one) for one in runs]
        changed = _vary(part, own, runs, length.varied, common, observer, allowance)
        varied += [in_category | row for row in changed]
        if length.extended:
            more = _extend(part, length, seeds or length.seeds, common, observer, allowance)
            extended += [in_category | row for row in more]
        recipe = override(load_recipe(RECIPES[0]), [*own[RECIPES[0]], *common])
        baselines += [in_category | row for row in kept_baselines(part.work, part.data, recipe, observer)]
        brightness[part.name] = brightness_auroc(part.data)
        levels[part.name] = grey_levels(part.data)
        drawn += _draw(request, part, runs, "" if len(parts) == 1 else f"-{part.name}")
    figures = document(
        request,
        paper=PAPER,
        seeds=sorted({row["seed"] for row in found}),
        length=length._asdict(),
        encoders=starts,
        rows=found,
        sensitivity=varied,
        extensions=extended,
        baselines=baselines,
        brightness_auroc=brightness if len(parts) > 1 else brightness[parts[0].name],
        grey_levels=levels if len(parts) > 1 else levels[parts[0].name],
        planned=allowance.planned,
        missing=allowance.missing,
        published={
            "source": "Tables 1 and 2",
            "category": published_category(request.dataset) if len(parts) == 1 else None,
            "tables": {
                name: {recipe: values._asdict() for recipe, values in rows_of.items()}
                for name, rows_of in PUBLISHED.items()
            },
        },
    )
    return finish(request, figures, page(request, figures), drawn)


class Part(NamedTuple):
    """One data set with its fits."""

    name: str
    data: Path
    work: Path


def _parts(request: Request, length: Length, observer: Observer) -> list[Part]:
    if request.data is None:
        images = generated(request.work, FAMILY, **length.images, observer=observer)
        return [Part("generated", images, request.work)]
    names = categories_of(request.data)
    if names:
        return [Part(name, request.data / name, request.work / name) for name in names]
    return [Part(str(request.dataset), request.data, request.work)]


def _encoder(recipe: str) -> str:
    encoder = load_recipe(recipe).encoder
    assert encoder is not None
    return encoder.name


def _network(recipe: str) -> str | None:
    """The pretrained network of the paper that ``recipe`` begins with, if any."""
    name = _encoder(recipe)
    return name if name in ("vgg16", "resnet50") else None


def _start(recipe: str) -> str:
    network = _network(recipe)
    return "ImageNet" if network and find_weights(network) else "scratch"


def scratch_settings(recipe: str, start: str, encoders: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Settings of ``recipe`` alone: those of its encoder among ``encoders``, and no weights where it starts from scratch."""
    settings = tuple(encoders.get(_encoder(recipe), ()))
    return (*settings, "encoder.weights=none") if _network(recipe) and start == "scratch" else settings


def _vary(
    part: Part,
    own: Mapping[str, Sequence[str]],
    runs: Sequence[Run],
    recipes: Sequence[str],
    settings: Sequence[str],
    observer: Observer,
    allowance: Allowance,
) -> list[dict[str, Any]]:
    """One row for each value of each variation of ``recipes``, the recipe's own value from ``runs``."""
    found: list[dict[str, Any]] = []
    for variation in VARIATIONS:
        for recipe in (name for name in variation.recipes if name in recipes):
            plain = next((one for one in runs if one.recipe == recipe), None)
            if plain is None:
                continue
            usual = _value(plain, variation.key)
            by_value = {usual: plain}
            for value in (usual * factor for factor in variation.factors):
                setting = f"{variation.key}={value:g}"
                changed = {recipe: (*own[recipe], setting)}
                other = comparison(
                    part.work / setting, part.data, changed, (plain.seed,), settings, observer, allowance
                )
                if other.runs:
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


def _extend(
    part: Part,
    length: Length,
    seeds: Sequence[int],
    settings: Sequence[str],
    observer: Observer,
    allowance: Allowance,
) -> list[dict[str, Any]]:
    """One row for each extension and seed; encoders whose package is not installed are left out."""
    found: list[dict[str, Any]] = []
    for extension in extensions():
        if "encoder.weights=package" in extension.settings and not _has_package():
            observer.stage(f"Left out, because its weights are not installed: {extension.title}")
            continue
        changed = {
            extension.recipe: (*length.encoders.get(_encoder(extension.recipe), ()), *extension.settings)
        }
        work = part.work / "extensions" / extension.title.replace(" ", "-").replace(",", "")
        other = comparison(work, part.data, changed, seeds, settings, observer, allowance)
        found += [
            {"extension": extension.title, "beside": extension.beside, **record(one)} for one in other.runs
        ]
    return found


def _has_package() -> bool:
    try:
        find_package_weights()
    except MissingExtraError:
        return False
    return True


def _draw(request: Request, part: Part, runs: Sequence[Run], ending: str) -> list[Path]:
    items = choose_examples(part.data, EXAMPLES)
    seeds: dict[str, int] = {}
    for one in runs:
        seeds.setdefault(one.recipe, one.seed)
    shown = {recipe: show(fitted(part.work, recipe, seed), items) for recipe, seed in seeds.items()}
    if not shown:
        return []
    return [
        draw_examples(request.image(f"{ending}.png"), [read_example(item) for item in items], shown),
        draw_curves(request.file(f"{ending}-curves.png"), histories(runs)),
    ]
