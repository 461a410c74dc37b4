"""Xie, Meeus, Pižurica 2019: partial convolutions against edge artefacts, and sensors apart or together.

Table 1 sets four stacked autoencoders side by side, Table 2 the stacked one beside two with an encoder and a
decoder for each modality, Figure 6 what becomes of SSIM near the corners of a patch. A data set is a folder with
scenes in ``train/``, of each of which the left half is for training and the right half for test, as in the paper,
and perhaps others in ``test/``, of which nothing is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
import tifffile
import torch
import torch.nn.functional as F
import yaml
from numpy.typing import NDArray
from torch import Tensor

from blemish.data.modality import Modality
from blemish.data.open_scenes import open_scenes
from blemish.data.scene_description import MODALITIES_FILE
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.demo.painting import write_paintings
from blemish.errors import FileError, Stopped
from blemish.evaluation.compare import fit_once
from blemish.inspection.detector import Detector
from blemish.models import Autoencoder
from blemish.models.modal_similarity import LUMA, modal_residuals, modal_ssim
from blemish.observer import Observer
from blemish.recipes import Recipe, load_recipe, override
from blemish.report.numbers import counted
from blemish.storage.atomic import atomic_folder, atomic_path, write_text
from blemish.training.device import choose_machine
from blemish.training.try_recipe import check_recipe
from studies.protocol import Request, document, draw_curves, finish, save, spread, table
from studies.result import StudyResult

PAPER = "Xie, Meeus, Pižurica 2019, Partial Convolution Based Multimodal Autoencoder for Art Investigation"
Floats = NDArray[np.floating[Any]]


class Row(NamedTuple):
    """One line of the tables."""

    name: str
    recipe: str
    words: str
    """What the paper calls it."""
    tables: tuple[int, ...]
    """In which it is printed; none for what is ours."""
    published: float | None
    settings: tuple[str, ...] = ()


# The recipes of separated sensors are trained with modality dropout, the paper's are not.
_AS_THE_PAPER = ("corruption=[]",)
ROWS = (
    Row("stacked-ae", "stacked-ae", "normal AE", (1,), 0.9366),
    Row("pen-nde", "pen-nde", "PEN + NDE", (1,), 0.9349),
    Row("pen-upde", "pen-upde", "PEN + UPDE", (1,), 0.9271),
    Row("fp-cae", "fp-cae", "FP-CAE", (1, 2), 0.9377),
    Row("fp-cae-concat", "fp-cae-concat", "FP-CAE, concatenation", (2,), 0.9469, _AS_THE_PAPER),
    Row("fp-cae-add", "fp-cae-add", "FP-CAE, addition", (2,), 0.9450, _AS_THE_PAPER),
    Row("fp-cae-concat-dropout", "fp-cae-concat", "concatenation, with modality dropout", (), None),
    # The paper gives the normal AE a learning rate of its own; here is what the convolutions do alone.
    Row(
        "stacked-ae-same-rate",
        "stacked-ae",
        "normal AE, learning rate of FP-CAE",
        (),
        None,
        ("training.schedule=inverse", "training.learning_rate=0.0012", "training.decay=0.00003"),
    ),
)
WITH_DROPOUT, SAME_RATE = ROWS[-2].name, ROWS[-1].name
CROSSED = ("fp-cae-concat", "fp-cae-add", WITH_DROPOUT)
"""Rows that are asked for each modality from the others."""
Figure = Literal["ssim", "corner"]


class Claim(NamedTuple):
    """One model is above another, which differences on the same test patches put to the test."""

    words: str
    above: str
    below: str
    figure: Figure = "ssim"
    """SSIM of the whole patch, or of the 8 × 8 windows at its corners."""


CLAIMS = (
    Claim("FP-CAE is above the normal AE at the corners (Figure 6, d = 0)", "fp-cae", "stacked-ae", "corner"),
    Claim("the same, at one learning rate (not in the paper)", "fp-cae", SAME_RATE, "corner"),
    Claim("PEN + UPDE is below the normal AE at the corners (Figure 6)", "stacked-ae", "pen-upde", "corner"),
    Claim("FP-CAE is above the normal AE (Table 1)", "fp-cae", "stacked-ae"),
    Claim("the same, at one learning rate (not in the paper)", "fp-cae", SAME_RATE),
    Claim("PEN + NDE is slightly below the normal AE (Table 1)", "stacked-ae", "pen-nde"),
    Claim("PEN + UPDE is below the normal AE (Table 1)", "stacked-ae", "pen-upde"),
    Claim("sensors apart, concatenated, are above stacked ones (Table 2)", "fp-cae-concat", "fp-cae"),
    Claim("sensors apart, added, are above stacked ones (Table 2)", "fp-cae-add", "fp-cae"),
    Claim("concatenation is above addition, not much (Table 2)", "fp-cae-concat", "fp-cae-add"),
    Claim("what dropout costs where nothing is missing (not in the paper)", "fp-cae-concat", WITH_DROPOUT),
)


class Length(NamedTuple):
    """How much is drawn, where no data set is given, trained and measured."""

    paintings: int
    unseen: int
    size: int
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    patches: int
    """Test patches of all panels together, at most."""


FULL = Length(
    paintings=4,
    unseen=2,
    size=1024,
    settings=("training.steps=20000", "training.validate_every=1000"),
    seeds=(0, 1, 2),
    patches=4096,
)
# Small batches make more of a short training; the paper does not give its own. About half an hour of one core for six
# panels of 512 × 512 pixels and eleven channels.
WITHOUT_GPU = FULL._replace(
    paintings=3,
    unseen=1,
    size=512,
    settings=("training.batch=16", "training.steps=700", "training.validate_every=100"),
    patches=1024,
)
QUICK = WITHOUT_GPU._replace(
    paintings=2,
    size=256,
    settings=("training.batch=16", "training.steps=400", "training.validate_every=100"),
    seeds=(0,),
    patches=128,
)
WINDOW = 8
"""Side of the local windows of Figure 6."""
K1, K2 = 0.01, 0.03
SAMPLES = 2000
CROSSED_PATCHES = 256
"""Of the test patches, at most, for a pass of each modality from the others is one more."""
_BATCH = 128
_ROWS_AT_ONCE = 256
_EXAMPLES = 5
_SHOWN_SIDE = 512


def run(
    out: Path,
    *,
    data: Path | None,
    quick: bool,
    seeds: tuple[int, ...] | None,
    settings: tuple[str, ...],
    observer: Observer,
) -> StudyResult:
    """Write ``xie2019[-DATASET][-quick]`` ``.json``, ``.md``, ``-corners.png``, ``-curves.png`` and images to ``out``.

    Patches and their reconstructions (``.png``) and modalities from the others (``-crossed.png``) show test images;
    those of a data set stay in the work folder.
    """
    request = Request("xie2019", out, data, quick, seeds, settings)
    length = request.length(QUICK, FULL, WITHOUT_GPU)
    chosen = seeds or length.seeds
    recipes = {row.name: _recipe(row, (*length.settings, *settings)) for row in ROWS}
    source = data or _generated(request.work, length, observer)
    patch = recipes[ROWS[0].name].patch.size
    panels, modalities, sha256 = _opened(source, patch, observer)
    for recipe in recipes.values():
        check_recipe(recipe, modalities)
    left = _left_halves(request.work / f"left-{sha256[:16]}", panels, observer)
    halves = [(panel, slice(panel.width // 2, panel.width)) for panel in panels]
    unseen = [(panel, slice(0, panel.width)) for panel in _unseen(source, modalities, observer)]
    tested = Material(halves=cut(halves, patch, length.patches), unseen=cut(unseen, patch, length.patches))
    if not len(tested.halves.pixels):
        raise FileError(
            source, "has no test patch that all sensors saw", "crop the panels to what they cover"
        )

    fits: list[Fit] = []
    for seed in chosen:
        for row in ROWS:
            if observer.should_stop():
                raise Stopped(f"stopped after {counted(len(fits), 'fit')}, which are finished")
            title = f"{row.name}, seed {seed}"
            model = request.work / "models" / f"{row.name}-{seed}"
            recipe = override(recipes[row.name], [f"training.seed={seed}"])
            detector = fit_once(left, recipe, model, title=title, observer=observer)
            observer.stage(f"Measuring {title}")
            fits.append(_measured(row, seed, detector, modalities, tested))
    results = Results(request, tuple(chosen), modalities, tested, fits)
    comparisons = [results.compare(claim) for claim in CLAIMS]
    figures = document(
        request,
        paper=PAPER,
        seeds=chosen,
        length=length._asdict(),
        modalities=[{"name": one.name, "channels": one.channels, "grey": one.is_grey} for one in modalities],
        patch=patch,
        panels={panel.name: [panel.height, panel.width] for panel in panels},
        test_patches=len(tested.halves.pixels),
        unseen_patches=len(tested.unseen.pixels),
        rows=[_record(fit, modalities) for fit in fits],
        local={
            "window": WINDOW,
            "distance": list(range(2 * ((patch - WINDOW) // 2) + 1)),
            "ssim": {row.name: results.by_distance(row.name).mean(axis=0).tolist() for row in ROWS},
        },
        claims=[
            {**claim._asdict(), **comparison._asdict()}
            for claim, comparison in zip(CLAIMS, comparisons, strict=True)
        ],
        published={row.name: row.published for row in ROWS if row.published is not None},
    )
    drawn = (
        draw_corners(request.file("-corners.png"), results),
        draw_curves(request.file("-curves.png"), _histories(fits)),
        draw_patches(request.image(".png"), results),
        draw_crossed(request.image("-crossed.png"), results, (unseen or halves)[0]),
    )
    return finish(request, figures, _page(results, recipes, panels, comparisons), drawn)


# -- scenes and test patches ---------------------------------------------------------------------------


def _generated(work: Path, length: Length, observer: Observer) -> Path:
    """``train/`` and ``test/`` of generated paintings, drawn into ``work`` unless they are there."""
    folder = work / f"paintings-{length.paintings}-{length.unseen}-{length.size}"
    if not folder.exists():
        observer.stage(f"Drawing {length.paintings + length.unseen} paintings")
        with atomic_folder(folder) as temporary:
            write_paintings(temporary / "train", length.paintings, size=length.size)
            write_paintings(temporary / "test", length.unseen, seed=length.paintings, size=length.size)
    return folder


def _recipe(row: Row, settings: Sequence[str]) -> Recipe:
    # Nothing is decided here, and few squares are left to calibrate a decision on.
    undecided = ("threshold.rule=fixed", "threshold.value=1")
    return override(load_recipe(row.recipe), [*undecided, *row.settings, *settings])


def _opened(
    source: Path, patch: int, observer: Observer
) -> tuple[tuple[SceneReader, ...], tuple[Modality, ...], str]:
    """The panels of ``source/train``, complete and large enough for a half to be divided, and their fingerprint.

    Raises
    ------
    FileError
        Naming the folder.
    """
    if not (source / "train").is_dir():
        raise FileError(
            source, "has no train folder", "lay it out as train/ and perhaps test/, with scenes in each"
        )
    opened = open_scenes(source / "train", patch=patch, observer=observer)
    for panel in opened.readers:
        _refuse_incomplete(panel)
        if panel.width // 2 < 3 * patch:
            raise FileError(
                panel.scene.folder,
                f"is {panel.width} pixels wide, too few for patches of {patch} in each of three parts of a half",
                f"give panels of {6 * patch} pixels at least, or leave it out",
            )
    return opened.readers, opened.modalities, opened.fingerprint.sha256


def _refuse_incomplete(panel: SceneReader) -> None:
    if panel.missing:
        raise FileError(
            panel.scene.folder,
            f"has no {', '.join(panel.missing)}, which the autoencoder of normal convolutions cannot do without",
            "leave the scene out",
        )


def _unseen(source: Path, modalities: Sequence[Modality], observer: Observer) -> list[SceneReader]:
    if not (source / "test").is_dir():
        return []
    panels = [SceneReader(scene) for scene in find_scenes(source / "test", modalities)]
    for panel in panels:
        _refuse_incomplete(panel)
        for notice in panel.notices:
            observer.stage(f"{panel.name}: {notice}")
    return panels


def _left_halves(folder: Path, panels: Sequence[SceneReader], observer: Observer) -> Path:
    """The left half of each panel as a scene of its own, float32, written to ``folder`` unless it is there."""
    if folder.exists():
        return folder
    observer.stage("Writing the left halves, which are trained on")
    listed = [
        {"name": one.name, "file": f"{place}.tif", "channels": one.channels, "grey": one.grey}
        for place, one in enumerate(panels[0].modalities)
    ]
    with atomic_folder(folder) as temporary:
        for done, panel in enumerate(panels, start=1):
            _write_half(temporary / panel.name, panel)
            observer.count(done, len(panels))
        write_text(temporary / MODALITIES_FILE, yaml.safe_dump({"modalities": listed}, sort_keys=False))
    return folder


def _write_half(folder: Path, panel: SceneReader) -> None:
    """A TIFF a modality, filled by rows of windows, so that the panel is never whole in memory."""
    width, first = panel.width // 2, 0
    for place, modality in enumerate(panel.modalities):
        channels = slice(first, first + modality.channels)
        first = channels.stop
        with atomic_path(folder / f"{place}.tif") as partial:
            pixels = tifffile.memmap(
                partial,
                shape=(modality.channels, panel.height, width),
                dtype=np.float32,
                photometric="minisblack",
                planarconfig="separate" if modality.channels > 1 else None,
                metadata=None,
            )
            for top in range(0, panel.height, _ROWS_AT_ONCE):
                rows = min(_ROWS_AT_ONCE, panel.height - top)
                window = panel.read(top, 0, rows, width)[channels]
                pixels.reshape(modality.channels, panel.height, width)[:, top : top + rows] = window
            pixels.flush()
            del pixels


class Patches(NamedTuple):
    """Squares to test on."""

    pixels: NDArray[np.float32]
    """(N, C, P, P) in [0, 1], with nothing absent."""
    panel: NDArray[np.intp]
    """(N,) numbers of the panels that they are of."""
    names: tuple[str, ...]
    """Of the panels."""


class Material(NamedTuple):
    """All that is tested on."""

    halves: Patches
    """Of the right halves of the panels whose left halves were trained on."""
    unseen: Patches
    """Of panels that nothing was trained on; there may be none."""


def cut(parts: Sequence[tuple[SceneReader, slice]], patch: int, most: int) -> Patches:
    """Patches beside each other in the given columns of each panel, those that all sensors saw whole.

    Of more than ``most`` in all, as many of each panel, evenly spread.
    """
    pixels, numbers = [], []
    for number, (panel, columns) in enumerate(parts):
        corners = [
            (top, left)
            for top in range(0, panel.height - patch + 1, patch)
            for left in range(columns.start, columns.stop - patch + 1, patch)
        ]
        share = max(1, most // len(parts))
        if len(corners) > share:
            corners = [
                corners[place] for place in np.linspace(0, len(corners) - 1, share).round().astype(int)
            ]
        with panel:
            windows = [panel.read(*corner, patch, patch) for corner in corners]
        whole = [window for window in windows if np.isfinite(window).all()]
        pixels += whole
        numbers += [number] * len(whole)
    channels = parts[0][0].channels if parts else 0
    return Patches(
        np.stack(pixels) if pixels else np.empty((0, channels, patch, patch), np.float32),
        np.array(numbers, np.intp),
        tuple(panel.name for panel, _ in parts),
    )


# -- how alike -----------------------------------------------------------------------------------------


def local_ssim(x: Tensor, y: Tensor, *, data_range: float, window: int = WINDOW) -> Tensor:
    """SSIM (equation 4) of every ``window`` × ``window`` square, all its pixels weighed alike.

    Parameters
    ----------
    x, y: (N, C, H, W).

    Returns
    -------
    (N, C, H − window + 1, W − window + 1) in float64, by the square's first pixel.

    Examples
    --------
    >>> x = torch.rand(1, 1, 32, 32)
    >>> local_ssim(x, x, data_range=1.0).shape
    torch.Size([1, 1, 25, 25])
    """
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    x, y = x.double(), y.double()  # variances are differences of squares that are nearly alike
    mu_x, mu_y, square_x, square_y, product = (
        F.avg_pool2d(values, window, stride=1) for values in (x, y, x * x, y * y, x * y)
    )
    variances = square_x - mu_x**2 + square_y - mu_y**2
    sigma_xy = product - mu_x * mu_y
    luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    return luminance * (2 * sigma_xy + c2) / (variances + c2)


def corner_distance(side: int, window: int = WINDOW) -> NDArray[np.intp]:
    """d = min(x1, l − x2) + min(y1, l − y2) of every window of a patch of side l (equation 6): (K, K).

    Examples
    --------
    >>> corner_distance(10, 8).tolist()
    [[0, 1, 0], [1, 2, 1], [0, 1, 0]]
    """
    start = np.arange(side - window + 1)
    off = np.minimum(start, side - (start + window))
    distance: NDArray[np.intp] = off[:, None] + off[None, :]
    return distance


def by_distance(local: Tensor, distance: NDArray[np.intp]) -> Tensor:
    """The mean of ``local`` (N, M, K, K) over modalities and the windows of each distance: (N, D)."""
    members = F.one_hot(torch.from_numpy(distance).flatten()).to(local)  # (K², D)
    return local.mean(1).flatten(1) @ (members / members.sum(0))


def _as_compared(x: Tensor, modalities: Sequence[Modality]) -> list[Tensor]:
    """The channels (N, c, H, W) of each modality, grey where its SSIM is of grey."""
    parts = torch.split(x, [modality.channels for modality in modalities], 1)
    return [
        part
        if not modality.is_grey
        else (part * part.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
        if modality.channels == len(LUMA)
        else part.mean(1, keepdim=True)
        for part, modality in zip(parts, modalities, strict=True)
    ]


def _batches(pixels: NDArray[np.float32]) -> list[Tensor]:
    return [torch.from_numpy(pixels[first : first + _BATCH]) for first in range(0, len(pixels), _BATCH)]


class Alike(NamedTuple):
    """How alike N patches and their reconstructions are."""

    ssim: Floats
    """(N, M), by modality."""
    local: Floats
    """(N, D), mean over the modalities, by distance to the corners."""


class Fit(NamedTuple):
    """One fit, and what was measured of it."""

    row: Row
    seed: int
    detector: Detector
    halves: Alike
    unseen: Alike
    crossed: Floats | None
    """(n, M): SSIM of each modality as the others predict it, where the row is asked for that."""


@torch.no_grad()
def alike(model: Autoencoder, pixels: NDArray[np.float32], modalities: Sequence[Modality]) -> Alike:
    """Patches (N, C, P, P) beside their reconstructions; SSIM under the Gaussian window of the loss."""
    device = next(model.parameters()).device
    distance = corner_distance(pixels.shape[-1])
    whole, local = [np.empty((0, len(modalities)))], [np.empty((0, int(distance.max()) + 1))]
    for x in _batches(pixels):
        y = model(x.to(device)).reconstruction.float().cpu()
        whole.append(modal_ssim(x, y, modalities, data_range=1.0).ssim.double().numpy())
        maps = [
            local_ssim(a, b, data_range=1.0).mean(1)
            for a, b in zip(_as_compared(x, modalities), _as_compared(y, modalities), strict=True)
        ]
        local.append(by_distance(torch.stack(maps, 1), distance).numpy())
    return Alike(np.concatenate(whole), np.concatenate(local))


def crossed_ssim(
    model: Autoencoder, pixels: NDArray[np.float32], modalities: Sequence[Modality]
) -> NDArray[np.float64]:
    """SSIM of each modality of patches (N, C, P, P) as the others alone predict it: (N, M)."""
    device = next(model.parameters()).device
    found = [
        modal_ssim(x, modal_residuals(model, x.to(device)).predicted.cpu(), modalities, data_range=1.0).ssim
        for x in _batches(pixels)
    ]
    return np.asarray(torch.cat(found).double().numpy())


def _measured(
    row: Row, seed: int, detector: Detector, modalities: Sequence[Modality], tested: Material
) -> Fit:
    model = detector.autoencoder.to(choose_machine(detector.recipe.training.device).device)
    crossed = None
    if row.name in CROSSED and len(modalities) > 1:
        pixels = tested.halves.pixels
        step = math.ceil(len(pixels) / CROSSED_PATCHES)
        crossed = crossed_ssim(model, pixels[::step], modalities)
    fit = Fit(
        row,
        seed,
        detector,
        alike(model, tested.halves.pixels, modalities),
        alike(model, tested.unseen.pixels, modalities),
        crossed,
    )
    model.cpu()
    return fit


def pigeonhole_interval(
    differences: Floats, *, level: float = 0.95, samples: int = SAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the mean of ``differences`` (S, N), with seeds and patches both drawn again.

    Rows and columns are drawn independently of each other (Owen, The pigeonhole bootstrap, Annals of Applied
    Statistics 1(2), 2007).

    Examples
    --------
    >>> low, high = pigeonhole_interval(np.array([[0.0, 0.2, 0.4], [0.1, 0.3, 0.5]]))
    >>> low < 0.25 < high
    True
    """
    rng = np.random.default_rng(seed)
    rows, columns = (
        rng.multinomial(count, np.full(count, 1 / count), samples) / count for count in differences.shape
    )
    means = ((rows @ differences) * columns).sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class Comparison(NamedTuple):
    """A claim, put to the test on the right halves."""

    difference: float
    low: float
    high: float
    """The 95 % interval over seeds and patches."""
    seeds: int
    """In how many the difference is above 0."""
    of_seeds: int
    panels: int
    of_panels: int

    def in_words(self) -> str:
        """The difference, its interval, and what that says.

        >>> Comparison(0.01, 0.004, 0.02, 3, 3, 5, 6).in_words()
        '+0.0100 [+0.0040, +0.0200], yes'
        """
        verdict = "yes" if self.low > 0 else "no" if self.high < 0 else "undecided"
        return f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}], {verdict}"


