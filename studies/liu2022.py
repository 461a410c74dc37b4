"""Liu, Liu, Mantravadi 2022: JPEG encoders of learned tables and attention, six recipes beside JPEG itself.

A data set is a folder with ``train/`` and ``test/`` photographs: the paper trains on HDR+ and tests on Kodak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from blemish.data.datasets import find_images
from blemish.errors import FileError
from blemish.jpeg.benchmark.baselines import PILLOW_420, PILLOW_444
from blemish.jpeg.benchmark.codecs import BlemishEncoder, model_encoder
from blemish.jpeg.benchmark.run import (
    COMPARED,
    CONVENTIONS,
    LADDER,
    RECORDS_FILE,
    BdRate,
    CodecEvaluation,
    CodecRecord,
    evaluate,
    rate_between,
)
from blemish.jpeg.deep.fit import check_deep_recipe, fit_jpeg_once
from blemish.jpeg.deep.model import DeepEncoder
from blemish.jpeg.deep.recipe import DeepRecipe, load_deep_recipe
from blemish.jpeg.quality import Measure, measures
from blemish.layers.pretrained import find_weights
from blemish.observer import Observer
from blemish.recipes import override
from blemish.report.numbers import counted
from blemish.storage.records_log import RecordsLog
from blemish.storage.training_record import TrainingLook
from studies.protocol import Request, document, finish, generated, save, table, unlike_paper
from studies.result import StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
OURS = BlemishEncoder("balanced")

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
    """What the paper says of one system beside another, which BD-rates put to the test."""

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
    """How much is drawn, where no data set is given, trained and measured."""

    images: dict[str, int]
    settings: tuple[str, ...]
    attention: dict[str, tuple[str, ...]]
    """Further settings of the recipes with this attention."""
    seeds: tuple[int, ...]
    ablated: tuple[str, ...]
    """Recipes whose loss is varied."""
    qualities: tuple[int, ...]
    """Of the encoders that are no models."""
    bpp_range: tuple[float, float]
    crops: int


FULL = Length(
    images={"good": 200, "test_good": 24, "per_blemish": 0, "size": 512},
    settings=(),
    attention={},
    seeds=(0,),
    ablated=("jpeg-vgg19",),
    qualities=LADDER,
    bpp_range=(0.2, 1.0),
    crops=3,
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
    seeds=(0,),
    ablated=(),
    qualities=(4, 11, 23, 42, 64, 85),
    bpp_range=(0.05, 4.0),
    crops=0,
)
# All as many steps, so that what differs is the attention: with these λ, files of 0.2 to 0.6 bits per pixel.
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
    seeds=(0,),
    ablated=(CONTROL, "jpeg-resnet152-block1"),
    qualities=LADDER,
    bpp_range=(0.2, 1.0),
    crops=2,
)
FAMILY = "part"
ANCHOR_NAMES = (PILLOW_420.name, PILLOW_444.name)
_ANCHOR_LINES = {PILLOW_420.name: "--", PILLOW_444.name: ":", OURS.name: "-."}
NETWORKS = {"vgg19": "VGG19", "resnet152": "ResNet-152"}
"""Attention that begins with ImageNet weights."""


class Planned(NamedTuple):
    """A fit to be made: its name in tables and figures, its folder's, and its recipe."""

    name: str
    folder: str
    recipe: DeepRecipe
    changed: str = ""
    """Name of the fit beside which one weight of the loss differs."""


class Fit(NamedTuple):
    """A fit that was made."""

    planned: Planned
    start: str
    """Where the attention begins: "ImageNet", "scratch", or "–" where there is none to begin."""
    encoder: DeepEncoder

    @property
    def name(self) -> str:
        return self.planned.name

    @property
    def recipe(self) -> DeepRecipe:
        return self.planned.recipe

    @property
    def steps_per_second(self) -> float:
        """Of the whole training, with its looks at the held-out photographs."""
        return self.encoder.file.training.steps / self.encoder.file.training.seconds


