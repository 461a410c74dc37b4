"""Rádli & Czúni 2022: an autoencoder behind a spatial transformer that normalises orientation, Tables 3 to 8.

Four columns: the plain autoencoder, and with a transformer that is pretrained and frozen, trained jointly from
random weights, or pretrained and fine-tuned. The first part is the paper's: patches of a data set, how well good
ones are reconstructed, and how well the residual shows where bad ones are bad. The second part asks the same of
one generated cloth that lies at every angle, where it is known what alignment should do.

Unlike the paper, which also turns its training patches at random, ours are only cropped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from blemish.data.datasets import read_labelled, read_mask
from blemish.data.image import read_image, resize
from blemish.data.maps import write_image
from blemish.decision import PixelMetrics
from blemish.demo.generated import strokes_and_dots
from blemish.errors import FileError, Stopped
from blemish.evaluation.compare import fit_once, good_images
from blemish.inspection.detector import Detector
from blemish.layers.rotation import gradient_loss, loss_by_angle, onto_canvas
from blemish.models.alignment import Rotation
from blemish.observer import Observer
from blemish.preprocessing.tiling import TilePlan
from blemish.recipes import Recipe, load_recipe, override
from blemish.similarity import MSE, SSIM
from studies.protocol import (
    Example,
    PublishedTraining,
    Request,
    Shown,
    beside_paper,
    document,
    draw_curves,
    draw_examples,
    finish,
    save,
    spread,
    table,
    training_in_words,
)
from studies.result import StudyResult

PAPER = (
    "Rádli & Czúni 2022, Improving the Efficiency of Autoencoders for Visual Defect Detection with Orientation "
    "Normalization, VISAPP"
)
TRAINING = PublishedTraining(
    side=128,
    learning_rate=2e-4,
    steps=62_500,
    words="patches of 128 × 128 pixels of images resized to 256; 200 epochs of 10,000 patches, which are 62500 "
    "steps of batch 32, transformers after 12500 of their own; Adam with a learning rate of 0.0002; 5 repeats",
)


class Column(NamedTuple):
    """One of what is compared: a recipe, with what is set of it before all else."""

    title: str
    recipe: str
    settings: tuple[str, ...] = ()


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
PRINTED = 4
COLOURS = dict(zip(COLUMNS, ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple"), strict=True))
PRETRAINED = ("frozen", "finetuned")
"""Columns, and strategies of their alignment."""
RESIDUALS = ("SSIM", "MSE")
CURVES = {"auroc": "ROC", "ap": "PRC", "iou_auc": "IoU"}
DEFECTS = {"mvtec_screw": "thread_top", "screw": "thread_top"}
"""The paper tests the screws of this defect type alone."""

Floats = NDArray[np.float32]
Masks = NDArray[np.bool_]


class Published(NamedTuple):
    """What Tables 3 to 8 print of one class, each in the order of the first columns."""

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


class Length(NamedTuple):
    """How much is trained and tested; the cloth has settings of its own."""

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
    seeds=(0, 1, 2),
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
EXAMPLES = 3
CURVE_ANGLES = 181
BATCH = 16


class Tests(NamedTuple):
    """Patches that are measured."""

    good: Floats
    """(G, C, P, P) in [0, 1], held out."""
    bad: Floats
    """(B, C, P, P)."""
    masks: Masks
    """(B, P, P)."""
    angles: Floats | None
    """(G,) radians at which the good ones lie, where that is known."""


class Part(NamedTuple):
    """One set of images with its fits."""

    title: str
    good: Path
    work: Path
    settings: tuple[str, ...]
    pretraining: int


def run(
    out: Path,
    *,
    data: Path | None,
    quick: bool,
    seeds: tuple[int, ...] | None,
    settings: tuple[str, ...],
    observer: Observer,
) -> StudyResult:
    """Write ``radli2022[-DATASET][-quick]`` ``.json``, ``.md`` and images to ``out``.

    The cloth is always run. ``settings`` of images and patches are of the data set alone, others of both.
    """
    request = Request("radli2022", out, data, quick, seeds, settings)
    length = request.length(QUICK, FULL, WITHOUT_GPU)
    chosen = seeds or length.seeds
    parts: dict[str, Part] = {}
    if data is not None:
        parts["dataset"] = Part(
            str(request.dataset),
            good_images(data),
            request.work / "dataset",
            (*length.settings, *settings),
            length.pretraining,
        )
    side = length.cloth_size
    parts["cloth"] = Part(
        "Cloth at every angle",
        _write_cloths(request.work, length.cloth_good, side, observer),
        request.work / "cloth",
        (
            f"patch.size={side}",
            f"patch.stride={side}",
            *length.cloth_settings,
            *(one for one in settings if not one.startswith(("image.", "patch."))),
        ),
        length.cloth_pretraining,
    )

    rows: list[dict[str, Any]] = []
    drawn: list[Path] = []
    tested: dict[str, tuple[Part, Tests]] = {}
    for name, part in parts.items():
        detectors = {
            (column, seed): _fitted(part, column, seed, observer) for seed in chosen for column in COLUMNS
        }
        if data is not None and name == "dataset":
            tests = dataset_tests(detectors["plain", chosen[0]], data, DEFECTS.get(part.title))
        else:
            tests = _cloth_tests(length.cloth_tests, side)
        tested[name] = (part, tests)
        observer.stage(f"Measuring {len(detectors)} networks on {part.title}")
        for done, ((column, seed), detector) in enumerate(detectors.items(), start=1):
            if observer.should_stop():
                raise Stopped("stopped while measuring; finished fits are kept")
            rows.append({"part": name, "column": column, "seed": seed, **_measure(detector, tests)})
            observer.count(done, len(detectors))
        shown = {column: detectors[column, chosen[0]] for column in COLUMNS}
        ending = "" if name == "dataset" else "-cloth"
        drawn += _draw(request, ending, shown, detectors, tests)
    category = published_category(request.dataset)
    figures = document(
        request,
        paper=PAPER,
        seeds=chosen,
        length=length._asdict(),
        rows=rows,
        claims=[_claim(rows, name) for name in parts],
        published={
            "source": "Tables 3 to 8",
            "columns": list(COLUMNS)[:PRINTED],
            "category": category,
            "tables": {name: published._asdict() for name, published in PUBLISHED.items()},
        },
    )
    return finish(request, figures, _page(request, rows, tested, chosen, category), drawn)


def published_category(dataset: str | None) -> str | None:
    """The class of the paper that a data set's folder is named after.

    >>> published_category("mvtec_screw"), published_category("texture1"), published_category("magnetic_tile")
    ('screw', 'texture_1', None)
    """
    words = re.sub(r"[^a-z0-9]", "", (dataset or "").lower())
    return next((name for name in PUBLISHED if name.replace("_", "") in words), None)


# -- the cloth -----------------------------------------------------------------------------------------


class Cloth(NamedTuple):
    """A generated cloth, what is wrong with it, and how it lies."""

    image: Floats
    """(H, W) in [0, 1], in whole grey levels."""
    mask: Masks
    """(H, W)."""
    angle: float
    """Radians counter-clockwise from the pose in which its ribs lie horizontally."""


RIB, YARN = 20.0, 15.0
"""Periods in pixels."""
CLOTH_DEFECTS = ("stroke", "slip", "worn")


def draw_cloth(seed: int, size: int, *, defect: str | None = None) -> Cloth:
    """A ribbed cloth, drawn at an angle from 0 to 360°, so that it was never resampled.

    Ribs of 20 pixels with one steep flank, crossed by fainter yarns; what varies is the angle, the phases of
    ribs and yarns, a little light and noise.

    Parameters
    ----------
    seed: the scene; the same one has the same cloth with and without a defect.
    defect: one of ``CLOTH_DEFECTS``: a faint stroke and dots, ribs out of step, or ribs worn flat.
    """
    rng = np.random.default_rng((2022, seed))
    angle = float(rng.uniform(0, 2 * math.pi))
    rib_phase, yarn_phase = rng.uniform(0, 2 * math.pi, 2)
    light = rng.uniform(0.95, 1.05)
    noise = 0.015 * rng.standard_normal((size, size))
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    along, across = (
        math.cos(angle) * x - math.sin(angle) * y,
        math.sin(angle) * x + math.cos(angle) * y,
    )

    def draw(step: NDArray[Any], height: NDArray[Any]) -> NDArray[Any]:
        rib = 2 * math.pi * across / RIB + rib_phase + step
        yarn = 2 * math.pi * along / YARN + yarn_phase
        ribs = 0.20 * np.sin(rib) + 0.07 * np.sin(2 * rib + 0.8)
        return cast("NDArray[Any]", light * (0.5 + height * (ribs + 0.06 * np.sin(yarn) * np.cos(rib))))

    none = np.zeros((size, size))
    clean = draw(none, none + 1)
    if defect is None:
        return Cloth(_levels(clean + noise), np.zeros((size, size), bool), angle)
    where = np.random.default_rng((2022, seed, 1))
    centre = where.uniform(-0.3, 0.3, 2) * size
    blob = np.exp(-0.5 * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (0.08 * size) ** 2)
    if defect == "stroke":
        cover = strokes_and_dots(size, seed=seed, strokes=1, dots=1)
        flawed, mask = clean + 0.5 * cover * (0.85 - clean), cover > 0.5
    elif defect == "slip":
        flawed, mask = draw(2.0 * blob, none + 1), blob > 0.3
    else:
        flawed, mask = draw(none, 1 - 0.9 * blob), blob > 0.3
    return Cloth(_levels(flawed + noise), mask, angle)


def _levels(image: NDArray[Any]) -> Floats:
    levels: Floats = (np.rint(image.clip(0, 1) * 255) / 255).astype(np.float32)
    return levels


def _write_cloths(work: Path, count: int, size: int, observer: Observer) -> Path:
    folder = work / f"cloths-{count}-{size}"
    observer.stage("Drawing the cloths")
    for seed in range(count):
        path = folder / f"{seed:04}.png"
        if not path.exists():
            write_image(path, draw_cloth(seed, size).image[None])
    return folder


def _cloth_tests(count: int, size: int) -> Tests:
    good = [draw_cloth(10**6 + index, size) for index in range(count)]
    bad = [
        draw_cloth(2 * 10**6 + index, size, defect=CLOTH_DEFECTS[index % len(CLOTH_DEFECTS)])
        for index in range(count)
    ]
    return Tests(
        good=np.stack([one.image[None] for one in good]),
        bad=np.stack([one.image[None] for one in bad]),
        masks=np.stack([one.mask for one in bad]),
        angles=np.array([one.angle for one in good], np.float32),
    )


# -- fits and measurements -----------------------------------------------------------------------------


def _asked(part: Part, column: str, seed: int) -> Recipe:
    """The recipe of ``column`` with all that is set; only pretrained transformers take steps of pretraining."""
    chosen = COLUMNS[column]
    settings = [
        *chosen.settings,
        f"alignment.pretraining={part.pretraining}",
        *part.settings,
        f"training.seed={seed}",
    ]
    kept = [one for one in settings if column in PRETRAINED or not one.startswith("alignment.pretraining")]
    return override(load_recipe(chosen.recipe), kept)


def _fitted(part: Part, column: str, seed: int, observer: Observer) -> Detector:
    return fit_once(
        part.good,
        _asked(part, column, seed),
        part.work / f"{column}-{seed}",
        title=f"{part.title}: {COLUMNS[column].title}, seed {seed}",
        observer=observer,
    )


def dataset_tests(detector: Detector, data: Path, defect: str | None) -> Tests:
    """Patches side by side of the good and the bad test images, reduced as for training.

    Parameters
    ----------
    defect: the only type of bad images that counts; None for all.
    """
    good: list[Floats] = []
    bad: list[Floats] = []
    masks: list[Masks] = []
    side = detector.recipe.patch.size
    for item in read_labelled(data).items:
        if item.split == "train" or not (item.is_good or (item.mask and defect in (None, item.label))):
            continue
        image = read_image(item.path)
        x = detector.file.preparation.apply(image).pixels
        plan = TilePlan(x.shape[1:], (side, side), (side, side))
        for _, patches in plan.tiles(x, batch=len(plan)):
            (good if item.is_good else bad).extend(patches)
        if not item.is_good and item.mask:
            mask = read_mask(item.mask, size=image.size)[None].astype(np.float32)
            reduced = resize(mask, x.shape[1:]) if mask.shape[1:] != x.shape[1:] else mask
            for _, patches in plan.tiles(reduced, batch=len(plan)):
                masks.extend(patches[:, 0] > 0.5)
    if not good or not bad:
        which = "no good test images" if not good else "no bad test images with masks"
        raise FileError(data, f"has {which}", "give a data set with both")
    return Tests(np.stack(good), np.stack(bad), np.stack(masks), None)


def _reconstruct(detector: Detector, images: Floats) -> Floats:
    """(N, C, P, P) in [0, 1]."""
    with torch.inference_mode():
        done = [
            detector.autoencoder(torch.from_numpy(images[first : first + BATCH])).reconstruction.clamp(0, 1)
            for first in range(0, len(images), BATCH)
        ]
    reconstructions: Floats = torch.cat(done).numpy()
    return reconstructions


def residuals(x: Floats, y: Floats) -> dict[str, Floats]:
    """The maps (N, P, P) of both residuals, at least 0."""
    pair = torch.from_numpy(x), torch.from_numpy(y)
    return {
        name: measure(data_range=1.0).distance_map(*pair)[:, 0].numpy()
        for name, measure in (("SSIM", SSIM), ("MSE", MSE))
    }


def _measure(detector: Detector, tests: Tests) -> dict[str, Any]:
    """One network's figures: reconstruction of good patches, areas of bad ones, spread of the pose."""
    good = _reconstruct(detector, tests.good)
    similarity = 1 - SSIM(data_range=1.0).distance(torch.from_numpy(tests.good), torch.from_numpy(good))
    maps = residuals(tests.bad, _reconstruct(detector, tests.bad))
    areas: dict[str, Any] = {}
    for name, values in maps.items():
        metrics = PixelMetrics()
        for values_of_one, mask in zip(values, tests.masks, strict=True):
            metrics.update(values_of_one, mask)
        result = metrics.result()
        areas[name] = {key: getattr(result, key) for key in CURVES} | {
            "intervals": {key: result.intervals.get(key) for key in CURVES}
        }
    training = detector.file.training
    return {
        "mse": float(np.mean((255 * (tests.good - good)) ** 2)),
        "ssim": float(similarity.mean()),
        "areas": areas,
        "pose": pose(detector, tests.good, tests.angles)._asdict(),
        "steps": training.steps,
        "best_step": training.best_step,
        "training_seconds": training.seconds,
        "machine": training.machine_words,
        "settings": detector.recipe.model_dump(
            mode="json", include={"image", "patch", "alignment", "training", "loss"}
        ),
    }