class Results(NamedTuple):
    """What tables and figures are made from."""

    request: Request
    seeds: tuple[int, ...]
    modalities: tuple[Modality, ...]
    tested: Material
    fits: list[Fit]

    def of(self, row: str) -> list[Fit]:
        """The fits of one row, a seed each."""
        return [fit for fit in self.fits if fit.row.name == row]

    def by_distance(self, row: str) -> Floats:
        """(S, D) local SSIM on the right halves."""
        return np.stack([fit.halves.local.mean(axis=0) for fit in self.of(row)])

    def by_patch(self, row: str, figure: Figure) -> Floats:
        """(S, N) on the right halves."""
        pick: Callable[[Alike], Floats] = {
            "ssim": lambda one: one.ssim.mean(axis=1),
            "corner": lambda one: one.local[:, 0],
        }[figure]
        return np.stack([pick(fit.halves) for fit in self.of(row)])

    def compare(self, claim: Claim) -> Comparison:
        differences = self.by_patch(claim.above, claim.figure) - self.by_patch(claim.below, claim.figure)
        panel = self.tested.halves.panel
        by_panel = [differences[:, panel == number].mean() for number in np.unique(panel)]
        return Comparison(
            float(differences.mean()),
            *pigeonhole_interval(differences),
            seeds=int((differences.mean(axis=1) > 0).sum()),
            of_seeds=len(differences),
            panels=sum(bool(value > 0) for value in by_panel),
            of_panels=len(by_panel),
        )


