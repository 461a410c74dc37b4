"""Parts that all studies share: the request, kept fits and evaluations, tables, figures."""

from __future__ import annotations

import math
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from blemish.data.image import read_image
from blemish.data.items import Item
from blemish.data.layouts import read_labelled
from blemish.data.masks import read_masks
from blemish.decision import roc_auc
from blemish.demo.generated import write_dataset
from blemish.detectors.factory import networks
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.evaluation.compare import Comparison, Run, compare
from blemish.inspection.detector import Detector, load
from blemish.inspection.document import versions
from blemish.inspection.folder import EVALUATION_FILE
from blemish.models import Autoencoder
from blemish.observer import Observer
from blemish.recipes import Recipe, load_recipe
from blemish.storage.atomic import atomic_folder, atomic_path, write_json, write_text
from blemish.storage.training_record import TrainingLook
from blemish.training.device import choose_machine
from studies.result import StudyResult
from studies.spreading import fit_apart, is_spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

L = TypeVar("L")
Floats = NDArray[np.float32]
_SHOWN_SIDE = 256


@dataclass(frozen=True)
class Request:
    """Request for a run of a study, and the places of its results."""

    name: str
    out: Path
    data: Path | None = None
    """A data set in the MVTec layout; None for generated images."""
    quick: bool = False
    seeds: tuple[int, ...] | None = None
    """None for the study's own."""
    settings: tuple[str, ...] = ()
    rows: int | None = None
    """New fits at most; the table has the rows that are there. None fits all."""
    machine: str | None = None
    """Machine of a result that is written again; None for this one."""

    @classmethod
    def of_result(cls, name: str, figures: Mapping[str, Any], out: Path) -> Request:
        """The request that a result was made by, for writing its page again."""
        dataset = figures["dataset"]
        return cls(
            name,
            out,
            None if dataset == "generated" else Path(dataset),
            figures["quick"],
            tuple(figures["seeds"]),
            tuple(figures["settings"]),
            machine=figures["machine"],
        )

    @property
    def has_gpu(self) -> bool:
        """Whether the machine of the result trains on something faster than a CPU."""
        if self.machine is not None:
            return not self.machine.startswith("CPU")
        return choose_machine().device != "cpu"

    @property
    def dataset(self) -> str | None:
        """Name of the data set's folder; None for generated images."""
        return self.data.resolve().name if self.data else None

    @property
    def stem(self) -> str:
        """``NAME[-DATASET][-quick]``, with which every file of the results begins."""
        return "-".join([self.name, *([self.dataset] if self.dataset else []), *["quick"] * self.quick])

    @property
    def work(self) -> Path:
        """Folder of fits and evaluations, from which the study goes on after a stop."""
        return self.out / f"{self.stem}-work"

    @property
    def command(self) -> str:
        """The line that repeats the study, but for where its data set and results lie."""
        words = ["blemish", "study", self.name]
        words += ["--data", self.dataset] if self.dataset else []
        words += ["--quick"] * self.quick
        words += ["--seeds", ",".join(map(str, self.seeds))] if self.seeds is not None else []
        words += [word for setting in self.settings for word in ("--set", setting)]
        return shlex.join(words)

    def file(self, ending: str) -> Path:
        """Path of one file of the results: ``.json``, ``-curves.png``."""
        return self.out / f"{self.stem}{ending}"

    def image(self, ending: str) -> Path:
        """Path of an image that shows test images as they are.

        Those of a data set stay in the work folder, for few data sets may be passed on with results.
        """
        return self.file(ending) if self.data is None else self.work / f"{self.stem}{ending}"

    def length(self, quick: L, with_gpu: L, without_gpu: L) -> L:
        """Choose one of the three lengths of a study, by the request and by this machine."""
        if self.quick:
            return quick
        return with_gpu if self.has_gpu else without_gpu


class Allowance:
    """New fits that a run may still make, and names of those that it did not make."""

    def __init__(self, rows: int | None) -> None:
        self.left = rows
        self.planned = 0
        self.missing: list[str] = []

    def take(self, name: str, *, is_finished: bool) -> bool:
        """Whether the fit ``name`` is there or may be made; if not, it is noted as missing."""
        self.planned += 1
        if is_finished or self.left is None:
            return True
        if self.left > 0:
            self.left -= 1
            return True
        self.missing.append(name)
        return False

    def in_words(self) -> str:
        """A paragraph on the fits that are missing; empty where none is."""
        if not self.missing:
            return ""
        return missing_in_words(self.missing, self.planned)


