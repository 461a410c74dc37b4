"""Bergmann et al. 2018: four autoencoders on textures, and the residuals of Figure 3.

**Textures.** L2, variational, feature-matching and SSIM autoencoder learn the same good images; the question
is whose map shows the defects.

**Figure 3.** An autoencoder learns checkerboards of several scales and orientations. At test, grey strokes and
dots are painted on new boards. The reconstruction removes them, and draws the boards' edges slightly off. The
question is which residual shows the strokes and dots rather than the edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from blemish.data.image import LoadedImage
from blemish.data.maps import write_image
from blemish.decision import PixelMetrics
from blemish.demo.generated import checkerboard, strokes_and_dots
from blemish.errors import Stopped
from blemish.evaluation.compare import Run, fit_once
from blemish.inspection.detector import Detector
from blemish.layers.pretrained import find_weights
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from blemish.similarity import mse_map, ssim_map, ssim_parts
from studies.baselines import kept_baselines
from studies.bergmann2018_page import FIGURE_3, GABOR_WORDS, PRINTED, PUBLISHED, RECIPES, RESIDUALS, page
from studies.protocol import (
    Allowance,
    Request,
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
    save,
    show,
)
from studies.result import StudyResult

PAPER = "Bergmann, Löwe, Fauser, Sattlegger, Steger 2018, arXiv:1807.02011"
FAMILY = "weave"
EXAMPLES = 3
GABOR = ("loss.1.network=gabor", "loss.1.weight=1")
SIZE = 128
GREY = 0.5
PERIODS = (32, 48, 64)  # two fields, in pixels
ANGLES = (0, 30, 60)  # degrees
# Short training: a larger step than the recipe's, and a falling one.
SHORT = ("training.learning_rate=1e-3", "training.schedule=cosine")
Floats = NDArray[np.float32]


class Length(NamedTuple):
    """Amounts of training and testing."""

    seeds: tuple[int, ...]
    settings: tuple[str, ...]
    """Settings of the four recipes on textures."""
    images: dict[str, int]
    """Numbers and size of the generated textures."""
    boards: int
    board_steps: int
    board_tests: int


# The paper: 200 epochs of 10,000 patches; batches of 32 are ours.
FULL = Length(
    seeds=(0, 1, 2),
    settings=("training.steps=62500", "training.validate_every=2500"),
    images={"good": 200, "test_good": 30, "per_blemish": 10, "size": 256},
    boards=1000,
    board_steps=1000,
    board_tests=100,
)
QUICK = Length(
    seeds=(0,),
    settings=(
        *SHORT,
        "patch.size=64",
        "patch.stride=32",
        "training.steps=1000",
        "training.batch=8",
        "training.validate_every=100",
    ),
    images={"good": 80, "test_good": 16, "per_blemish": 4, "size": 128},
    boards=300,
    board_steps=400,
    board_tests=30,
)
# FULL takes days without a GPU; this is what two cores do in a quarter of an hour.
WITHOUT_GPU = FULL._replace(settings=QUICK.settings, images={**FULL.images, "size": 128})


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
    """Write ``bergmann2018[-DATASET][-quick]`` ``.json``, ``.md``, ``.png`` and ``-curves.png`` to ``out``.

    Figure 3, with ``-figure3.png``, draws its own images, and so is left out where ``data`` is given.
    """
    request = Request("bergmann2018", out, data, quick, seeds, settings, rows)
    length = request.length(QUICK, FULL, WITHOUT_GPU)
    chosen = seeds or length.seeds
    own = {recipe: GABOR if recipe == "fm-ae" and not _pretrained() else () for recipe in RECIPES}
    images = data or generated(request.work, FAMILY, **length.images, observer=observer)
    common = (*length.settings, *settings)
    allowance = Allowance(rows)
    compared = comparison(request.work / "textures", images, own, chosen, common, observer, allowance)
    boards = [] if data else _figure_3(request, length, chosen, observer, allowance)
    plain = override(load_recipe(RECIPES[0]), [*own[RECIPES[0]], *common])
    figures = document(
        request,
        paper=PAPER,
        seeds=chosen,
        length={
            **length._asdict(),
            "images": None if data else {"family": FAMILY, **length.images},
            "figure 3": None if data else SHORT,
        },
        features="VGG16 with ImageNet weights" if _pretrained() else GABOR_WORDS,
        rows=[record(one) for one in compared.runs],
        baselines=kept_baselines(request.work / "textures", images, plain, observer),
        figure_3=[row for board in boards for row in board.rows],
        figure_3_settings=[
            board.detector.recipe.model_dump(mode="json", include={"image", "patch", "alignment", "training"})
            for board in boards
        ],
        planned=allowance.planned,
        missing=allowance.missing,
        published=PUBLISHED,
    )
    drawn = [_draw_textures(request, images, compared.runs)] if compared.runs else []
    curves = histories(compared.runs)
    if boards:
        drawn.append(_draw_figure_3(request.file("-figure3.png"), boards[0].detector))
        curves[f"{FIGURE_3}, Figure 3"] = [board.detector.file.training.history for board in boards]
    if curves:
        drawn.append(draw_curves(request.file("-curves.png"), curves))
    return finish(request, figures, page(request, figures), drawn)


# -- textures ------------------------------------------------------------------------------------------


def _pretrained() -> bool:
    """Whether fm-ae can have the network that its recipe names."""
    return find_weights(str(load_recipe("fm-ae").loss[1].settings["network"])) is not None


def _draw_textures(request: Request, data: Path, runs: Sequence[Run]) -> Path:
    items = choose_examples(data, EXAMPLES)
    seeds: dict[str, int] = {}
    for one in runs:
        seeds.setdefault(one.recipe, one.seed)
    work = request.work / "textures"
    shown = {recipe: show(fitted(work, recipe, seed), items) for recipe, seed in seeds.items()}
    return draw_examples(request.image(".png"), [read_example(item) for item in items], shown)


# -- Figure 3 ------------------------------------------------------------------------------------------


class Boards(NamedTuple):
    """The autoencoder of one seed, and a row of figures for each residual."""

    detector: Detector
    rows: list[dict[str, Any]]


def _figure_3(
    request: Request,
    length: Length,
    seeds: Sequence[int],
    observer: Observer,
    allowance: Allowance | None = None,
) -> list[Boards]:
    allowance = allowance or Allowance(None)
    work = request.work / "figure3"
    _write_boards(work / "good", length.boards)
    tests = [defective_board(index) for index in range(length.board_tests)]
    found = []
    for seed in seeds:
        there = (work / f"{FIGURE_3}-{seed}" / "model.json").is_file()
        if not allowance.take(f"Figure 3, seed {seed}", is_finished=there):
            continue
        settings = [
            *SHORT,
            f"training.steps={length.board_steps}",
            *request.settings,
            f"training.seed={seed}",
        ]
        detector = fit_once(
            work / "good",
            override(load_recipe(FIGURE_3), settings),
            work / f"{FIGURE_3}-{seed}",
            title=f"Figure 3: {FIGURE_3}, seed {seed}",
            observer=observer,
        )
        observer.stage(f"Measuring the residuals of {FIGURE_3}, seed {seed}, on {length.board_tests} boards")
        found.append(Boards(detector, _measure(detector, tests, seed, observer)))
    return found


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
            write_image(path, good_board(seed)[None])


def residuals(board: Floats, reconstruction: Floats) -> dict[str, Floats]:
    """The maps of Figure 3 (c) and (d), each (H, W) and at least 0; SSIM and its parts as 1 − similarity."""
    x, y = (torch.from_numpy(np.ascontiguousarray(image))[None, None] for image in (board, reconstruction))
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


def _reconstruct(detector: Detector, board: Floats) -> Floats:
    image = LoadedImage(Path("board"), np.rint(board[None] * 255).astype(np.uint8))
    reconstruction = detector.measure(image).reconstruction
    assert reconstruction is not None
    found: Floats = reconstruction[0]
    return found


def _measure(
    detector: Detector,
    boards: list[tuple[Floats, NDArray[np.bool_]]],
    seed: int,
    observer: Observer,
) -> list[dict[str, Any]]:
    metrics = {name: PixelMetrics() for name in RESIDUALS}
    for done, (board, mask) in enumerate(boards, start=1):
        if observer.should_stop():
            raise Stopped("stopped while measuring residuals; finished fits are kept")
        for name, values in residuals(board, _reconstruct(detector, board)).items():
            metrics[name].update(values, mask)
        observer.count(done, len(boards))
    rows = []
    for name, metric in metrics.items():
        result = metric.result()
        rows.append(
            {
                "seed": seed,
                "residual": name,
                **{key: getattr(result, key) for key in ("auroc", "ap", "f1max", "aupro_30")},
                "intervals": result.intervals,
            }
        )
    return rows


def _draw_figure_3(path: Path, detector: Detector) -> Path:
    """Laid out like the paper's figure; each residual on its own 0 to maximum."""
    from matplotlib.figure import Figure

    image, mask = defective_board(0)
    reconstruction = _reconstruct(detector, image)
    greys = {"board": image, "strokes and dots": mask, FIGURE_3: reconstruction}
    maps = residuals(image, reconstruction)
    figure = Figure(figsize=(16.5, 2.6), layout="constrained")
    axes = figure.subplots(1, len(greys) + len(maps))
    for axis, (title, values) in zip(axes, (greys | maps).items(), strict=True):
        grey = title in greys
        axis.imshow(values, cmap="gray" if grey else "inferno", vmin=0, vmax=1 if grey else None)
        axis.set_title(f"{title} residual" if title in RESIDUALS[:2] else title, fontsize=10)
        axis.set_axis_off()
    return save(figure, path)