class Results(NamedTuple):
    """What the page and the figures are made from."""

    request: Request
    fits: list[Fit]
    evaluation: CodecEvaluation
    records: list[CodecRecord]
    with_lpips: bool

    def fit(self, name: str) -> Fit:
        return next(fit for fit in self.fits if fit.name == name)

    def rate(
        self, anchor: str, encoder: str, measure: Measure, bpp_range: tuple[float, float] | None = None
    ) -> BdRate | None:
        """The BD-rate of one encoder against any other, between the evaluation's rates unless told."""
        chosen = bpp_range or self.evaluation.bpp_range
        return rate_between(self.records, anchor, encoder, measure, chosen, self.evaluation.images)

    def rates(
        self, anchor: str, encoder: str, bpp_range: tuple[float, float] | None = None
    ) -> dict[str, Any]:
        """The same by measure, as JSON."""
        found = {
            measure: self.rate(anchor, encoder, measure, bpp_range) for measure in self.evaluation.measures
        }
        return {measure: rate.model_dump(mode="json") for measure, rate in found.items() if rate is not None}


def run(
    out: Path,
    *,
    data: Path | None,
    quick: bool,
    seeds: tuple[int, ...] | None,
    settings: tuple[str, ...],
    observer: Observer,
) -> StudyResult:
    """Write ``liu2022[-DATASET][-quick]`` ``.json``, ``.md``, ``.png`` and ``-curves.png`` to ``out``.

    Details of test images side by side are in ``evaluation/report.html`` of the work folder.
    """
    request = Request("liu2022", out, data, quick, seeds, settings)
    length = request.length(QUICK, FULL, WITHOUT_GPU)
    if data is not None:
        check_data(data)
    with_lpips = "lpips" in measures(ssimulacra2=False)[0]
    plan = _plan(length, seeds or length.seeds, settings, with_lpips)
    for one in plan:
        check_deep_recipe(one.recipe)
    images = data or generated(request.work, FAMILY, **length.images, observer=observer)
    folders = {one.name: request.work / "models" / one.folder for one in plan}
    fits = [
        Fit(
            one,
            _start(one.recipe),
            fit_jpeg_once(images / "train", one.recipe, folders[one.name], title=one.name, observer=observer),
        )
        for one in plan
    ]
    evaluation = evaluate(
        images / "test",
        request.work / "evaluation",
        encoders=[OURS, *(model_encoder(folder, name) for name, folder in folders.items())],
        qualities=length.qualities,
        bpp_range=length.bpp_range,
        ssimulacra2=False,
        crops=length.crops,
        command=request.command,
        observer=observer,
    )
    results = Results(request, fits, evaluation, _records(request, evaluation), with_lpips)
    figures = document(
        request,
        paper=PAPER,
        seeds=sorted({fit.recipe.training.seed for fit in fits}),
        length=length._asdict(),
        lpips=with_lpips,
        rows=[_row(results, fit) for fit in fits],
        claims=[
            {**claim._asdict(), "rates": results.rates(claim.anchor, claim.encoder, claim.bpp_range)}
            for claim in CLAIMS
        ],
        ablations=[
            {
                "encoder": fit.name,
                "anchor": fit.planned.changed,
                "rates": results.rates(fit.planned.changed, fit.name),
            }
            for fit in fits
            if fit.planned.changed
        ],
        evaluation=evaluation.model_dump(
            mode="json",
            exclude={"command": True, "versions": True, "encoders": {"__all__": {"relative_rate"}}},
        ),
        published=PUBLISHED,
    )
    drawn = (
        draw_rates(request.file(".png"), evaluation, [fit.name for fit in fits if not fit.planned.changed]),
        draw_terms(
            request.file("-curves.png"),
            {fit.name: fit.encoder.file.training.history for fit in fits if not fit.planned.changed},
        ),
    )
    return finish(request, figures, _page(results), drawn)