def missing_in_words(missing: Sequence[str], planned: int) -> str:
    """A paragraph on the ``missing`` of all fits that are ``planned``.

    >>> print(missing_in_words(["cae-mse, seed 1"], 24), end="")
    1 of 24 fits is missing (cae-mse, seed 1); the same line fits the next one.
    <BLANKLINE>
    """
    shown = [*missing[:3], *(["…"] if len(missing) > 3 else [])]
    verb = "is" if len(missing) == 1 else "are"
    return f"{len(missing)} of {planned} fits {verb} missing ({'; '.join(shown)}); the same line fits the next one.\n\n"


# -- fits and evaluations ------------------------------------------------------------------------------


def generated(
    work: Path,
    family: str,
    *,
    good: int,
    test_good: int,
    per_blemish: int,
    size: int,
    observer: Observer,
    strength: float = 1.0,
) -> Path:
    """Folder of a generated data set, drawn into ``work`` unless it is there: whole, or not at all."""
    other = "" if strength == 1 else f"-strength-{strength:g}"
    folder = work / f"images-{good}-{test_good}-{per_blemish}-{size}{other}" / family
    if not folder.exists():
        observer.stage(f"Drawing the images of {family}")
        with atomic_folder(folder) as temporary:
            write_dataset(
                temporary.parent,
                family,
                good=good,
                test_good=test_good,
                per_blemish=per_blemish,
                size=size,
                strength=strength,
            )
    return folder


def comparison(
    work: Path,
    data: Path,
    recipes: Sequence[str] | Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    settings: Sequence[str],
    observer: Observer,
    allowance: Allowance | None = None,
) -> Comparison:
    """Every recipe fitted and evaluated with every seed; what is finished in ``work`` is not done again.

    Within :func:`studies.spreading.spread_over` each fit is a task of a cluster.

    Parameters
    ----------
    recipes: names, or names with settings of their own, which come before the common ``settings``.
    allowance: bounds the new fits; the first seed of all recipes comes first.
    """
    own = recipes if isinstance(recipes, Mapping) else dict.fromkeys(recipes, ())
    allowance = allowance or Allowance(None)
    chosen = [
        (name, seed)
        for seed in seeds
        for name in own
        if allowance.take(
            f"{name}, seed {seed}",
            is_finished=(work / f"{name}-{seed}" / "found" / EVALUATION_FILE).is_file(),
        )
    ]
    if is_spread():
        left = [
            (name, seed)
            for name, seed in chosen
            if not (work / f"{name}-{seed}" / "found" / EVALUATION_FILE).is_file()
        ]
        fit_apart(left, own, data, work, settings, observer)
    if chosen and len(chosen) == len(own) * len(seeds):
        return _compared(data, own, work, seeds, settings, observer)
    parts = [_compared(data, {name: own[name]}, work, (seed,), settings, observer) for name, seed in chosen]
    runs = sorted(
        (run for part in parts for run in part.runs), key=lambda run: (list(own).index(run.recipe), run.seed)
    )
    return Comparison(
        dataset=data.resolve().name, settings=tuple(settings), runs=tuple(runs), versions=versions()
    )


def _compared(
    data: Path,
    recipes: Mapping[str, Sequence[str]],
    work: Path,
    seeds: Sequence[int],
    settings: Sequence[str],
    observer: Observer,
) -> Comparison:
    return compare(
        data, recipes, work, seeds=seeds, settings=settings, pages=False, baselines=False, observer=observer
    )


def fitted(work: Path, recipe: str, seed: int) -> Detector:
    """The detector that :func:`comparison` left in ``work``."""
    return load(work / f"{recipe}-{seed}" / "model")


def record(run: Run) -> dict[str, Any]:
    """One run as a study's JSON keeps it: lengths, times, and figures with their intervals."""
    evaluation, recipe = run.evaluation, run.evaluation.settings
    pixel = evaluation.pixel.model_dump(mode="json", exclude={"groups"})
    return {
        "recipe": run.recipe,
        "seed": run.seed,
        "settings": recipe.model_dump(
            mode="json", exclude={"version", "name", "title", "paper", "needs", "expect"}
        ),
        "steps": run.training_steps,
        "best_step": evaluation.training.best_step,
        "held_out": held_out(evaluation.training.history),
        "training_seconds": run.training_seconds,
        "machine": evaluation.training.machine_words,
        "milliseconds_per_image": evaluation.milliseconds_per_image,
        "threshold": evaluation.threshold,
        "image": {name: result.model_dump(mode="json") for name, result in evaluation.image.items()},
        "pixel": pixel,
        "skipped": len(evaluation.skipped),
    }


