"""Bergmann et al. 2018, Figure 3: what the L2 residual and SSIM with its parts make of one reconstruction.

An autoencoder learns checkerboards of several scales and orientations. At test, grey strokes and dots are
painted on new boards. The reconstruction removes them, and draws the boards' edges slightly off. The
question is which residual shows the strokes and dots rather than the edges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from blemish.detect import PixelMetrics
from blemish.errors import Stopped
from blemish.fitting import CHECKPOINT, fit
from blemish.images import Picture, write_json, write_picture, write_text
from blemish.images.generated import checkerboard, strokes_and_dots
from blemish.inspector import MODEL_FILE, Inspector, load, versions
from blemish.observer import Observer
from blemish.similarity import mse_map, ssim_map, ssim_parts
from blemish.studies.result import StudyResult

SIZE = 128
GREY = 0.5
PERIODS = (32, 48, 64)  # two fields, in pixels
ANGLES = (0, 30, 60)  # degrees
RECIPES = ("l2-ae",)  # as in the figure: residuals are compared on one reconstruction
# Short training: a larger step than the recipes', and a falling one.
SETTINGS = ("training.learning_rate=1e-3", "training.schedule=cosine")
# The text prints c1 = 0.01 and c2 = 0.03; Wang et al. 2004, whom it cites, square them.
PRINTED = "SSIM, printed constants"
RESIDUALS = ("L2", "SSIM", "luminance", "contrast", "structure", PRINTED)
Floats = NDArray[np.float32]


class Length(NamedTuple):
    """How much is trained and tested."""

    boards: int
    steps: int
    tests: int
    seeds: tuple[int, ...]


FULL = Length(boards=1000, steps=1000, tests=100, seeds=(0, 1, 2))
QUICK = Length(boards=300, steps=400, tests=30, seeds=(0,))


def run(out: Path, *, quick: bool, observer: Observer) -> StudyResult:
    """Write ``bergmann2018.json``, ``.md`` and ``.png`` (with ``-quick`` in the name) to ``out``."""
    length = QUICK if quick else FULL
    stem = "bergmann2018-quick" if quick else "bergmann2018"
    work = out / f"{stem}-work"
    _write_boards(work / "good", length.boards)
    boards = [defective_board(index) for index in range(length.tests)]
    rows: list[dict[str, Any]] = []
    shown: dict[str, Inspector] = {}
    for recipe in RECIPES:
        for seed in length.seeds:
            inspector = _fitted(work, recipe, seed, length, observer)
            shown.setdefault(recipe, inspector)
            observer.stage(f"Measuring the residuals of {recipe}, seed {seed}, on {length.tests} boards")
            rows += _measure(inspector, boards, recipe, seed, observer)
    figures = {
        "command": f"blemish study bergmann2018{' --quick' if quick else ''}",
        "paper": "Bergmann, Löwe, Fauser, Sattlegger, Steger 2018, arXiv:1807.02011, Figure 3",
        "length": length._asdict(),
        "settings": SETTINGS,
        "training": {
            recipe: inspector.file.training.model_dump(mode="json", include={"steps", "best_step", "machine"})
            for recipe, inspector in shown.items()
        },
        "rows": rows,
        "versions": versions(),
    }
    table = _table(rows)
    files = tuple(out / f"{stem}.{suffix}" for suffix in ("json", "md", "png"))
    write_json(files[0], figures)
    write_text(files[1], table)
    _draw(files[2], shown, boards[0])
    return StudyResult(figures, table, files)


def good_board(seed: int) -> Floats:
    """A board (SIZE, SIZE) of one of three scales and orientations, with a random phase."""
    rng = np.random.default_rng((1, seed))
    return checkerboard(
        SIZE,
        period=float(rng.choice(PERIODS)),
        angle=float(rng.choice(ANGLES)),
        phase=(float(rng.random()), float(rng.random())),
        dark=0.1,
        light=0.9,
    )


def defective_board(seed: int) -> tuple[Floats, NDArray[np.bool_]]:
    """A board that training has not seen, with grey strokes and dots, and where they are."""
    cover = strokes_and_dots(SIZE, seed=seed)
    board = good_board(10**6 + seed)
    painted: Floats = board * (1 - cover) + np.float32(GREY) * cover
    return painted, cover > 0.5


def _write_boards(folder: Path, count: int) -> None:
    for seed in range(count):
        path = folder / f"{seed:04}.png"
        if not path.exists():
            write_picture(path, good_board(seed)[None])


def _fitted(work: Path, recipe: str, seed: int, length: Length, observer: Observer) -> Inspector:
    model = work / f"{recipe}-{seed}"
    if (model / MODEL_FILE).exists():
        return load(model)
    return fit(
        work / "good",
        recipe,
        settings=[*SETTINGS, f"training.steps={length.steps}", f"training.seed={seed}"],
        out=model,
        resume=(model / CHECKPOINT).exists(),
        observer=observer,
    )


def residuals(board: Floats, reconstruction: Floats) -> dict[str, Floats]:
    """The maps of Figure 3 (c) and (d), each (H, W) and at least 0; SSIM and its parts as 1 − similarity."""
    x, y = (
        torch.from_numpy(np.ascontiguousarray(picture))[None, None] for picture in (board, reconstruction)
    )
    parts = ssim_parts(x, y, data_range=1.0)
    maps = {
        "L2": mse_map(x, y, data_range=1.0),
        "SSIM": 1 - ssim_map(x, y, data_range=1.0),
        "luminance": 1 - parts.luminance,
        "contrast": 1 - parts.contrast,
        "structure": 1 - parts.structure,
        PRINTED: 1 - ssim_map(x, y, data_range=1.0, constants="bergmann"),
    }
    return {name: values[0, 0].clamp(min=0).numpy() for name, values in maps.items()}


def _reconstruct(inspector: Inspector, board: Floats) -> Floats:
    picture = Picture(Path("board"), np.rint(board[None] * 255).astype(np.uint8))
    reconstruction: Floats = inspector.measure(picture).reconstruction[0]
    return reconstruction


def _measure(
    inspector: Inspector,
    boards: list[tuple[Floats, NDArray[np.bool_]]],
    recipe: str,
    seed: int,
    observer: Observer,
) -> list[dict[str, Any]]:
    metrics = {name: PixelMetrics() for name in RESIDUALS}
    for done, (board, mask) in enumerate(boards, start=1):
        if observer.should_stop():
            raise Stopped("stopped while measuring residuals; finished fits are kept")
        for name, values in residuals(board, _reconstruct(inspector, board)).items():
            metrics[name].update(values, mask)
        observer.count(done, len(boards))
    rows = []
    for name, metric in metrics.items():
        result = metric.result()
        rows.append(
            {
                "autoencoder": recipe,
                "seed": seed,
                "residual": name,
                **{key: getattr(result, key) for key in ("auroc", "ap", "f1max", "aupro_30")},
                "intervals": result.intervals,
            }
        )
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        "# Bergmann et al. 2018, Figure 3: residuals on checkerboards",
        "",
        f"Pixel figures of the strokes and dots, mean over {len(seeds)} seed(s) (smallest to largest). "
        "The paper shows the maps of the L2 autoencoder and gives no figures.",
        "",
        "| autoencoder | residual | AUROC | AP | AUPRO 0.3 |",
        "|---|---|---:|---:|---:|",
    ]
    for recipe in RECIPES:
        for residual in RESIDUALS:
            chosen = [row for row in rows if row["autoencoder"] == recipe and row["residual"] == residual]
            cells = [_spread([row[key] for row in chosen]) for key in ("auroc", "ap", "aupro_30")]
            lines.append(f"| {recipe} | {residual} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def _draw(path: Path, inspectors: dict[str, Inspector], board: tuple[Floats, NDArray[np.bool_]]) -> None:
    """One row an autoencoder, laid out like the paper's figure; each residual on its own 0 to maximum."""
    from matplotlib.figure import Figure

    from blemish.images import atomic_path

    picture, mask = board
    figure = Figure(figsize=(16.5, 2.2 * len(inspectors) + 0.4), layout="constrained")
    axes = figure.subplots(len(inspectors), 3 + len(RESIDUALS), squeeze=False)
    for row, (recipe, inspector) in zip(axes, inspectors.items(), strict=True):
        reconstruction = _reconstruct(inspector, picture)
        maps = residuals(picture, reconstruction)
        panels = [("board", picture), ("blemishes", mask), (f"{recipe}", reconstruction), *maps.items()]
        for axis, (title, values) in zip(row, panels, strict=True):
            grey = title in ("board", "blemishes", recipe)
            axis.imshow(values, cmap="gray" if grey else "inferno", vmin=0, vmax=1 if grey else None)
            axis.set_title(f"{title} residual" if title in RESIDUALS[:2] else title, fontsize=10)
            axis.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