def check_data(data: Path) -> None:
    """Refuse a data set without images in ``train`` and ``test``.

    Raises
    ------
    FileError
        Naming the folder.
    """
    for part in ("train", "test"):
        if not (data / part).is_dir():
            raise FileError(
                data, f"has no {part} folder", "lay it out as train/ and test/, with photographs in each"
            )
        find_images(data / part)


def _plan(length: Length, seeds: Sequence[int], settings: Sequence[str], with_lpips: bool) -> list[Planned]:
    """Every recipe with every seed, then the variations of some with the first seed."""
    without = () if with_lpips else ("loss.gamma=0",)

    def recipe(name: str, seed: int, *more: str) -> DeepRecipe:
        plain = load_deep_recipe(name)
        own = length.attention.get(plain.attention.name, ())
        absent = plain.attention.name in NETWORKS and _start(plain) == "scratch"
        scratch = ("attention.weights=none",) if absent else ()
        changes = (*length.settings, *own, *scratch, *without, *settings, *more, f"training.seed={seed}")
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


def _start(recipe: DeepRecipe) -> str:
    network, weights = recipe.attention.name, recipe.attention.settings.get("weights", "none")
    if network == "none":
        return "–"
    if weights == "none" or (weights == "imagenet" and find_weights(network) is None):
        return "scratch"
    return "ImageNet"


def _records(request: Request, evaluation: CodecEvaluation) -> list[CodecRecord]:
    """The files that ``evaluation`` is of; the journal also holds those of former fits and images."""
    descriptions = {encoder.name: encoder.description for encoder in evaluation.encoders}
    newest = {
        (record.encoder, record.image, record.quality): record
        for record in RecordsLog(request.work / "evaluation" / RECORDS_FILE, CodecRecord).records
        if descriptions.get(record.encoder) == record.description and record.image in evaluation.images
    }
    return list(newest.values())


def _row(results: Results, fit: Fit) -> dict[str, Any]:
    training = fit.encoder.file.training
    evaluated = next(one for one in results.evaluation.encoders if one.name == fit.name)
    without = {"version", "name", "title", "paper", "needs", "expect"}
    return {
        "name": fit.name,
        "recipe": fit.recipe.name,
        "seed": fit.recipe.training.seed,
        "attention_from": fit.start,
        "settings": fit.recipe.model_dump(mode="json", exclude=without),
        "parameters": sum(parameter.numel() for parameter in fit.encoder.model.parameters()),
        "steps": training.steps,
        "best_step": training.best_step,
        "training_seconds": training.seconds,
        "steps_per_second": fit.steps_per_second,
        "machine": training.machine_words,
        "history": [look.model_dump() for look in training.history],
        "milliseconds_per_image": evaluated.milliseconds_per_image,
        "times_pillow": evaluated.times_pillow,
        "rates": {anchor.name: results.rates(anchor.name, fit.name) for anchor in (PILLOW_420, PILLOW_444)},
    }


# -- figures -------------------------------------------------------------------------------------------

_SCALES: dict[Measure, str] = {"psnr_rgb": "PSNR of RGB (dB)", "ms_ssim": "MS-SSIM", "lpips": "LPIPS"}
_COLOURS = (
    "tab:blue",
    "tab:orange",
    "tab:green",
    "tab:red",
    "tab:purple",
    "tab:brown",
    "tab:pink",
    "tab:cyan",
)