class Pose(NamedTuple):
    """How alike images lie after alignment, up to half turns; all in degrees."""

    spread: float
    """Circular standard deviation of the pose; near 0 where all lie alike."""
    misses: float
    """Share of images more than 15° from the mean pose."""
    unturned: float
    """Share of images in which no orientation dominates, so that they are left as they are."""
    poses: tuple[float, ...]
    """Of each image, from the mean pose, -90 to 90."""


def pose(detector: Detector, images: Floats, angles: Floats | None) -> Pose:
    """How ``detector`` lays ``images`` (N, C, P, P).

    Where the ``angles`` (N,) at which they lie are not known, they are measured against the angle at which
    each image's gradient loss is least.
    """
    aligner = _aligner(detector)
    with torch.inference_mode():
        x = torch.from_numpy(images)
        turned = aligner.angle(x)
        lain = -_steepest(aligner, x) if angles is None else torch.from_numpy(angles)
        unturned = aligner.modulation(x) < aligner.least_modulation
        if aligner.strategy not in PRETRAINED:
            unturned = torch.zeros_like(unturned)
        # Up to half turns: angles are doubled for the mean, and halved after.
        twice = 2 * (turned + lain)
        mean = torch.polar(torch.ones_like(twice), twice).mean()
        off = torch.remainder(twice - mean.angle() + math.pi, 2 * math.pi) - math.pi
        return Pose(
            spread=math.degrees(math.sqrt(-2 * math.log(min(1.0, max(float(mean.abs()), 1e-9)))) / 2),
            misses=float((off.abs() / 2 > math.radians(15)).float().mean()),
            unturned=float(unturned.float().mean()),
            poses=tuple(torch.rad2deg(off / 2).tolist()),
        )