def _record(fit: Fit, modalities: Sequence[Modality]) -> dict[str, Any]:
    training, names = fit.detector.file.training, [one.name for one in modalities]

    def by_modality(values: Floats | None) -> dict[str, float] | None:
        if values is None or not len(values):
            return None
        return dict(zip(names, values.mean(axis=0).tolist(), strict=True))

    return {
        "row": fit.row.name,
        "recipe": fit.row.recipe,
        "seed": fit.seed,
        "parameters": _parameters(fit),
        "settings": fit.detector.recipe.model_dump(
            mode="json", exclude={"version", "name", "title", "paper", "needs", "expect"}
        ),
        "steps": training.steps,
        "best_step": training.best_step,
        "training_seconds": training.seconds,
        "machine": training.machine_words,
        "ssim": float(fit.halves.ssim.mean()),
        "ssim_by_modality": by_modality(fit.halves.ssim),
        "ssim_unseen": float(fit.unseen.ssim.mean()) if len(fit.unseen.ssim) else None,
        "ssim_unseen_by_modality": by_modality(fit.unseen.ssim),
        "ssim_from_others": by_modality(fit.crossed),
        "local_ssim": fit.halves.local.mean(axis=0).tolist(),
    }


def _parameters(fit: Fit) -> int:
    return sum(parameter.numel() for parameter in fit.detector.autoencoder.parameters())


