"""Recipes, claims, ablations and lengths of training of Liu et al. 2022."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from blemish.jpeg.benchmark.baselines import PILLOW_420, PILLOW_444
from blemish.jpeg.benchmark.codecs import BlemishCodec
from blemish.jpeg.benchmark.run import LADDER
from blemish.jpeg.deep.recipe import DeepRecipe, load_deep_recipe
from blemish.layers.pretrained import find_weights
from blemish.recipes import override

PAPER = "Liu, Liu, Mantravadi 2022, Deep Neural Network Based Image Compression Encoders"
CONTROL = "jpeg-tables"
RECIPES = (
    CONTROL,
    "jpeg-vgg19",
    "jpeg-resnet152-block1",
    "jpeg-resnet152-block7",
    "jpeg-lstm",
    "jpeg-bilstm",
)
OURS = BlemishCodec("balanced")
PUBLISHED = {
    "seconds": 0.126,
    "seconds_end_to_end": 7.667,
    "resnet_faster_than_vgg": 0.57,
}
"""Section 6.6: an encode with VGG19's attention, and one of the end-to-end codec of Ballé et al. 2016. Section 6.5:
steps per second of ResNet-152 over those of VGG19, less 1."""
LOW_RATES = (0.2, 0.45)
"""Bits per pixel that count as low here; the paper does not say which do."""


class Claim(NamedTuple):
    """Claim of the paper on one system beside another, tested by BD-rates."""

    words: str
    encoder: str
    anchor: str
    bpp_range: tuple[float, float] | None = None
    """Bits per pixel that it is about, where not about all that are compared."""


CLAIMS = (
    Claim("VGG19's attention gains over tables alone (not compared in the paper)", "jpeg-vgg19", CONTROL),
    Claim(
        "ResNet-152's attention (block 1) is about as good as VGG19's", "jpeg-resnet152-block1", "jpeg-vgg19"
    ),
    Claim(
        "ResNet-152's attention (block 7) is about as good as VGG19's", "jpeg-resnet152-block7", "jpeg-vgg19"
    ),
    Claim("LSTM attention loses to VGG19's", "jpeg-lstm", "jpeg-vgg19"),
    Claim("LSTM attention loses to JPEG itself at low rates", "jpeg-lstm", PILLOW_444.name, LOW_RATES),
    Claim("bidirectional LSTM attention loses to LSTM", "jpeg-bilstm", "jpeg-lstm"),
)


class Ablation(NamedTuple):
    """One weight of the loss that is changed, the rest as in the recipe."""

    title: str
    key: str
    value: float


ABLATIONS = (
    Ablation("σ = 0", "loss.sigma", 0),
    Ablation("σ = 500", "loss.sigma", 500),
    Ablation("γ = 0", "loss.gamma", 0),
)
"""Of Figure 7; of its smaller weights the paper does not give the values."""


class Length(NamedTuple):
    """Amounts of generated images, where no data set is given, of training and of measurements."""

    images: dict[str, int]
    settings: tuple[str, ...]
    attention: dict[str, tuple[str, ...]]
    """Further settings of the recipes with this attention."""
    recipes: dict[str, tuple[str, ...]]
    """Further settings of single recipes."""
    seeds: tuple[int, ...]
    ablated: tuple[str, ...]
    """Recipes whose loss is varied."""
    qualities: tuple[int, ...]
    """Qualities of the encoders that are no models."""
    bpp_range: tuple[float, float]
    crops: int
    rounds: int
    """Steps of every recipe, in turn, by which training speeds are compared."""


FULL = Length(
    images={"good": 200, "test_good": 24, "per_blemish": 0, "size": 512},
    settings=(),
    attention={},
    recipes={},
    seeds=(0, 1, 2),
    ablated=("jpeg-vgg19", "jpeg-resnet152-block1"),
    qualities=LADDER,
    bpp_range=(0.2, 1.0),
    crops=3,
    rounds=10,
)
# The paper's learning rate, meant for a pretrained network, takes one that begins with nothing nowhere in a few
# hundred steps, and tables that begin at 1 to 2 take longer still to where files are small. Likewise maps that begin
# at 0.5, which halves what is left of every coefficient.
_SHORT = (
    "tables.initial=annex-k",
    "training.schedule=cosine",
    "training.learning_rate=1e-3",
    "tables.pace=50",
    "training.batch=4",
)
_BEGUN = ("attention.start=0.9",)
# Without ImageNet weights VGG19 would die of the larger rate; that of log Q is the same for all.
_DEEP = (*_BEGUN, "training.learning_rate=1e-4", "tables.pace=500")
_ATTENTION = {"vgg19": _DEEP, "resnet152": _DEEP, "lstm": _BEGUN, "bilstm": _BEGUN}
QUICK = Length(
    images={"good": 12, "test_good": 3, "per_blemish": 0, "size": 192},
    settings=(
        *_SHORT,
        "loss.sigma=0",  # MS-SSIM needs crops of 161 pixels
        "patch.size=64",
        "training.steps=100",
        "training.validate_every=25",
        "lambdas=[0.02, 0.5]",
    ),
    attention=_ATTENTION,
    recipes={},
    seeds=(0,),
    ablated=(),
    qualities=(4, 11, 23, 42, 64, 85),
    bpp_range=(0.05, 4.0),
    crops=0,
    rounds=1,
)
_PAPERS_STEPS = ("training.steps=20000", "training.validate_every=500")
# With these λ, files of 0.2 to 0.6 bits per pixel. The paper's steps where a processor makes them in 1 to 3 hours (measured
# once: benchmarks/deep_jpeg.py); VGG19 and block 7 of ResNet-152 would take a day for each seed.
WITHOUT_GPU = Length(
    images={**FULL.images, "good": 60, "test_good": 8},
    settings=(
        *_SHORT,
        "patch.size=176",
        "training.steps=800",
        "training.validate_every=100",
        "lambdas=[0.005, 0.02, 0.05, 0.1]",
    ),
    attention=_ATTENTION,
    recipes=dict.fromkeys((CONTROL, "jpeg-resnet152-block1", "jpeg-lstm", "jpeg-bilstm"), _PAPERS_STEPS),
    seeds=(0, 1, 2),
    ablated=(CONTROL, "jpeg-resnet152-block1", "jpeg-vgg19"),
    qualities=LADDER,
    bpp_range=(0.2, 1.0),
    crops=2,
    rounds=5,
)
FEWEST_SEEDS = 3
"""Seeds from which there is an interval over them, and a conclusion."""
FAMILY = "part"
BASELINE_NAMES = (PILLOW_420.name, PILLOW_444.name)
NETWORKS = {"vgg19": "VGG19", "resnet152": "ResNet-152"}
"""Attention that begins with ImageNet weights."""


class Figure(NamedTuple):
    """A figure of the paper: fits whose curves it draws."""

    title: str
    fits: tuple[str, ...]


FIGURES = (
    Figure("Figure 5: VGG19, with and without MS-SSIM in the loss", ("jpeg-vgg19", "jpeg-vgg19, σ = 0")),
    *(
        Figure(
            f"Figure 7: weights of the loss, {name}", (name, *(f"{name}, {one.title}" for one in ABLATIONS))
        )
        for name in (CONTROL, "jpeg-vgg19", "jpeg-resnet152-block1")
    ),
    Figure(
        "Figure 8: ResNet-152 and VGG19 without MS-SSIM in the loss",
        ("jpeg-vgg19, σ = 0", "jpeg-resnet152-block1, σ = 0"),
    ),
)


class Planned(NamedTuple):
    """A fit to be made: its name in tables and figures, its folder's, and its recipe."""

    name: str
    folder: str
    recipe: DeepRecipe
    changed: str = ""
    """Name of the fit beside which one weight of the loss differs."""