def draw_rates(path: Path, evaluation: CodecEvaluation, fits: Sequence[str]) -> Path:
    """One panel a measure: its mean over the images against bits per pixel, for both anchors, ours and ``fits``.

    Of measures that have a value at every point; where there are none, the figure says so.
    """
    from matplotlib.figure import Figure

    low, high = evaluation.bpp_range
    colours = dict(zip(fits, (_COLOURS * len(fits))[: len(fits)], strict=True))
    shown = [one for one in evaluation.encoders if one.name in (*ANCHOR_NAMES, OURS.name, *fits)]
    taken = [
        measure
        for measure in _SCALES
        if all(point.measures.get(measure) is not None for one in shown for point in one.points)
    ]
    if not taken:
        figure = Figure(figsize=(5.2, 1.2), layout="constrained")
        figure.text(0.5, 0.5, "No measure has a value for every file.", ha="center", va="center", fontsize=9)
        return save(figure, path)
    figure = Figure(figsize=(5.2 * len(taken), 4.6), layout="constrained")
    for axis, measure in zip(figure.subplots(1, len(taken), squeeze=False)[0], taken, strict=True):
        for one in shown:
            points = [
                (point.bits_per_pixel, point.measures[measure])
                for point in one.points
                if low / 2 <= point.bits_per_pixel <= 1.5 * high
            ]
            is_fit = one.name in colours
            axis.plot(
                [rate for rate, _ in points],
                [value for _, value in points],
                label=one.name,
                color=colours.get(one.name, "black"),
                linestyle="-" if is_fit else _ANCHOR_LINES[one.name],
                marker="o" if is_fit else None,
                markersize=3,
                linewidth=1.2,
            )
        _label(axis, "bits per pixel of the file", _SCALES[measure])
        axis.legend(fontsize=7)
    return save(figure, path)


def draw_terms(path: Path, histories: Mapping[str, Sequence[TrainingLook]]) -> Path:
    """One panel a fit: each held-out term of the loss against steps, as a share of what it was at the first look."""
    from matplotlib.figure import Figure

    columns = min(3, len(histories))
    rows = -(-len(histories) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, history) in zip(axes, histories.items(), strict=False):
        first = {name: value for name, value in history[0].terms.items() if value > 0}
        for (term, value), colour in zip(first.items(), _COLOURS, strict=False):
            axis.plot(
                [look.step for look in history],
                [look.terms[term] / value for look in history],
                label=term,
                color=colour,
                marker="." if len(history) < 3 else None,
            )
        axis.set_title(name, fontsize=9)
        _label(axis, "", "")
    axes[0].legend(fontsize=7)
    for axis in axes[len(histories) :]:
        axis.set_axis_off()
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("held-out term of the loss, 1 at the first look", fontsize=9)
    return save(figure, path)


def _label(axis: Axes, x: str, y: str) -> None:
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)


# -- the page ------------------------------------------------------------------------------------------


def _page(results: Results) -> str:
    request, evaluation = results.request, results.evaluation
    machines = sorted({fit.encoder.file.training.machine_words for fit in results.fits})
    text = (
        f"# Liu et al. 2022: learned JPEG encoders on {request.dataset or 'generated images'}\n\n"
        f"{counted(len(evaluation.images), 'test image')}, {evaluation.rates_in_words()}. {CONVENTIONS}\n\n"
        f"Trained on {'; '.join(machines)}. {training_beside_paper(request, [fit.recipe for fit in results.fits])}\n\n"
    )
    if not results.with_lpips:
        text += (
            "LPIPS's pretrained network is not on this machine, so γ = 0: no training here has LPIPS in its loss, "
            "the paper's γ cannot be varied, and no figure is of LPIPS.\n\n"
        )
    absent = sorted(
        {
            NETWORKS[fit.recipe.attention.name]
            for fit in results.fits
            if fit.recipe.attention.name in NETWORKS and fit.start == "scratch"
        }
    )
    if absent:
        text += (
            f"No ImageNet weights were on this machine for {' and '.join(absent)}: their attention was trained "
            "from scratch, where the paper begins with ImageNet. Nothing here tells of pretrained attention.\n\n"
        )
    if request.data is None:
        text += "Generated images are no photographs: they show that everything works, not what is best.\n\n"
    return text + _rates_table(results) + _claims(results) + _ablations(results) + _times(results)


