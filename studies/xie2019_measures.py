"""Measurements of Xie et al. 2019: SSIM of patches and near their corners, differences between models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from blemish.data.modality import Modality
from blemish.data.scene_reader import SceneReader
from blemish.evaluation.reconstruction_baselines import BLURRED, FLAT, blurred, flat
from blemish.inspection.detector import Detector
from blemish.models import Autoencoder
from blemish.models.modal_similarity import LUMA, modal_residuals, modal_ssim
from blemish.training.device import choose_machine
from blemish.training.modality_figures import baseline_figures
from studies.protocol import Request, autoencoder_of, held_out
from studies.xie2019_rows import CROSSED, Claim, Figure, Row

Floats = NDArray[np.floating[Any]]
WINDOW = 8
"""Side of the local windows of Figure 6."""
K1, K2 = 0.01, 0.03
SAMPLES = 2000
CROSSED_PATCHES = 256
"""Of the test patches, at most, for a pass of each modality from the others is one more."""
_BATCH = 128


class Patches(NamedTuple):
    """Squares to test on."""

    pixels: NDArray[np.float32]
    """(N, C, P, P) in [0, 1], with nothing absent."""
    scene: NDArray[np.intp]
    """(N,) number of the scene of each."""
    names: tuple[str, ...]
    """Names of the scenes."""


class Material(NamedTuple):
    """All that is tested on."""

    halves: Patches
    """Patches of the right halves of the scenes whose left halves were trained on."""
    unseen: Patches
    """Patches of scenes that nothing was trained on; there may be none."""


def cut(parts: Sequence[tuple[SceneReader, slice]], patch: int, most: int) -> Patches:
    """Patches beside each other in the given columns of each scene, those that all sensors saw whole.

    Of more than ``most`` in all, as many of each scene, evenly spread.
    """
    pixels, numbers = [], []
    for number, (reader, columns) in enumerate(parts):
        corners = [
            (top, left)
            for top in range(0, reader.height - patch + 1, patch)
            for left in range(columns.start, columns.stop - patch + 1, patch)
        ]
        share = max(1, most // len(parts))
        if len(corners) > share:
            corners = [
                corners[place] for place in np.linspace(0, len(corners) - 1, share).round().astype(int)
            ]
        with reader:
            windows = [reader.read(*corner, patch, patch) for corner in corners]
        whole = [window for window in windows if np.isfinite(window).all()]
        pixels += whole
        numbers += [number] * len(whole)
    channels = parts[0][0].channels if parts else 0
    return Patches(
        np.stack(pixels) if pixels else np.empty((0, channels, patch, patch), np.float32),
        np.array(numbers, np.intp),
        tuple(reader.name for reader, _ in parts),
    )


def local_ssim(x: Tensor, y: Tensor, *, data_range: float, window: int = WINDOW) -> Tensor:
    """SSIM (equation 4) of every ``window`` × ``window`` square, with equal weights for all its pixels.

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
    x, y = x.double(), y.double()  # variances are differences of nearly equal squares
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


class PatchSimilarity(NamedTuple):
    """SSIM of N patches and their reconstructions."""

    ssim: Floats
    """(N, M), by modality."""
    local: Floats
    """(N, D), mean over the modalities, by distance to the corners."""


class Fit(NamedTuple):
    """One fit, and what was measured of it."""

    row: Row
    seed: int
    detector: Detector
    halves: PatchSimilarity
    unseen: PatchSimilarity
    crossed: Floats | None
    """(n, M): SSIM of each modality as the others predict it, where the row is asked for that."""


@torch.no_grad()
def patch_similarity(
    model: Autoencoder, pixels: NDArray[np.float32], modalities: Sequence[Modality]
) -> PatchSimilarity:
    """Patches (N, C, P, P) beside their reconstructions; SSIM under the Gaussian window of the loss."""
    device = next(model.parameters()).device
    return reconstruction_similarity(
        lambda x: model(x.to(device)).reconstruction.float().cpu(), pixels, modalities
    )


def reconstruction_similarity(
    reconstruct: Callable[[Tensor], Tensor], pixels: NDArray[np.float32], modalities: Sequence[Modality]
) -> PatchSimilarity:
    """:func:`patch_similarity` of any way to reconstruct batches (N, C, P, P)."""
    distance = corner_distance(pixels.shape[-1])
    whole, local = [np.empty((0, len(modalities)))], [np.empty((0, int(distance.max()) + 1))]
    for x in _batches(pixels):
        y = reconstruct(x)
        whole.append(modal_ssim(x, y, modalities, data_range=1.0).ssim.double().numpy())
        maps = [
            local_ssim(a, b, data_range=1.0).mean(1)
            for a, b in zip(_as_compared(x, modalities), _as_compared(y, modalities), strict=True)
        ]
        local.append(by_distance(torch.stack(maps, 1), distance).numpy())
    return PatchSimilarity(np.concatenate(whole), np.concatenate(local))