def plan_fits(
    length: Length, seeds: Sequence[int], settings: Sequence[str], with_lpips: bool
) -> list[Planned]:
    """Every recipe with every seed, then the variations of some with the first seed."""
    without = () if with_lpips else ("loss.gamma=0",)

    def recipe(name: str, seed: int, *more: str) -> DeepRecipe:
        plain = load_deep_recipe(name)
        own = length.attention.get(plain.attention.name, ())
        absent = plain.attention.name in NETWORKS and attention_start(plain) == "scratch"
        scratch = ("attention.weights=none",) if absent else ()
        single = length.recipes.get(name, ())
        changes = (
            *length.settings, *own, *single, *scratch, *without, *settings, *more, f"training.seed={seed}"
        )  # fmt: skip
        return override(plain, list(changes))

    plan = []
    for seed in seeds:
        for name in RECIPES:
            title = name if seed == seeds[0] else f"{name}, seed {seed}"
            plan.append(Planned(title, f"{name}-{seed}", recipe(name, seed)))
    for name in length.ablated:
        plain = recipe(name, seeds[0])
        for one in ABLATIONS:
            if getattr(plain.loss, one.key.removeprefix("loss.")) == one.value:
                continue  # such as γ, where there is no LPIPS
            changed = recipe(name, seeds[0], f"{one.key}={one.value:g}")
            folder = f"{name}-{seeds[0]}-{one.key}={one.value:g}"
            plan.append(Planned(f"{name}, {one.title}", folder, changed, changed=name))
    return plan


def attention_start(recipe: DeepRecipe) -> str:
    network, weights = recipe.attention.name, recipe.attention.settings.get("weights", "none")
    if network == "none":
        return "–"
    if weights == "none" or (weights == "imagenet" and find_weights(network) is None):
        return "scratch"
    return "ImageNet"