def _aligner(detector: Detector) -> Rotation:
    aligner = detector.autoencoder.alignment
    assert isinstance(aligner, Rotation)
    return aligner


def _steepest(aligner: Rotation, x: torch.Tensor) -> torch.Tensor:
    """(N,) the angle at which each image's loss is least, by trying them all."""
    angles = torch.linspace(0, math.pi, CURVE_ANGLES)[:-1]
    return angles[loss_by_angle(aligner.view(x), angles).argmin(dim=1)]


# -- what is shown -------------------------------------------------------------------------------------


def _values(rows: Sequence[dict[str, Any]], part: str, column: str, *keys: str) -> list[float]:
    """One figure of every seed."""
    found = []
    for row in rows:
        if (row["part"], row["column"]) == (part, column):
            value: Any = row
            for key in keys:
                value = value[key]
            found.append(value)
    return found


def _claim(rows: Sequence[dict[str, Any]], part: str) -> dict[str, Any]:
    """Seeds of all in which a column has the higher SSIM, and the higher pixel AUROC, than the plain AE."""
    plain = "plain"
    keys = {"SSIM": ("ssim",)} | {f"AUROC of {name}": ("areas", name, "auroc") for name in RESIDUALS}
    return {
        "part": part,
        "seeds": len(_values(rows, part, plain, "ssim")),
        "better_than_plain": {
            column: {
                name: sum(
                    ours > theirs
                    for ours, theirs in zip(
                        _values(rows, part, column, *key), _values(rows, part, plain, *key), strict=True
                    )
                )
                for name, key in keys.items()
            }
            for column in COLUMNS
            if column != plain
        },
    }