def training_beside_paper(request: Request, recipes: Sequence[DeepRecipe]) -> str:
    """How ``recipes`` are trained, how the paper trains, where they differ and why, in words."""
    trainings = [recipe.training for recipe in recipes]
    lambdas = {recipe.lambdas for recipe in recipes}
    sides = [recipe.patch.size for recipe in recipes]
    starts = {recipe.tables.initial for recipe in recipes}
    falling = any(training.schedule != "constant" for training in trainings)
    said = (
        f"Ours: crops of {_span(sides)} pixels a side, at most {_span([one.steps for one in trainings])} steps of "
        f"batch {_span([one.batch for one in trainings])}, Adam with a learning rate of "
        f"{_span([one.learning_rate for one in trainings])}{', falling to 0' if falling else ', constant'}, log Q at "
        f"{_span([recipe.tables.pace for recipe in recipes])} times that, tables that begin "
        f"{' or '.join(sorted(_STARTS[start] for start in starts))}, γ {_span([one.loss.gamma for one in recipes])}, "
        f"σ {_span([one.loss.sigma for one in recipes])}. The paper: crops of 224 pixels a side, 20000 "
        "steps, Adam with a learning rate of 1e-06, constant, tables that begin between 1 and 2, γ 500, σ 1000; it gives "
        "no batch."
    )
    if any(len(one) > 1 for one in lambdas):
        values = sorted({value for one in lambdas for value in one})
        said += (
            f" One network a recipe serves the λ {', '.join(f'{value:g}' for value in values)}, of which each image "
            "of a batch draws one; the paper trains a network for each of its own, which it does not name."
        )
    rates = [training.learning_rate for training in trainings]
    rate = [*["larger"] * (max(rates) > 1e-6), *["smaller"] * (min(rates) < 1e-6), *["falling"] * falling]
    differing = [
        *["shorter"] * (min(training.steps for training in trainings) < 20_000),
        *["on smaller crops"] * (min(sides) < 224),
        *([f"with a {', '.join(rate)} learning rate"] if rate else []),
        *["from JPEG's own tables"] * ("annex-k" in starts),
    ]
    return f"{said}{unlike_paper(request, differing)}"


_TOLD: tuple[Measure, ...] = ("psnr_rgb", "ms_ssim")
_STARTS = {"annex-k": "as those of JPEG's annex K at quality 50", "uniform": "between 1 and 2"}


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _rates_table(results: Results) -> str:
    evaluation = results.evaluation
    compared = [measure for measure in ("psnr_rgb", "ms_ssim", "lpips") if measure in evaluation.measures]
    anchors = (PILLOW_444.name, PILLOW_420.name)
    columns = ["encoder", "attention from", "steps", "training s"]
    columns += [f"{COMPARED[measure]} beside {anchor}" for anchor in anchors for measure in compared]
    rows = []
    for one in evaluation.encoders:
        fit = next((fit for fit in results.fits if fit.name == one.name), None)
        row = [one.name, "–", "–", "–"]
        if fit is not None:
            training = fit.encoder.file.training
            row[1:] = [fit.start, str(training.steps), f"{training.seconds:.0f}"]
        row += [
            ""
            if anchor == one.name
            else in_words(results.rate(anchor, one.name, measure), len(evaluation.images), judged=False)
            for anchor in anchors
            for measure in compared
        ]
        rows.append(row)
    head = (
        "## Bits at equal quality\n\nBD-rate, mean and 95 % interval: negative needs fewer bits. pillow-444 is the "
        "paper's baseline, pillow-420 what a careful user of Pillow gets. PSNR tells what MSE does. A network has "
        "one point a λ on each curve.\n\n"
    )
    return head + table(columns, rows, left=2)


def _claims(results: Results) -> str:
    names = {fit.name for fit in results.fits}
    claims = [claim for claim in CLAIMS if claim.encoder in names]
    rows = [
        [claim.words, _compared(claim), *_cells(results, claim.anchor, claim.encoder, claim.bpp_range)]
        for claim in claims
    ]
    for fit in results.fits:
        if fit.planned.changed and fit.recipe.loss.sigma == 0:
            own = fit.planned.changed
            row = ["MS-SSIM in the loss helps MS-SSIM and costs no MSE", f"{own} beside {fit.name}"]
            rows.append([*row, *_cells(results, fit.name, own)])
    for name in RECIPES[2:]:
        if name in names:
            row = ["what this attention brings (no claim)", f"{name} beside {CONTROL}"]
            rows.append([*row, *_cells(results, CONTROL, name)])
    head = (
        "\n## What the paper says, and what is found here\n\nBD-rate of the first beside the second; jpeg-tables is "
        "the control, with learned tables and no attention.\n\n"
    )
    return head + table(["the paper", "compared", "PSNR-RGB", "MS-SSIM"], rows, left=2)