# -- results -------------------------------------------------------------------------------------------


def document(request: Request, *, paper: str, seeds: Sequence[int], **rest: Any) -> dict[str, Any]:
    """A study's JSON: the fields that all studies share, then ``rest``."""
    return {
        "command": request.command,
        "paper": paper,
        "dataset": request.dataset or "generated",
        "quick": request.quick,
        "seeds": list(seeds),
        "settings": list(request.settings),
        "machine": str(choose_machine()),
        "versions": versions(),
        "commit": commit(),
        **rest,
    }


def commit() -> str | None:
    """Commit of this checkout, with ``-dirty`` where code differs from it; None outside of one."""
    here = ["git", "-C", str(Path(__file__).parents[1])]
    code = ["--", "src", "studies", ":!studies/results"]
    try:
        found = [
            subprocess.run(
                [*here, *words], capture_output=True, text=True, check=True, timeout=60
            ).stdout.strip()
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", *code])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return found[0] + ("-dirty" if found[1] else "")


def held_out(history: Sequence[TrainingLook]) -> dict[str, float]:
    """Held-out loss at the first and the last look, and the lowest.

    The pretraining of an alignment has no looks, so all are of one loss.
    """
    losses = [look.validation for look in history]
    return {"first": losses[0], "last": losses[-1], "lowest": min(losses)} if losses else {}


def ends_above_first_look(row: Mapping[str, Any]) -> bool:
    """Whether the held-out loss of a training ended above its first look, so that training did harm.

    Results of earlier versions keep the best step alone: it tells where the first look is the best of several.
    """
    found = row.get("held_out")
    if found:
        return bool(found["last"] > found["first"])
    training = row["settings"]["training"]
    return bool(row["best_step"] <= training["validate_every"] < row["steps"])


def rises_in_words(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A paragraph that names the trainings whose held-out loss ended above its first look; empty where none did."""
    counts: dict[str, int] = {}
    for name, row in rows:
        if ends_above_first_look(row):
            counts[name] = counts.get(name, 0) + 1
    if not counts:
        return ""
    named = ", ".join(
        f"{name} ({count} of {sum(name == one for one, _ in rows)} fits)" for name, count in counts.items()
    )
    return (
        f"The held-out loss ended above its first look in the training of {named}: longer training made it worse, and "
        "the figures are of the weights of its best look.\n\n"
    )


def recipe_of_record(row: Mapping[str, Any], name: str) -> Recipe:
    """The recipe of a row of results, from the settings that it keeps."""
    return Recipe.model_validate(load_recipe(name).model_dump() | dict(row["settings"]))


def finish(request: Request, figures: dict[str, Any], table: str, images: Sequence[Path] = ()) -> StudyResult:
    """Write ``.json`` and ``.md``; ``images`` are already there."""
    files = (request.file(".json"), request.file(".md"))
    write_json(files[0], figures)
    write_text(files[1], table)
    return StudyResult(figures, table, (*files, *images))


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Mean of the values that are known, and their range unless it is none in so many digits.

    >>> spread([0.5, 0.7])
    '0.600 (0.500 to 0.700)'
    >>> spread([0.5, None], 2), spread([None])
    ('0.50', '–')
    """
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, low, high = (f"{value:.{digits}f}" for value in (fmean(known), min(known), max(known)))
    return mean if low == high else f"{mean} ({low} to {high})"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Markdown table; the first ``left`` columns are words, the others figures.

    >>> print(table(["recipe", "AUROC"], [["l2-ae", "0.9"]]), end="")
    | recipe | AUROC |
    |---|---:|
    | l2-ae | 0.9 |
    """
    rule = "|".join("---" if place < left else "---:" for place in range(len(columns)))
    lines = [f"| {' | '.join(columns)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


# -- beside the paper ----------------------------------------------------------------------------------


class PublishedTraining(NamedTuple):
    """Training of a paper, as far as it is published."""

    side: int
    """Side of the input of the network, patches or whole images."""
    learning_rate: float
    steps: int | None
    """None where the paper gives no length."""
    words: str
    """Everything that the paper gives, without a full stop."""
    repeats: int | None = None
    """None where the paper gives none."""


def training_in_words(recipes: Sequence[Recipe]) -> str:
    """Size, length and learning rate of the trainings of ``recipes``, as one sentence.

    >>> from blemish.recipes import load_recipe
    >>> training_in_words([load_recipe("dae-mse")])
    'Images of 256 × 256 pixels, at most 2500 steps of batch 32, Adam with a learning rate of 0.0001, constant.'
    """
    sides = _range([recipe.patch.size for recipe in recipes])
    pixels = f"{sides} × {sides} pixels"
    if all(recipe.image.size == recipe.patch.size for recipe in recipes):
        size = f"Images of {pixels}"
    else:
        resized = [recipe.image.size for recipe in recipes if recipe.image.size]
        size = f"Patches of {pixels}"
        size += f" of images resized to {_range(resized)}" if resized else ""
    pretraining = [
        steps
        for recipe in recipes
        if recipe.alignment and (steps := int(recipe.alignment.settings.get("pretraining", 0)))
    ]
    before = f", transformers after {_range(pretraining)} of their own" if pretraining else ""
    wordings = {"constant": "constant", "cosine": "falling to 0", "inverse": "falling"}
    schedule = " or ".join(sorted({wordings[recipe.training.schedule] for recipe in recipes}))
    return (
        f"{size}, at most {_range([recipe.training.steps for recipe in recipes])} steps of batch "
        f"{_range([recipe.training.batch for recipe in recipes])}{before}, Adam with a learning rate of "
        f"{_range([recipe.training.learning_rate for recipe in recipes])}, {schedule}."
    )


def beside_paper(request: Request, recipes: Sequence[Recipe], paper: PublishedTraining) -> str:
    """Trainings of ``recipes`` beside the paper's: their differences and the reasons, in words."""
    text = f"Ours: {training_in_words(recipes)} The paper: {paper.words}."
    rates = [recipe.training.learning_rate for recipe in recipes]
    rate = [
        *["larger"] * (max(rates) > paper.learning_rate),
        *["smaller"] * (min(rates) < paper.learning_rate),
        *["falling"] * any(recipe.training.schedule != "constant" for recipe in recipes),
    ]
    differing = [
        *["shorter"] * any(recipe.training.steps < (paper.steps or 0) for recipe in recipes),
        *["on smaller images"] * any(recipe.patch.size < paper.side for recipe in recipes),
        *([f"with a {', '.join(rate)} learning rate"] if rate else []),
        *(
            ["repeated less often"]
            if len({recipe.training.seed for recipe in recipes}) < (paper.repeats or 0)
            else []
        ),
    ]
    return f"{text}{unlike_paper(request, differing)}"


def unlike_paper(request: Request, differing: Sequence[str]) -> str:
    """A sentence, begun by a space, on what of our training is ``differing`` and why; empty where nothing is."""
    if not differing:
        return ""
    if request.quick:
        reason = "as --quick asks"
    elif not request.has_gpu:
        reason = "because there is no GPU here"
    else:
        reason = "as --set asks"
    *first, last = differing
    whole = f"{', '.join(first)} and {last}" if first else last
    return f" Beside the paper's, our training is {whole}, {reason}."


def _range(values: Sequence[float]) -> str:
    """``40 to 500``, or ``500`` where all are the same."""
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


# -- images ------------------------------------------------------------------------------------------


class Example(NamedTuple):
    """A test image that is shown."""

    title: str
    image: Floats
    """(C, H, W) in [0, 1]."""
    mask: NDArray[np.bool_]
    """(H, W)."""


class Shown(NamedTuple):
    """Reconstruction and map of an example by one recipe, at the image's own size."""

    reconstruction: Floats
    """(C, H, W) in [0, 1]."""
    map: Floats
    """(H, W), at least 0."""


def choose_examples(data: Path, count: int) -> list[Item]:
    """``count`` defective test images with masks, of as many types as there are, always the same ones."""
    kinds: dict[str, list[Item]] = {}
    for item in read_labelled(data).items:
        if item.split == "test" and item.masks:
            kinds.setdefault(str(item.label), []).append(item)
    rounds = max(map(len, kinds.values()), default=0)
    return [items[turn] for turn in range(rounds) for items in kinds.values() if turn < len(items)][:count]


def read_example(item: Item) -> Example:
    """The image of ``item`` with its mask, which is empty for a good one."""
    image = read_image(item.path)
    mask = read_masks(item.masks, size=image.size)
    if mask is None:
        mask = np.zeros((image.height, image.width), bool)
    return Example(item.name.removeprefix("test/"), image.floats(), mask)


def show(detector: Detector, items: Sequence[Item]) -> list[Shown]:
    """Reconstruction and map of each of ``items`` by ``detector``."""
    measured = [detector.measure(read_image(item.path)) for item in items]
    return [Shown(one.reconstruction, one.map) for one in measured if one.reconstruction is not None]


def autoencoder_of(detector: Detector) -> Autoencoder:
    """The only network of ``detector``, whose recipe has an autoencoder alone."""
    (network,) = networks(cast(ReconstructionModel, detector.model)).values()
    return network


def brightness_auroc(data: Path) -> float:
    """Image AUROC of the mean grey level alone on the test images of ``data``, or of its negative if higher.

    Where it is high, the good and the defective test images were lit differently, and any score that feels
    the light, in either direction, has an AUROC that tells nothing of defects.
    """
    tests = [item for item in read_labelled(data).items if item.split != "train"]
    means = [float(read_image(item.path).floats().mean()) for item in tests]
    auroc = roc_auc([not item.is_good for item in tests], means)
    return max(auroc, 1 - auroc)


def grey_levels(data: Path) -> dict[str, float]:
    """Mean grey level of the training images, the good and the defective test images of ``data``."""
    found: dict[str, list[float]] = {"train": [], "good": [], "defective": []}
    for item in read_labelled(data).items:
        kind = "train" if item.split == "train" else "good" if item.is_good else "defective"
        found[kind].append(float(read_image(item.path).floats().mean()))
    return {kind: fmean(values) for kind, values in found.items() if values}


def histories(runs: Sequence[Run]) -> dict[str, list[Sequence[TrainingLook]]]:
    """Training histories by recipe, one a seed, as :func:`draw_curves` takes them."""
    found: dict[str, list[Sequence[TrainingLook]]] = {}
    for run in runs:
        found.setdefault(run.recipe, []).append(run.evaluation.training.history)
    return found


def draw_curves(path: Path, curves: Mapping[str, Sequence[Sequence[TrainingLook]]]) -> Path:
    """One panel a recipe: training loss (thin) and held-out loss (thick) of every seed, against steps."""
    from matplotlib.figure import Figure

    columns = min(4, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.4 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, seeds) in zip(axes, curves.items(), strict=False):
        for history in seeds:
            steps = [look.step for look in history]
            for key, width, colour in (("training", 0.9, "tab:blue"), ("validation", 1.8, "tab:orange")):
                axis.plot(
                    steps,
                    [getattr(look, key) for look in history],
                    color=colour,
                    linewidth=width,
                    marker="." if len(history) < 3 else None,
                    label={"training": "training", "validation": "held out"}[key]
                    if history is seeds[0]
                    else None,
                )
        if all(min(look.training, look.validation) > 0 for history in seeds for look in history):
            axis.set_yscale("log")
        axis.set_title(title, fontsize=10)
        axis.tick_params(which="both", labelsize=7)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    for axis in axes[len(curves) :]:
        axis.set_axis_off()
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("loss", fontsize=9)
    return save(figure, path)


def draw_examples(path: Path, examples: Sequence[Example], shown: Mapping[str, Sequence[Shown]]) -> Path:
    """Two rows an example: image and reconstructions, then mask and maps; a column for each recipe.

    All maps of one recipe share its scale, from 0 to the largest value in those shown.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 * (1 + len(shown)) + 0.2, 3.0 * len(examples) + 0.3), layout="constrained")
    axes = figure.subplots(2 * len(examples), 1 + len(shown), squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    for index, example in enumerate(examples):
        above, below = axes[2 * index], axes[2 * index + 1]
        above[0].imshow(_for_display(example.image), cmap="gray", vmin=0, vmax=1)
        above[0].set_title(example.title, fontsize=7)
        below[0].imshow(example.mask[_step(example.mask)], cmap="gray", vmin=0, vmax=1)
        for column, (recipe, results) in enumerate(shown.items(), start=1):
            result = results[index]
            largest = max(float(one.map.max()) for one in results)
            above[column].imshow(_for_display(result.reconstruction), cmap="gray", vmin=0, vmax=1)
            below[column].imshow(result.map[_step(result.map)], cmap="inferno", vmin=0, vmax=largest or 1)
            if index == 0:
                above[column].set_title(recipe, fontsize=8)
    return save(figure, path)


def save(figure: Figure, path: Path) -> Path:
    """Write ``figure`` as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
    return path


def _step(values: NDArray[Any]) -> tuple[slice, slice]:
    """Every so manieth pixel, so that a large image is not drawn larger than it is shown."""
    step = max(1, min(values.shape[-2:]) // _SHOWN_SIDE)
    return slice(None, None, step), slice(None, None, step)


def _for_display(image: Floats) -> Floats:
    """(C, H, W) to (H, W, 3), or to (H, W), the mean, where the channels are not colours."""
    smaller = image[(slice(None), *_step(image))]
    return np.moveaxis(smaller, 0, -1) if len(smaller) == 3 else smaller.mean(axis=0)