def _histories(fits: Sequence[Fit]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for fit in fits:
        found.setdefault(fit.row.name, []).append(fit.detector.file.training.history)
    return found


# -- figures -------------------------------------------------------------------------------------------


def draw_corners(path: Path, results: Results) -> Path:
    """Figure 6, and the same for Table 2: local SSIM against d, the mean over seeds and their range."""
    from matplotlib.figure import Figure as Drawing

    figure = Drawing(figsize=(9.6, 3.8), layout="constrained")
    for axis, number in zip(figure.subplots(1, 2), (1, 2), strict=True):
        for row in ROWS:
            if number not in row.tables:
                continue
            curves = results.by_distance(row.name)
            d = np.arange(curves.shape[1])
            (line,) = axis.plot(d, curves.mean(axis=0), label=row.words, linewidth=1.3)
            if len(curves) > 1:
                ends = curves.min(axis=0), curves.max(axis=0)
                axis.fill_between(d, *ends, color=line.get_color(), alpha=0.2, linewidth=0)
        axis.set_title("Stacked (Table 1, Figure 6)" if number == 1 else "Separated (Table 2)", fontsize=10)
        axis.set_xlabel("d, distance to the corners in pixels", fontsize=9)
        axis.set_ylabel(f"SSIM of {WINDOW} × {WINDOW} windows", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    return save(figure, path)


def draw_patches(path: Path, results: Results) -> Path:
    """Figures 7 and 8: the liveliest test patch of some panels, and what each row makes of it, with its SSIM."""
    from matplotlib.figure import Figure as Drawing

    patches, modalities = results.tested.halves, results.modalities
    lively = patches.pixels.std(axis=(2, 3)).mean(axis=1)
    chosen = [
        max(np.flatnonzero(patches.panel == number), key=lambda place: float(lively[place]))
        for number in np.unique(patches.panel)[:_EXAMPLES]
    ]
    x = torch.from_numpy(patches.pixels[chosen])
    figure = Drawing(figsize=(1.3 * (1 + len(ROWS)), 1.5 * len(chosen) + 0.2), layout="constrained")
    axes = figure.subplots(len(chosen), 1 + len(ROWS), squeeze=False)
    first = modalities[0]
    for column, title in enumerate(["measured", *(row.name for row in ROWS)]):
        if column:
            fit = results.of(title)[0]
            with torch.no_grad():
                y = fit.detector.autoencoder(x).reconstruction.numpy()
            similar = fit.halves.ssim[chosen, 0]
        for place, axis in enumerate(axes[:, column]):
            axis.set_axis_off()
            _show(axis, (y if column else x.numpy())[place, : first.channels])
            head = f"{title}\n" if place == 0 else ""
            axis.set_title(head + (f"{similar[place]:.3f}" if column else first.name), fontsize=7)
    return save(figure, path)


def draw_crossed(path: Path, results: Results, shown: tuple[SceneReader, slice]) -> Path:
    """Each modality of a part of a panel: measured, reconstructed from all, predicted from the others, and how that differs."""
    from matplotlib.figure import Figure as Drawing

    panel, columns = shown
    height, width = min(panel.height, _SHOWN_SIDE), min(columns.stop - columns.start, _SHOWN_SIDE)
    left = columns.start + (columns.stop - columns.start - width) // 2
    window = panel.read((panel.height - height) // 2, left, height, width)
    fit = results.of(WITH_DROPOUT)[0]
    found = modal_residuals(fit.detector.autoencoder, torch.from_numpy(window)[None])
    modalities = results.modalities
    figure = Drawing(figsize=(8.0, 1.9 * len(modalities) * height / width + 0.4), layout="constrained")
    axes = figure.subplots(len(modalities), 4, squeeze=False)
    titles = ("measured", "reconstructed", "predicted from the others", "1 − SSIM of the prediction")
    first = 0
    for number, modality in enumerate(modalities):
        taken = slice(first, first + modality.channels)
        first = taken.stop
        images = (
            window[taken],
            *(one[0, taken].numpy() for one in (found.reconstruction, found.predicted)),
        )
        for axis, image in zip(axes[number], images, strict=False):
            _show(axis, image)
        axes[number, 3].imshow(found.crossed[0, number].numpy(), cmap="inferno", vmin=0, vmax=1)
        axes[number, 0].set_title(modality.name, fontsize=8)
        for axis, title in zip(axes[number], titles, strict=True):
            axis.set_axis_off()
            if number == 0:
                axis.set_title(f"{modality.name}, {title}" if title == titles[0] else title, fontsize=8)
    figure.suptitle(f"{panel.name}: {fit.row.words}", fontsize=9)
    return save(figure, path)


def _show(axis: Any, image: Floats) -> None:
    """(c, H, W), as colours where there are three channels; absent values white."""
    values = np.nan_to_num(np.clip(image, 0, 1), nan=1.0)
    shown = np.moveaxis(values, 0, -1) if len(values) == 3 else values.mean(axis=0)
    axis.imshow(shown, cmap="gray", vmin=0, vmax=1)


# -- the page ------------------------------------------------------------------------------------------


def _page(
    results: Results,
    recipes: Mapping[str, Recipe],
    panels: Sequence[SceneReader],
    comparisons: Sequence[Comparison],
) -> str:
    request, tested = results.request, results.tested
    machines = sorted({fit.detector.file.training.machine_words for fit in results.fits})
    channels = sum(modality.channels for modality in results.modalities)
    text = (
        f"# Xie et al. 2019: partial convolutions and several sensors on "
        f"{request.dataset or 'generated paintings'}\n\n"
        f"{counted(len(panels), 'panel')}, {counted(len(results.modalities), 'sensor')}, "
        f"{channels} channels. Of each panel the left half is for training and the right half for test, as in the paper; "
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
                    f"{_parameters(fits[0]):,}",
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
        "bootstrap interval over seeds and patches, and in how many seeds and panels it is above 0. Patches of one panel "
        "resemble each other, so the interval is of these panels, not of paintings at large.\n\n"
    )
    return head + table(["the paper", "compared", "difference", "seeds", "panels"], rows, left=2)


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