def _page(
    request: Request,
    rows: Sequence[dict[str, Any]],
    parts: dict[str, tuple[Part, Tests]],
    seeds: tuple[int, ...],
    category: str | None,
) -> str:
    blocks = [
        "# Rádli & Czúni 2022: orientation normalised before the autoencoder\n",
        f"Mean over {len(seeds)} seed{'s' * (len(seeds) > 1)}"
        + (" (smallest to largest). " if len(seeds) > 1 else ". ")
        + "MSE is of 0 to 255, over held-out good patches, as is SSIM; ROC, PRC and IoU are areas under the "
        "curves of the pixels of bad patches, IoU over thresholds as shares of the largest residual. All is "
        "measured on the image itself, without the canvas around it. Spread is the circular standard "
        "deviation of the pose after alignment, up to half turns, against "
        "the angle of least gradient loss, or the true angle where it is known. The paper also turns its "
        "training patches at random; ours are only cropped.\n",
    ]
    for name, (part, tests) in parts.items():
        published = PUBLISHED[category] if name == "dataset" and category else None
        first = next(row for row in rows if row["part"] == name)
        recipes = [_asked(part, column, seed) for column in COLUMNS for seed in seeds]
        training = (
            beside_paper(request, recipes, TRAINING)
            if name == "dataset"
            else f"Not in the paper. {training_in_words(recipes)}"
        )
        blocks += [
            f"## {part.title}\n",
            f"{len(tests.good)} good and {len(tests.bad)} bad patches of {tests.good.shape[-1]} pixels; "
            f"{first['machine']}.\n",
            f"{training}\n",
            table(["", *(column.title for column in COLUMNS.values())], _lines(rows, name, published)),
        ]
        claim = _claim(rows, name)
        for column, better in claim["better_than_plain"].items():
            counts = ", ".join(f"{figure} {count}" for figure, count in better.items())
            blocks.append(f"- {COLUMNS[column].title} above AE, of {claim['seeds']} seeds: {counts}.")
        blocks.append("")
    return "\n".join(blocks) + "\n"


