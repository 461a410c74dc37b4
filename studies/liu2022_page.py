"""Tables and text of Liu et al. 2022."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from blemish.jpeg.benchmark.baselines import PILLOW_420, PILLOW_444
from blemish.jpeg.benchmark.records import COMPARED, CONVENTIONS, BdRate
from blemish.jpeg.deep.recipe import DeepRecipe
from blemish.jpeg.quality import Measure
from blemish.report.numbers import counted
from studies.liu2022_plan import CLAIMS, CONTROL, FEWEST_SEEDS, NETWORKS, PUBLISHED, RECIPES, Claim
from studies.liu2022_results import OverSeeds, Results
from studies.protocol import Request, table, unlike_paper


def page(results: Results) -> str:
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
            "from scratch, where the paper begins with ImageNet. Nothing here tells of pretrained attention."
        )
        if NETWORKS["resnet152"] in absent:
            text += (
                " The batch normalisation of ResNet-152 is frozen at its first statistics, so that from scratch it is a "
                "ResNet without normalisation."
            )
        text += "\n\n"
    if request.data is None:
        text += "Generated images are no photographs: they show that everything works, not what is best.\n\n"
    return text + _rates_table(results) + _claims(results) + _ablations(results) + _times(results)


def training_beside_paper(request: Request, recipes: Sequence[DeepRecipe]) -> str:
    """Trainings of ``recipes`` beside the paper's: their differences and the reasons, in words."""
    trainings = [recipe.training for recipe in recipes]
    lambdas = {recipe.lambdas for recipe in recipes}
    sides = [recipe.patch.size for recipe in recipes]
    starts = {recipe.tables.initial for recipe in recipes}
    falling = any(training.schedule != "constant" for training in trainings)
    text = (
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
        text += (
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
    return f"{text}{unlike_paper(request, differing)}"


_MEASURES: tuple[Measure, ...] = ("psnr_rgb", "ms_ssim")
_STARTS = {"annex-k": "as those of JPEG's annex K at quality 50", "uniform": "between 1 and 2"}


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _rates_table(results: Results) -> str:
    evaluation = results.evaluation
    compared = [measure for measure in ("psnr_rgb", "ms_ssim", "lpips") if measure in evaluation.measures]
    anchors = (PILLOW_444.name, PILLOW_420.name)
    columns = ["encoder", "attention from", "best step", "training s"]
    columns += [f"{COMPARED[measure]} beside {anchor}" for anchor in anchors for measure in compared]
    rows = []
    for one in evaluation.encoders:
        fit = next((fit for fit in results.fits if fit.name == one.name), None)
        row = [one.name, "–", "–", "–"]
        if fit is not None:
            training = fit.encoder.file.training
            row[1:] = [fit.start, f"{training.best_step} of {training.steps}", f"{training.seconds:.0f}"]
        row += [
            ""
            if anchor == one.name
            else over_images(results.rate(anchor, one.name, measure), len(evaluation.images))
            for anchor in anchors
            for measure in compared
        ]
        rows.append(row)
    head = (
        "## Bits at equal quality\n\nBD-rate, mean and 95 % interval: negative needs fewer bits. pillow-444 is the "
        "paper's baseline, pillow-420 what a careful user of Pillow gets. PSNR tells what MSE does. A network has "
        "one point a λ on each curve. Best step: the one whose weights are kept, chosen by the held-out loss. Intervals are "
        "over the images, of one training each.\n\n"
    )
    return head + table(columns, rows, left=2)


def _claims(results: Results) -> str:
    names = {fit.name for fit in results.fits}
    claims = [claim for claim in CLAIMS if claim.encoder in names]
    rows = [
        [
            claim.words,
            compared_in_words(claim),
            *_cells(results, claim.anchor, claim.encoder, claim.bpp_range),
        ]
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
        "the control, with learned tables and no attention. Intervals over seeds are Student's, of the means over images "
        f"that the trainings with each seed have; with fewer than {FEWEST_SEEDS} seeds, or with trainings of different "
        "lengths, nothing is concluded, because two trainings of one recipe differ as well.\n\n"
    )
    return head + table(["the paper", "compared", "PSNR-RGB", "MS-SSIM"], rows, left=2)


def compared_in_words(claim: Claim) -> str:
    words = f"{claim.encoder} beside {claim.anchor}"
    if claim.bpp_range is None:
        return words
    low, high = claim.bpp_range
    return f"{words}, {low:g} to {high:g} bits per pixel"


def _cells(
    results: Results, anchor: str, encoder: str, bpp_range: tuple[float, float] | None = None
) -> list[str]:
    images = len(results.evaluation.images)
    return [
        over_seeds(results.over_seeds(anchor, encoder, measure, bpp_range), images) for measure in _MEASURES
    ]


def over_images(rate: BdRate | None, images: int) -> str:
    """A BD-rate with its interval over images, and their number where the curves do not meet on all.

    >>> over_images(None, 24)
    '–'
    """
    if rate is None:
        return "–"
    return str(rate) if rate.images == images else f"{rate} ({rate.images} of {images} images)"


def over_seeds(found: OverSeeds, images: int) -> str:
    """BD-rates over seeds, and what their interval says; of too few seeds the first, without a conclusion.

    >>> over_seeds(OverSeeds([]), 24)
    '–'
    """
    if not found.rates:
        return "–"
    if found.interval is None:
        return f"{over_images(found.rates[0], images)}, {counted(len(found.rates), 'seed')}"
    mean, low, high = found.interval
    text = f"{mean:+.1f} % [{low:+.1f}, {high:+.1f}] over {len(found.rates)} seeds"
    fewest = min(rate.images for rate in found.rates)
    if fewest < images:
        text += f" ({fewest} of {images} images)"
    if not found.same_steps:
        return f"{text}, {found.steps[0]} beside {found.steps[1]} steps"
    if fewest < max(2, images / 2):
        return text
    if high < 0:
        return f"{text}, fewer bits"
    return f"{text}, more bits" if low > 0 else f"{text}, undecided"


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
    published = 1000 * PUBLISHED["seconds"]
    rows = []
    for name, seconds in results.seconds_a_step.items():
        milliseconds = by_name[name].milliseconds_per_image
        rows.append(
            [
                name,
                f"{1 / median(seconds):.2f}",
                beside_vgg(results.seconds_a_step, name),
                f"{milliseconds:.0f}",
                f"{milliseconds / pillow:.0f}",
                f"{milliseconds / published:.2f}",
            ]
        )
    rounds = len(next(iter(results.seconds_a_step.values())))
    columns = [
        "recipe",
        "steps a second",
        "beside VGG19",
        "ms an image",
        "× Pillow 4:2:0",
        "× the paper's 126 ms",
    ]
    return (
        "\n## Time\n\n"
        + table(columns, rows)
        + f"\nSteps a second are of {counted(rounds, 'round')}, in each of which every recipe makes one step in turn; beside "
        "VGG19 stands the median over rounds of the ratio within a round, with its range. The paper has ResNet-152 train "
        f"{100 * PUBLISHED['resnet_faster_than_vgg']:+.0f} % as fast as VGG19, of a block it does not name.\n\n"
        f"The paper, on a machine that it does not name: {PUBLISHED['seconds']:g} s an encode beside "
        f"{PUBLISHED['seconds_end_to_end']:g} s of an end-to-end codec, "
        f"{PUBLISHED['seconds_end_to_end'] / PUBLISHED['seconds']:.0f} times as long. No such codec is measured here.\n"
    )


def beside_vgg(seconds: Mapping[str, Sequence[float]], name: str) -> str:
    """Speed of training beside that of VGG19, in percent more: median and range over rounds.

    >>> beside_vgg({"jpeg-vgg19": [2.0, 3.0, 4.0], "jpeg-lstm": [1.0, 1.0, 2.0]}, "jpeg-lstm")
    '+100 % (+100 to +200)'
    """
    if name == "jpeg-vgg19" or "jpeg-vgg19" not in seconds:
        return "–"
    ratios = [100 * (x / y - 1) for x, y in zip(seconds["jpeg-vgg19"], seconds[name], strict=True)]
    return f"{median(ratios):+.0f} % ({min(ratios):+.0f} to {max(ratios):+.0f})"
