"""Tables and text of Xie et al. 2019."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from blemish.data.scene_reader import SceneReader
from blemish.recipes import Recipe, load_recipe
from blemish.report.numbers import counted
from studies.protocol import Request, spread, table
from studies.xie2019_measures import CROSSED_PATCHES, WINDOW, Comparison, Results, parameters
from studies.xie2019_rows import CLAIMS, ROWS


def page(
    results: Results,
    recipes: Mapping[str, Recipe],
    readers: Sequence[SceneReader],
    comparisons: Sequence[Comparison],
) -> str:
    request, tested = results.request, results.tested
    machines = sorted({fit.detector.file.training.machine_words for fit in results.fits})
    channels = sum(modality.channels for modality in results.modalities)
    text = (
        f"# Xie et al. 2019: partial convolutions and several sensors on "
        f"{request.dataset or 'generated paintings'}\n\n"
        f"{counted(len(readers), 'scene')}, {counted(len(results.modalities), 'sensor')}, "
        f"{channels} channels. Of each scene the left half is for training and the right half for test, as in the paper; "
        "of the left half 60 % of the columns train, the rest is held out. "
        f"SSIM: mean over {len(tested.halves.pixels)} test patches and over the modalities"
    )
    if len(tested.unseen.pixels):
        text += (
            f", apart for {len(tested.unseen.pixels)} patches of "
            f"{', '.join(tested.unseen.names)}, of which nothing was trained on"
        )
    text += f"; mean over {counted(len(results.seeds), 'seed')} (smallest to largest). Trained on {'; '.join(machines)}.\n\n"
    text += _training(request, recipes) + "\n\n"
    if any(modality.is_grey for modality in results.modalities):
        text += (
            "SSIM of grey, which the paper takes of sensors with three channels, leaves the colours free: what is "
            "reconstructed of them has the right lights and shades, and any colour.\n\n"
        )
    if request.data is None:
        text += (
            "Generated paintings show that everything works, and where sensors disagree; their textures are simpler "
            "than real ones.\n\n"
        )
    else:
        text += (
            "The paper's panels are of the Ghent Altarpiece: its figures are of other images than ours.\n\n"
        )
    return text + _tables(results) + _claims(comparisons) + _corners(results) + _crossed(results)


def rises_section(words: str) -> str:
    """A section on trainings that did harm; empty without ``words``."""
    return f"\n## Trainings that did harm\n\n{words}" if words else ""


def baselines_section(figures: Mapping[str, Any]) -> str:
    """A section on reconstructions and predictions without a network, of the figures of the study."""
    lines = [
        [
            one["name"],
            f"{one['ssim']:.4f}",
            "–" if one["unseen"] is None else f"{one['unseen']:.4f}",
            f"{one['local_ssim'][0]:.4f}",
        ]
        for one in figures["baselines"]
    ]
    return (
        "\n## Without a network\n\n"
        "The same figures where each channel of a patch is reconstructed as its median, as itself blurred by 4 pixels, or as "
        "that of the mean training patch.\n\n"
        + table(["reconstruction", "SSIM", "unseen", "corners"], lines)
        + _from_others(figures)
    )


def _from_others(figures: Mapping[str, Any]) -> str:
    """Each modality as the others predict it: every network that was asked, a constant and linear regression."""
    columns: dict[str, list[Mapping[str, float | None]]] = {}
    for row in figures["rows"]:
        if row["ssim_from_others"] is not None:
            columns.setdefault(row["row"], []).append(row["ssim_from_others"])
    columns |= {name: [values] for name, values in figures["baselines_from_others"].items()}
    lines = [
        [one["name"], *(spread([values[one["name"]] for values in found], 3) for found in columns.values())]
        for one in figures["modalities"]
    ]
    return (
        "\nA modality that was taken away, SSIM on the same patches: predicted by the network from the others, as the mean of "
        "each patch (constant), and by linear regression of its pixels on those of the others, fitted on training patches.\n\n"
        + table(["modality", *columns], lines)
    )


def _training(request: Request, recipes: Mapping[str, Recipe]) -> str:
    trainings = [recipe.training for recipe in recipes.values()]
    own = [load_recipe(row.recipe).training for row in ROWS]
    same = all(
        (a.learning_rate, a.schedule, a.decay) == (b.learning_rate, b.schedule, b.decay)
        for a, b in zip(trainings, own, strict=True)
    )
    steps, batches = ({getattr(one, key) for one in trainings} for key in ("steps", "batch"))
    rates = "the paper's learning rates, in the table" if same else "learning rates as in the table"
    return (
        f"Ours: patches of {recipes[ROWS[0].name].patch.size} pixels, at most {_span(steps)} steps of batch "
        f"{_span(batches)}, Adam with {rates}. The paper: patches of 32 pixels, 2.6 million of them, until convergence; "
        "it gives neither batch nor steps, neither kernels nor the window of SSIM. "
        + (
            "Ours is short, as --quick asks: models that learn quickly are ahead of models that end well."
            if request.quick
            else "What is short of convergence favours models that learn quickly."
        )
    )


def _span(values: set[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _tables(results: Results) -> str:
    text = ""
    columns = ["model", "weights", "learning rate", "SSIM", "unseen", "corners", "paper: SSIM", "training s"]
    for head, shown in (
        ("Table 1: stacked", [row for row in ROWS if 1 in row.tables]),
        ("Table 2: stacked and separated", [row for row in ROWS if 2 in row.tables]),
        ("Not in the paper", [row for row in ROWS if not row.tables]),
    ):
        rows = []
        for row in shown:
            fits = results.of(row.name)
            training = fits[0].detector.recipe.training
            rate = f"{training.learning_rate:g}"
            rate += f", decay {training.decay:g}" if training.decay else ""
            unseen = [float(fit.unseen.ssim.mean()) if len(fit.unseen.ssim) else None for fit in fits]
            rows.append(
                [
                    f"{row.words} (`{row.recipe}`)",
                    f"{parameters(fits[0]):,}",
                    rate,
                    spread([float(fit.halves.ssim.mean()) for fit in fits], 4),
                    spread(unseen, 4),
                    spread([float(fit.halves.local[:, 0].mean()) for fit in fits], 4),
                    "–" if row.published is None else f"{row.published:.4f}",
                    spread([fit.detector.file.training.seconds for fit in fits], 0),
                ]
            )
        text += f"## {head}\n\n" + table(columns, rows) + "\n"
    return text


def _claims(comparisons: Sequence[Comparison]) -> str:
    rows = [
        [
            claim.words,
            f"{claim.above} less {claim.below}",
            comparison.in_words(),
            f"{comparison.seeds} of {comparison.of_seeds}",
            f"{comparison.panels} of {comparison.of_panels}",
        ]
        for claim, comparison in zip(CLAIMS, comparisons, strict=True)
    ]
    head = (
        "## What the paper says, and what is found here\n\nDifference of SSIM on the same test patches, with a 95 % "
        "bootstrap interval over seeds and patches, and in how many seeds and scenes it is above 0. Patches of one scene "
        "resemble each other, so the interval is of these scenes, not of paintings at large.\n\n"
    )
    return head + table(["the paper", "compared", "difference", "seeds", "scenes"], rows, left=2)


def _corners(results: Results) -> str:
    distances = results.by_distance(ROWS[0].name).shape[1]
    taken = [d for d in (0, 2, 4, 8, 12, 16, 24) if d < distances]
    rows = [
        [row.words, *(f"{results.by_distance(row.name)[:, d].mean():.4f}" for d in taken)] for row in ROWS
    ]
    head = (
        f"\n## Local SSIM against the distance to the corners (Figure 6)\n\nSSIM of {WINDOW} × {WINDOW} windows, d pixels "
        "from the nearest corner along both sides together; the JSON has every d.\n\n"
    )
    return head + table(["model", *(f"d = {d}" for d in taken)], rows)


def _crossed(results: Results) -> str:
    asked = [row for row in ROWS if any(fit.crossed is not None for fit in results.of(row.name))]
    if not asked:
        return ""
    columns, rows = ["modality"], []
    for row in asked:
        columns += [f"{row.name}: from all", "from the others"]
    for place, modality in enumerate(results.modalities):
        cells = [modality.name]
        for row in asked:
            fits = results.of(row.name)
            cells.append(f"{fmean(float(fit.halves.ssim[:, place].mean()) for fit in fits):.3f}")
            crossed = [float(fit.crossed[:, place].mean()) for fit in fits if fit.crossed is not None]
            cells.append(spread(crossed, 3))
        rows.append(cells)
    head = (
        "\n## Each modality from the others\n\nSSIM of a modality that was taken away from the input, on "
        f"{CROSSED_PATCHES} of the test patches at most, beside that of its own reconstruction on all. Not in the paper; modality dropout trains for it.\n\n"
    )
    return head + table(columns, rows)
