"""Prediction of each modality from the pixels of the others, at full resolution.

A recipe of this project, beside the autoencoders of Xie, Meeus and Pižurica 2019, whose latent holds a fifteenth of the
values of its patch: what a modality shows and the others do not predict is then mostly what the latent cannot hold.

Each modality gives a few features at each pixel: its values, their squares and square roots (sensors and their files
differ in gamma), and means over Gaussian windows. Least squares from the features of the other modalities is solved in
closed form, from moments that are gathered while training draws patches; a small network at each pixel, trained by the
loss, adds what is not linear. A modality never sees itself, so that nothing is lost in a bottleneck and nothing is copied.

The same moments give the least-squares prediction from any set of modalities, so that one that is absent, whole or in
part, is no loss beyond what it alone would have told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blemish.data.modality import Modality
from blemish.errors import RecipeError
from blemish.layers.shared_batch import whole_batch
from blemish.models.contracts import ImageDecoder, ImageEncoder
from blemish.models.registry import DECODERS, ENCODERS, register

SIGMAS = (1.0, 2.5)
"""Standard deviations in pixels of the Gaussian windows."""
MOST_FEATURES = 256
"""Features in all, above which only the values themselves are taken."""
RIDGE = 1e-5
"""Added to the diagonal of the correlation matrix for the values themselves."""
RIDGE_OF_POWERS, RIDGE_OF_MEANS = 0.1, 0.01
"""The same for squares and roots, and for means over windows: what a few scenes say of these holds less in others."""
MOST_IN_A_GRAPH = 6
"""Modalities up to which an exported graph has the predictions from every set of present ones."""
_ROOT = 1e-3
_FURTHEST = 6.0


@register(ENCODERS, "other-pixels")
class OtherPixelsEncoder(ImageEncoder):
    """Prediction of every channel from the other modalities: (N, C, H, W), NaN where absent, to (N, C, H, W).

    Parameters
    ----------
    modalities: whose channels form the images.
    patch: side of the training patch in pixels.
    width: channels of the hidden layers of the network that adds to the linear prediction.

    Raises
    ------
    RecipeError
        When there is one modality alone.
    """

    stride = 1
    takes_absent = True
    predicts_from_others = True

    complete: Tensor
    pairs: Tensor
    complete_count: Tensor
    pair_counts: Tensor
    complete_mean: Tensor
    pair_mean: Tensor
    correlation: Tensor
    mean: Tensor
    deviation: Tensor
    residual: Tensor

    def __init__(
        self,
        *,
        modalities: Sequence[Modality],
        patch: int = 64,
        width: Annotated[int, Field(ge=1, le=256)] = 32,
    ) -> None:
        super().__init__()
        if len(modalities) < 2:
            raise RecipeError(
                "encoder 'other-pixels' predicts each modality from the others, and there is one alone; fit scenes of "
                "two modalities at least, or choose another recipe"
            )
        self.patch = patch
        self.sizes = [modality.channels for modality in modalities]
        self.latent_shape = (sum(self.sizes), patch, patch)
        kinds = 3 + len(SIGMAS)
        self.is_expanded = sum(self.sizes) * kinds <= MOST_FEATURES
        self.counted = [size * (kinds if self.is_expanded else 1) for size in self.sizes]
        total, count = sum(self.counted), len(self.sizes)
        kinds_of_ridges = (RIDGE, RIDGE_OF_POWERS, RIDGE_OF_POWERS, *[RIDGE_OF_MEANS] * len(SIGMAS))
        self._ridges = [
            ridge
            for size in self.sizes
            for ridge in (kinds_of_ridges if self.is_expanded else (RIDGE,))
            for _ in range(size)
        ]
        starts = [sum(self.counted[:index]) for index in range(count)]
        self._values = [
            start + channel for start, size in zip(starts, self.sizes, strict=True) for channel in range(size)
        ]
        """Rows of the values themselves among the features."""
        self._owner = [index for index, own in enumerate(self.counted) for _ in range(own)]
        for name, shape in (
            ("complete", (total, total)),
            ("complete_mean", (total,)),
            ("complete_count", ()),
            ("pairs", (total, total)),
            ("pair_mean", (total,)),
            ("pair_counts", (count, count)),
        ):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("correlation", torch.eye(total))
        self.register_buffer("mean", torch.full((total,), 0.5))
        self.register_buffer("deviation", torch.ones(total))
        self.register_buffer("residual", torch.full((count,), 0.1))
        self.networks = nn.ModuleList(_pointwise(total + count + size, width, size) for size in self.sizes)
        self.table: Tensor
        self.value_table: Tensor
        for name in ("table", "value_table"):
            self.register_buffer(name, torch.zeros(0), persistent=False)
        self._solved: dict[tuple[int, bool], Tensor] = {}
        self._due = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self._predict(x)
        with torch.autocast(x.device.type, enabled=False):  # differences of large weights need all digits
            return self._predict(x.float())

    def _predict(self, x: Tensor) -> Tensor:
        present = self._present(x)
        with torch.no_grad():
            features = self._features(x, present)  # (N, T, H, W)
            if self.training:
                self._gather(whole_batch(features), whole_batch(present))
            known = present[:, self._owner]
            standard = (features - self.mean[:, None, None]) / self.deviation[:, None, None]
            standard = torch.where(known, standard, 0.0).clamp(-_FURTHEST, _FURTHEST)
            linear = self._linear(standard, present)  # (N, C, H, W), in standard units
        predicted = []
        first = 0
        for index, size in enumerate(self.sizes):
            y = linear[:, first : first + size]
            first += size
            rows = self._rows(index)
            shown = standard.clone()
            shown[:, rows] = 0
            there = present.to(y.dtype)
            y = y + self.networks[index](torch.cat([shown, there, y.clamp(-_FURTHEST, _FURTHEST)], 1))
            own = slice(rows.start, rows.start + size)  # its values, before the other features
            predicted.append(y * self.deviation[own, None, None] + self.mean[own, None, None])
        result = torch.cat(predicted, 1)
        if self.training:
            self._measure(*map(whole_batch, (x, result, present)))
        return result

    @torch.no_grad()
    def least_squares(self, x: Tensor) -> Tensor:
        """Predict each modality from the values of the others by least squares alone: (N, C, H, W) to the same."""
        if torch.compiler.is_compiling():
            return self._least_squares(x)
        with torch.autocast(x.device.type, enabled=False):
            return self._least_squares(x.float())

    def _least_squares(self, x: Tensor) -> Tensor:
        present = self._present(x)
        mean, deviation = (part[self._values][:, None, None] for part in (self.mean, self.deviation))
        there = present[:, [self._owner[row] for row in self._values]]
        standard = torch.where(there, (torch.nan_to_num(x) - mean) / deviation, 0.0)
        return self._linear(standard, present, values_alone=True) * deviation + mean

    def _present(self, x: Tensor) -> Tensor:
        """(N, M, H, W): whether all channels of a modality are there."""
        return torch.cat([~part.isnan().any(1, keepdim=True) for part in torch.split(x, self.sizes, 1)], 1)

    def _features(self, x: Tensor, present: Tensor) -> Tensor:
        """(N, T, H, W), finite; those of a modality follow each other."""
        parts = []
        for index, part in enumerate(torch.split(x, self.sizes, 1)):
            there = present[:, index : index + 1]
            values = torch.where(there, part, 0.0)
            kinds = [values]
            if self.is_expanded:
                kinds += [values.square(), (values.clamp_min(0) + _ROOT).sqrt()]
                weight = there.to(values.dtype)
                kinds += [blurred(values, sigma) / blurred(weight, sigma).clamp_min(1e-3) for sigma in SIGMAS]
            parts.append(torch.cat(kinds, 1))
        return torch.cat(parts, 1)

    def _linear(self, standard: Tensor, present: Tensor, *, values_alone: bool = False) -> Tensor:
        """Least-squares prediction of each modality from those others that are present at the pixel.

        ``standard`` has all features, or the values alone.
        """
        if torch.compiler.is_compiling():
            return self._in_a_graph(standard, present, self.value_table if values_alone else self.table)
        if bool(present.all()):
            codes, found = None, [2 ** len(self.sizes) - 1]
        else:
            places = 2 ** torch.arange(len(self.sizes), device=present.device)
            codes = (present * places[:, None, None]).sum(1)  # (N, H, W)
            found = torch.unique(codes).tolist()
        if codes is None or len(found) == 1:
            weights = self._weights(int(found[0]), values_alone)
            return F.conv2d(standard, weights.to(standard)[:, :, None, None])
        rows = standard.permute(0, 2, 3, 1)
        result = rows.new_zeros((*rows.shape[:3], sum(self.sizes)))
        for code in found:
            where = codes == code
            result[where] = rows[where] @ self._weights(int(code), values_alone).to(standard).T
        return result.permute(0, 3, 1, 2)

    def _weights(self, code: int, values_alone: bool = False) -> Tensor:
        """From all features, (C, T), or the values alone, (C, C), where the modalities of the bits of ``code`` are present."""
        if (code, values_alone) in self._solved:
            return self._solved[code, values_alone]
        correlation = self.correlation.double().cpu()
        correlation.diagonal().add_(torch.tensor(self._ridges, dtype=torch.float64))
        owner = torch.tensor(self._owner)
        rows = torch.tensor(self._values)
        used = rows if values_alone else torch.arange(len(owner))
        weights = torch.zeros(len(rows), len(used), dtype=torch.float64)
        first = 0
        for index, size in enumerate(self.sizes):
            others = torch.tensor([own != index and bool(code >> own & 1) for own in owner[used].tolist()])
            own = rows[first : first + size]
            if others.any():
                system = correlation[used[others]][:, used[others]]
                right = correlation[used[others]][:, own]
                weights[first : first + size, others] = torch.linalg.solve(system, right).T
            first += size
        self._solved[code, values_alone] = weights.float()
        return self._solved[code, values_alone]

    def _in_a_graph(self, standard: Tensor, present: Tensor, table: Tensor) -> Tensor:
        """The same without asking which modalities are present: all predictions, of which each pixel takes its own."""
        sets, channels = len(table), sum(self.sizes)
        every = F.conv2d(standard, table.flatten(0, 1)[:, :, None, None])
        every = every.reshape(standard.shape[0], sets, channels, *standard.shape[2:])
        places = 2 ** torch.arange(len(self.sizes), device=present.device)
        codes = (present * places[:, None, None]).sum(1)
        chosen = codes[:, None] == torch.arange(sets, device=codes.device)[:, None, None]  # (N, sets, H, W)
        chosen_values: Tensor = (every * chosen[:, :, None]).sum(1)
        return chosen_values

    def _rows(self, index: int) -> slice:
        start = sum(self.counted[:index])
        return slice(start, start + self.counted[index])

    # -- moments -----------------------------------------------------------------------------------

    @torch.no_grad()
    def _gather(self, features: Tensor, present: Tensor) -> None:
        """Add a batch to the moments, and solve again where they have grown by a tenth."""
        total = features.shape[1]
        flat = features.transpose(0, 1).reshape(total, -1) - 0.5
        there = present.transpose(0, 1).reshape(len(self.sizes), -1)
        whole = there.all(0)
        part, number = flat[:, whole], float(whole.sum())
        after = float(self.complete_count) + number
        if number:
            # Running means keep their digits where sums would lose them.
            self.complete.lerp_(part @ part.T / number, number / after)
            self.complete_mean.lerp_(part.mean(1), number / after)
            self.complete_count.fill_(after)
        weight = there.to(flat.dtype)
        counts = weight @ weight.T
        if not bool(whole.all()):
            shown = flat * weight[self._owner]
            now = counts[self._owner][:, self._owner]
            both = (self.pair_counts[self._owner][:, self._owner] + now).clamp_min(1)
            self.pairs.add_((shown @ shown.T - self.pairs * now) / both)
            self.pair_mean.add_((shown.sum(1) - self.pair_mean * now.diagonal()) / both.diagonal())
            self.pair_counts.add_(counts)
        seen = float(self.complete_count + self.pair_counts.max())
        if seen >= self._due:
            self._due = 1.1 * seen
            self._standardise()

    def _standardise(self) -> None:
        """Correlation, mean and deviation of the features, from the pixels at which every modality is present."""
        is_complete = float(self.complete_count) >= 20 * len(self._owner)
        second, first = (self.complete, self.complete_mean) if is_complete else (self.pairs, self.pair_mean)
        if not is_complete and not bool(self.pair_counts.any()):
            second, first = self.complete, self.complete_mean
        second, first = second.double().cpu(), first.double().cpu()
        covariance = second - first[:, None] * first
        deviation = covariance.diagonal().clamp_min(1e-8).sqrt()
        correlation = covariance / (deviation[:, None] * deviation)
        if not is_complete:
            unseen = (self.pair_counts[self._owner][:, self._owner] == 0).cpu()
            correlation = torch.where(unseen & bool(self.pair_counts.any()), 0.0, correlation)
            # Moments of different pixels need not be those of any distribution.
            values, vectors = torch.linalg.eigh((correlation + correlation.T) / 2)
            correlation = (vectors * values.clamp_min(RIDGE)) @ vectors.T
        self.correlation.copy_(correlation)
        self.mean.copy_(first + 0.5)
        self.deviation.copy_(deviation)
        self._solved.clear()

    @torch.no_grad()
    def _measure(self, x: Tensor, y: Tensor, present: Tensor) -> None:
        """Follow the root mean square of what is not predicted of each modality."""
        for index, (target, predicted) in enumerate(
            zip(torch.split(x, self.sizes, 1), torch.split(y, self.sizes, 1), strict=True)
        ):
            there = present[:, index : index + 1].expand_as(target)
            if there.any():
                error = (target - predicted)[there].square().mean().sqrt()
                self.residual[index].lerp_(error, 0.05)

    def train(self, mode: bool = True) -> OtherPixelsEncoder:
        super().train(mode)
        if not mode:
            self._tabulate()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._solved.clear()
        self._tabulate()

    def _tabulate(self) -> None:
        """Keep the predictions from every set of present modalities for an exported graph."""
        count = len(self.sizes)
        if count <= MOST_IN_A_GRAPH:
            self.table, self.value_table = (
                torch.stack([self._weights(code, alone) for code in range(2**count)]).to(self.mean)
                for alone in (False, True)
            )


@register(DECODERS, "as-predicted")
class AsPredictedDecoder(ImageDecoder):
    """The output of the encoder ``other-pixels`` as it is: it has the channels and the size of the image."""

    def __init__(self, *, channels: int, patch: int = 64) -> None:
        super().__init__()
        self.channels = channels
        self.latent_grid = (patch, patch)

    def forward(self, latent: Tensor) -> Tensor:
        return latent


def _pointwise(features: int, width: int, channels: int) -> nn.Sequential:
    """A network at each pixel that begins with 0, so that training begins with the linear prediction."""
    last = nn.Conv2d(width, channels, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(cast(Tensor, last.bias))
    return nn.Sequential(
        nn.Conv2d(features, width, 1),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(width, width, 1),
        nn.LeakyReLU(0.1, inplace=True),
        last,
    )


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Sums of (N, c, H, W) under a Gaussian window, 0 beyond the border."""
    reach = math.ceil(3 * sigma)
    taps = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(taps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    down = kernel.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    across = kernel.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    x = F.conv2d(x, down, padding=(reach, 0), groups=channels)
    return F.conv2d(x, across, padding=(0, reach), groups=channels)