def measure_baselines(
    tested: Material, training: NDArray[np.float32], modalities: Sequence[Modality]
) -> list[dict[str, Any]]:
    """SSIM of reconstructions without a network: flat grey, blur, and the mean of ``training`` patches (N, C, P, P)."""
    mean = torch.from_numpy(training.mean(axis=0))

    def each(way: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.from_numpy(np.stack([way(one) for one in x.numpy()]))

    ways = {FLAT: each(flat), BLURRED: each(blurred), "mean training patch": lambda x: mean.expand_as(x)}
    rows = []
    for name, way in ways.items():
        halves, unseen = (
            reconstruction_similarity(way, one.pixels, modalities) for one in (tested.halves, tested.unseen)
        )
        rows.append(
            {
                "name": name,
                "ssim": float(halves.ssim.mean()),
                "unseen": float(unseen.ssim.mean()) if len(unseen.ssim) else None,
                "local_ssim": halves.local.mean(axis=0).tolist(),
            }
        )
    return rows


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


def crossed_patches(tested: Material) -> NDArray[np.float32]:
    """Test patches (n, C, P, P) on which each modality is predicted from the others: evenly spread over all."""
    pixels = tested.halves.pixels
    return pixels[:: math.ceil(len(pixels) / CROSSED_PATCHES)]


def crossed_baselines(
    tested: Material, training: NDArray[np.float32], modalities: Sequence[Modality]
) -> dict[str, dict[str, float | None]]:
    """SSIM by modality of predictions without a network: the mean of each patch, and linear regression on the others."""
    found = baseline_figures(
        torch.from_numpy(crossed_patches(tested)),
        torch.from_numpy(training[: 2 * CROSSED_PATCHES]),
        modalities,
    )
    names = [one.name for one in modalities]
    return {
        "constant": dict(zip(names, found.constant, strict=True)),
        "linear regression": dict(zip(names, found.linear, strict=True)),
    }


def measure_fit(
    row: Row, seed: int, detector: Detector, modalities: Sequence[Modality], tested: Material
) -> Fit:
    model = autoencoder_of(detector).to(choose_machine(detector.recipe.training.device).device)
    crossed = None
    if row.name in CROSSED and len(modalities) > 1:
        crossed = crossed_ssim(model, crossed_patches(tested), modalities)
    fit = Fit(
        row,
        seed,
        detector,
        patch_similarity(model, tested.halves.pixels, modalities),
        patch_similarity(model, tested.unseen.pixels, modalities),
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
    """Everything that tables and figures are made from."""

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
        pick: Callable[[PatchSimilarity], Floats] = {
            "ssim": lambda one: one.ssim.mean(axis=1),
            "corner": lambda one: one.local[:, 0],
        }[figure]
        return np.stack([pick(fit.halves) for fit in self.of(row)])

    def compare(self, claim: Claim) -> Comparison:
        differences = self.by_patch(claim.above, claim.figure) - self.by_patch(claim.below, claim.figure)
        scene = self.tested.halves.scene
        by_scene = [differences[:, scene == number].mean() for number in np.unique(scene)]
        return Comparison(
            float(differences.mean()),
            *pigeonhole_interval(differences),
            seeds=int((differences.mean(axis=1) > 0).sum()),
            of_seeds=len(differences),
            panels=sum(bool(value > 0) for value in by_scene),
            of_panels=len(by_scene),
        )


def fit_record(fit: Fit, modalities: Sequence[Modality]) -> dict[str, Any]:
    training, names = fit.detector.file.training, [one.name for one in modalities]

    def by_modality(values: Floats | None) -> dict[str, float] | None:
        if values is None or not len(values):
            return None
        return dict(zip(names, values.mean(axis=0).tolist(), strict=True))

    return {
        "row": fit.row.name,
        "recipe": fit.row.recipe,
        "seed": fit.seed,
        "parameters": parameters(fit),
        "settings": fit.detector.recipe.model_dump(
            mode="json", exclude={"version", "name", "title", "paper", "needs", "expect"}
        ),
        "steps": training.steps,
        "best_step": training.best_step,
        "held_out": held_out(training.history),
        "training_seconds": training.seconds,
        "machine": training.machine_words,
        "ssim": float(fit.halves.ssim.mean()),
        "ssim_by_modality": by_modality(fit.halves.ssim),
        "ssim_unseen": float(fit.unseen.ssim.mean()) if len(fit.unseen.ssim) else None,
        "ssim_unseen_by_modality": by_modality(fit.unseen.ssim),
        "ssim_from_others": by_modality(fit.crossed),
        "local_ssim": fit.halves.local.mean(axis=0).tolist(),
    }


def parameters(fit: Fit) -> int:
    return sum(parameter.numel() for parameter in autoencoder_of(fit.detector).parameters())


def histories_by_row(fits: Sequence[Fit]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for fit in fits:
        found.setdefault(fit.row.name, []).append(fit.detector.file.training.history)
    return found