def _lines(rows: Sequence[dict[str, Any]], part: str, published: Published | None) -> list[list[str]]:
    lines: list[list[str]] = []

    def add(title: str, keys: tuple[str, ...], digits: int, printed: tuple[float, ...] | None) -> None:
        lines.append([title, *(spread(_values(rows, part, column, *keys), digits) for column in COLUMNS)])
        if printed:
            values = [f"{value:.{digits}f}" for value in printed]
            lines.append([f"{title}, published", *values, *["–"] * (len(COLUMNS) - PRINTED)])

    add("MSE", ("mse",), 1, published and published.mse)
    add("SSIM", ("ssim",), 4, published and published.ssim)
    for residual in RESIDUALS:
        for key, name in CURVES.items():
            digits = 4 if key == "iou_auc" else 3
            printed = published and published.areas[residual][key]
            add(f"{name} of {residual} map", ("areas", residual, key), digits, printed)
    add("spread of the pose, °", ("pose", "spread"), 1, None)
    add("patches left unturned", ("pose", "unturned"), 2, None)
    add("training s", ("training_seconds",), 0, None)
    return lines


def _draw(
    request: Request,
    ending: str,
    shown: dict[str, Detector],
    detectors: dict[tuple[str, int], Detector],
    tests: Tests,
) -> list[Path]:
    """Learning curves, examples of bad patches, and what alignment does."""
    histories = {
        one.title: [detectors[key].file.training.history for key in detectors if key[0] == column]
        for column, one in COLUMNS.items()
    }
    size = tests.masks.mean(axis=(1, 2))
    by_size = np.argsort(size, kind="stable")[int((size == 0).sum()) :]
    # Small, middling and large defects, always the same ones.
    chosen = by_size[(np.linspace(0.1, 0.9, EXAMPLES) * (len(by_size) - 1)).astype(int)]
    examples = [Example("bad patch", tests.bad[index], tests.masks[index]) for index in chosen]
    results: dict[str, list[Shown]] = {}
    for column, detector in shown.items():
        bad = tests.bad[chosen]
        y = _reconstruct(detector, bad)
        maps = residuals(bad, y)["SSIM"]
        results[column] = [Shown(*one) for one in zip(y, maps, strict=True)]
    place = request.file if ending == "-cloth" else request.image
    return [
        draw_curves(request.file(f"{ending}-curves.png"), histories),
        draw_examples(place(f"{ending}.png"), examples, results),
        _draw_alignment(place(f"{ending}-alignment.png"), shown, tests),
    ]