def _compared(claim: Claim) -> str:
    words = f"{claim.encoder} beside {claim.anchor}"
    if claim.bpp_range is None:
        return words
    low, high = claim.bpp_range
    return f"{words}, {low:g} to {high:g} bits per pixel"


def _cells(
    results: Results, anchor: str, encoder: str, bpp_range: tuple[float, float] | None = None
) -> list[str]:
    rates = [results.rate(anchor, encoder, measure, bpp_range) for measure in _TOLD]
    return [in_words(rate, len(results.evaluation.images)) for rate in rates]


def in_words(rate: BdRate | None, images: int, *, judged: bool = True) -> str:
    """A BD-rate, the number of images where the curves do not meet on all, and what its interval says.

    Of fewer than two images, or fewer than half of them, nothing is said.

    >>> in_words(None, 24)
    '–'
    """
    if rate is None:
        return "–"
    text = str(rate) if rate.images == images else f"{rate} ({rate.images} of {images} images)"
    if not judged or rate.images < max(2, images / 2):
        return text
    if rate.high < 0:
        return f"{text}, fewer bits"
    return f"{text}, more bits" if rate.low > 0 else f"{text}, undecided"


def _ablations(results: Results) -> str:
    rows = [
        [
            fit.name,
            f"{fit.recipe.loss.gamma:g}",
            f"{fit.recipe.loss.sigma:g}",
            *_cells(results, fit.planned.changed, fit.name),
        ]
        for fit in results.fits
        if fit.planned.changed
    ]
    if not rows:
        return ""
    head = (
        "\n## The weights of the loss\n\nEach changed alone; BD-rate beside the same recipe with "
        f"γ = {results.fits[0].recipe.loss.gamma:g} and σ = {results.fits[0].recipe.loss.sigma:g}.\n\n"
    )
    return head + table(["encoder", "γ", "σ", "PSNR-RGB", "MS-SSIM"], rows)


def _times(results: Results) -> str:
    by_name = {one.name: one for one in results.evaluation.encoders}
    pillow = by_name[PILLOW_420.name].milliseconds_per_image
    rows = []
    for fit in results.fits:
        if fit.planned.changed:
            continue
        milliseconds = by_name[fit.name].milliseconds_per_image
        published = 1000 * PUBLISHED["seconds"]
        rows.append(
            [
                fit.name,
                f"{fit.steps_per_second:.2f}",
                f"{milliseconds:.0f}",
                f"{milliseconds / pillow:.0f}",
                f"{milliseconds / published:.2f}",
            ]
        )
    vgg = results.fit("jpeg-vgg19").steps_per_second
    faster = ", ".join(
        f"{100 * (results.fit(name).steps_per_second / vgg - 1):+.0f} % ({name})"
        for name in ("jpeg-resnet152-block1", "jpeg-resnet152-block7")
    )
    return (
        "\n## Time\n\n"
        + table(["recipe", "steps a second", "ms an image", "× Pillow 4:2:0", "× the paper's 126 ms"], rows)
        + f"\nTraining ResNet-152 beside VGG19, in steps a second: {faster}; the paper: "
        f"{100 * PUBLISHED['resnet_faster_than_vgg']:+.0f} %, of a block it does not name.\n\n"
        f"The paper, on a machine that it does not name: {PUBLISHED['seconds']:g} s an encode beside "
        f"{PUBLISHED['seconds_end_to_end']:g} s of an end-to-end codec, "
        f"{PUBLISHED['seconds_end_to_end'] / PUBLISHED['seconds']:.0f} times as long. No such codec is measured here.\n"
    )