def _draw_alignment(path: Path, shown: dict[str, Detector], tests: Tests) -> Path:
    """Good patches before and after alignment, their loss against the angle (Figure 7), and all poses."""
    from matplotlib.figure import Figure

    clearest = _clearest(shown["frozen"], tests.good)
    turning = {name: detector for name, detector in shown.items() if name != "plain"}
    x = torch.from_numpy(tests.good[clearest])
    figure = Figure(figsize=(1.5 * len(x) + 0.4, 1.5 * (len(turning) + 4)), layout="constrained")
    grid = figure.add_gridspec(len(turning) + 4, len(x))
    angles = torch.linspace(-math.pi / 2, math.pi / 2, CURVE_ANGLES)
    with torch.inference_mode():
        flat = torch.zeros(len(x))
        images = {"as they lie": onto_canvas(x, flat)} | {
            COLUMNS[name].title: _aligner(detector)(x).image for name, detector in turning.items()
        }
        aligner = _aligner(shown["frozen"])
        found = {name: _aligner(detector).angle(x) for name, detector in turning.items()}
        view = aligner.view(x)
        curves = loss_by_angle(view, angles)
        reached = {name: gradient_loss(view, angle) for name, angle in found.items()}
    for row, (title, batch) in enumerate(images.items()):
        for column, image in enumerate(batch):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(image.mean(0).numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
            if column == 0:
                axis.set_title(title, fontsize=8, loc="left")
    for column, curve in enumerate(curves):
        axis = figure.add_subplot(grid[len(turning) + 1, column])
        axis.plot(torch.rad2deg(angles), curve, color="black", linewidth=0.9)
        for (name, angle), marker in zip(found.items(), "o+x1", strict=True):
            at = math.degrees(float(torch.remainder(angle[column] + math.pi / 2, math.pi) - math.pi / 2))
            axis.plot(
                at,
                float(reached[name][column]),
                marker,
                color=COLOURS[name],
                fillstyle="none",
                label=COLUMNS[name].title if column == 0 else None,
            )
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=6)
        if column == 0:
            axis.set_title("gradient loss against angle, °", fontsize=8, loc="left")
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    histograms = figure.add_subplot(grid[len(turning) + 2 :, :])
    for name, detector in shown.items():
        histograms.hist(
            pose(detector, tests.good, tests.angles).poses,
            bins=60,
            range=(-90, 90),
            histtype="step",
            color=COLOURS[name],
            label=COLUMNS[name].title,
        )
    histograms.set_title(
        "pose of all good patches from its mean, °, up to half turns", fontsize=8, loc="left"
    )
    histograms.legend(fontsize=7)
    return save(figure, path)


def _clearest(detector: Detector, images: Floats, count: int = 6) -> NDArray[np.intp]:
    """Places of some images with an orientation, spread over all."""
    with torch.inference_mode():
        strength = _aligner(detector).modulation(torch.from_numpy(images)).numpy()
    oriented = np.flatnonzero(strength >= np.median(strength))
    places: NDArray[np.intp] = oriented[np.linspace(0, len(oriented) - 1, count).round().astype(int)]
    return places
