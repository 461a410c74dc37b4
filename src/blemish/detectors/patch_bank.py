"""Bank of the features of good images under one extractor, and the distance of a new image to it.

Nothing is trained by gradients: features are projected to their principal components and kept. Good images differ
from each other more in some places than in others; how much is estimated from the images of the bank, each compared
with all the others, and the map is normalised by it.

Places outside the image (NaN in every channel) are absent: their features are not drawn, and where places matter a bank
holds :data:`ABSENT` in their stead, which the search leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.detectors.contracts import OneProcess, Sharing
from blemish.detectors.feature_extractors import FeatureExtractor
from blemish.detectors.inside import absent_outside, inside_at, without_absent
from blemish.detectors.map_normaliser import MapNormaliser, resized_map
from blemish.detectors.principal_components import principal_components
from blemish.detectors.shared_draws import SharedDraws

SAMPLE = 40_000
"""Features that the principal components are computed from, at most."""
SAMPLE_VALUES = SAMPLE * 2048
"""Values of these features together, at most; those of images of up to 8 channels in patches of 16 × 16 have no more."""
QUERIES = 256
"""Features that are compared at once where places do not matter."""
FEATURES = 1024
"""Features of the bank that are compared with at once."""
NORMALISING = 64
"""Images of the bank that the normaliser is fitted on."""
BLOCK = 4
"""Side in steps of the places that are compared at once where they do."""
ABSENT = -65504.0
"""Value of a bank at a place outside the image: the least of half precision, which no feature comes near.

It is a number, because weights that hold none are refused as damaged."""


class TensorSequence(Protocol):
    """Images (C, H, W) in [0, 1] by number; a list of them is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class PatchBank(nn.Module):
    """Features of good images; :meth:`forward` gives the distance of an image to them, normalised by good images.

    Parameters
    ----------
    extractor: of the features.
    dimensions: principal components that are kept of a feature.
    capacity: features that are kept where places do not matter.
    images: that are kept where they do.
    nearest_images: of these, those that a new image is compared with: the nearest ones as a whole.
    reach: how far around its block of 4 × 4 places a feature is searched for, in steps, where places matter.
    """

    mean: Tensor
    basis: Tensor
    bank: Tensor
    size: Tensor

    def __init__(
        self,
        extractor: FeatureExtractor,
        *,
        dimensions: int,
        capacity: int,
        images: int,
        nearest_images: int,
        reach: int,
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.dimensions, self.capacity, self.images = dimensions, capacity, images
        self.nearest_images, self.reach = nearest_images, reach
        self.register_buffer("bank", torch.zeros(0, 0, dtype=torch.float16))
        self.normaliser = MapNormaliser()
        self.reset()

    def reset(self) -> None:
        """Empty the bank, as before :meth:`fit`."""
        device = self.bank.device
        self.bank = torch.zeros(0, 0, dtype=torch.float16, device=device)
        self._absent: bool | None = None
        self.register_buffer("mean", torch.zeros(0, device=device))
        self.register_buffer("basis", torch.zeros(0, 0, device=device))
        self.normaliser.reset()
        # (height, width) that every image is brought to where places matter.
        self.register_buffer("size", torch.zeros(2, dtype=torch.int64, device=device))
        self.group_rows: dict[int, Tensor] = {}
        """Rows of :attr:`bank` of the group of each image of the last :meth:`fit`, by its number; not saved."""

    @property
    def is_empty(self) -> bool:
        """True if the bank holds no features yet."""
        return self.bank.numel() == 0

    @property
    def by_place(self) -> bool:
        """True if a feature is compared with those of the same place only."""
        return self.bank.ndim == 4

    @property
    def _has_absent(self) -> bool:
        """True if the bank lacks some place of an image, which is looked for once."""
        if self._absent is None:
            self._absent = bool((self.bank[..., 0] == ABSENT).any())
        return self._absent

    @property
    def _shape(self) -> tuple[int, int]:
        height, width = self.size.tolist()
        return height, width

    @torch.no_grad()
    def fit(
        self,
        images: TensorSequence,
        generator: torch.Generator,
        *,
        by_place: bool,
        groups: Sequence[Hashable] | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        """Keep the features of ``images``, (C, H, W) each in [0, 1] or NaN, in place of earlier ones.

        Parameters
        ----------
        by_place: whether features are kept with their place, which helps where all images show the same object in the
            same pose. Images of several sizes are then all resized to the median one, as suits parts that were
            cropped along their outline.
        groups: group of each image. The spread of good images is measured between groups, unless all are of one:
            two images of one object are more similar than a new object will be. Without it each image is a group.
        sharing: of the images among processes that fill the same bank: each computes the features of its own, and all have
            the bank that one process would have. By default there is one process.

        Raises
        ------
        UsageError
            When an image is too small for the extractor.
        """
        self.reset()
        sharing = sharing or OneProcess()
        sizes = image_sizes(images, sharing)
        self.extractor.check(*sizes.amin(0).tolist())
        count = len(images)
        own = [number for number in range(count) if sharing.is_own(number)]
        source: TensorSequence | dict[int, Tensor] = images
        if self.extractor.reduction > 1:  # small enough to be kept
            source = {number: self._reduced(images[number][None])[0] for number in own}
            reduced = {number: torch.tensor(image.shape[1:]) for number, image in source.items()}
            sizes = _in_order(sharing.collected(reduced))
        if by_place:
            self.size = sizes.median(0).values.to(self.size)

        def view(number: int) -> Tensor:
            image = source[number][None].to(self.bank.device)
            return self._resized(image) if by_place else image

        order = torch.randperm(count, generator=generator).tolist()
        draws = SharedDraws(self._drawn, view, generator, sharing, own)
        sample = self._sample(draws, order)
        self.mean = sample.mean(0)
        sample -= self.mean
        self.basis = principal_components(sample, self.dimensions, generator)  # (features, k)
        del sample
        if by_place:
            placed = order[: self.images]
            features = {
                number: self._features(view(number))[0] for number in placed if sharing.is_own(number)
            }
            found = sharing.collected(features)
            kept = [found[number].to(self.bank.device) for number in placed]
            self.bank = torch.stack(kept, 2).nan_to_num(ABSENT).half()  # (h, w, images, k)
            rows = torch.split(torch.arange(len(kept)), 1)
        else:
            parts = draws.of_each(order, math.ceil(self.capacity / count), self._projected)
            self.bank = torch.cat(parts)[: self.capacity].half()  # (features, k)
            drawn = torch.split(torch.arange(sum(map(len, parts))), [len(part) for part in parts])
            rows = tuple(part[part < len(self.bank)] for part in drawn)
        self.group_rows = _by_group(dict(zip(order, rows, strict=False)), groups or range(count))
        self._fit_normaliser(view, sharing)

    def _fit_normaliser(self, view: Callable[[int], Tensor], sharing: Sharing) -> None:
        """Measure the distance of good images to the others, on some of those in the bank."""
        if len(self.group_rows) > 1:  # or there is nothing to compare the one image with
            chosen = list(self.group_rows)[:NORMALISING]
            found = sharing.collected(
                {
                    number: self._distances(view(number), number)[0]
                    for number in chosen
                    if sharing.is_own(number)
                }
            )
            distances = [found[number].to(self.bank.device) for number in chosen]
            self.normaliser.fit(distances, by_place=self.by_place)

    def forward(self, x: Tensor, without: int | None = None) -> Tensor:
        """Distance of each pixel to the bank, beyond that of good images: (N, C, H, W) to (N, 1, H, W), at least 0.

        It is 0 outside the image. The unit is the standard deviation of good images at that place, or over all places.

        Parameters
        ----------
        without: number of an image of the last :meth:`fit` of this object, whose whole group is left out of the
            comparison; to score an image that the bank holds.

        Raises
        ------
        UsageError
            When a side of the images is too short.
        """
        self.extractor.check(x.shape[2], x.shape[3])
        reduced = self._reduced(x)
        view = self._resized(reduced) if self.by_place else reduced
        # What is absent must not fade into its neighbours.
        values, _ = without_absent(self.normaliser(self._distances(view, without))[:, None])
        fine = _upsampled(
            values, self.extractor.stride, self.extractor.offset, (view.shape[2], view.shape[3])
        )
        fine = resized_map(fine, (reduced.shape[2], reduced.shape[3]))
        fine = resized_map(fine, (x.shape[2], x.shape[3]))
        _, inside = without_absent(x)
        return fine if inside is None else fine * inside[:, None]

    def distances(self, x: Tensor, without: int | None = None) -> Tensor:
        """Distance of each feature of ``x`` (N, C, H, W) to the nearest of the bank: (N, h, w), at least 0 or NaN.

        It is NaN where the image does not reach, and where no image of the bank does.

        Under the extractor ``structure``, two patches without any similarity of structure lie 1 apart. Where places
        matter, the reduced image has the size of the bank.
        """
        return self._distances(self._reduced(x), without)

    def _distances(self, view: Tensor, without: int | None) -> Tensor:
        left_out = self.group_rows.get(without) if without is not None else None
        features = self._features(view)  # (N, h, w, k)
        if self.by_place:
            squares = torch.stack([self._by_place(one, left_out) for one in features])
        else:
            bank = self.bank
            if left_out is not None:
                stays = torch.ones(len(bank), dtype=torch.bool, device=bank.device)
                stays[left_out] = False
                bank = bank[stays]
            squares = _squares(features.flatten(0, 2), bank.float()).view(features.shape[:3])
        return (squares / (2 * len(self.mean))).clamp(min=0).sqrt()

    def _reduced(self, x: Tensor) -> Tensor:
        known, inside = without_absent(x)
        if inside is None:
            return self.extractor.reduced(x)
        more = (inside,) if self.extractor.takes_inside else ()
        return absent_outside(self.extractor.reduced(known, *more), inside)

    def _resized(self, reduced: Tensor) -> Tensor:
        """A reduced image at the size of the bank."""
        known, inside = without_absent(reduced)
        resized = resized_map(known, self._shape)
        return resized if inside is None else absent_outside(resized, inside)

    def _features(self, view: Tensor) -> Tensor:
        """Projected features (N, h, w, k) of a view, NaN at places outside the image."""
        known, inside = without_absent(view)
        projected = self.extractor.projected(known, self.mean, self.basis, inside)
        if inside is None:
            return projected
        size = (projected.shape[1], projected.shape[2])
        places = inside_at(inside, self.extractor.stride, self.extractor.offset, size)
        return projected.masked_fill(~places[..., None], math.nan)

    def _projected(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.basis

    def _sample(self, draws: SharedDraws, order: Sequence[int]) -> Tensor:
        """Features that the principal components are computed from: (n, f), fewer of features of many values."""
        return torch.cat(draws.of_each(order, math.ceil(SAMPLE / len(order)), values=SAMPLE_VALUES))

    def _drawn(self, view: Tensor, count: int, generator: torch.Generator) -> Tensor:
        known, inside = without_absent(view)

        def draw(rows: int, columns: int) -> Tensor:
            if inside is None:
                return torch.randperm(rows * columns, generator=generator)[:count]
            own = self.extractor
            places = (
                inside_at(inside, own.stride, own.offset, (rows, columns)).flatten().nonzero()[:, 0].cpu()
            )
            return places[torch.randperm(len(places), generator=generator)[:count]]

        return self.extractor.drawn(known, draw, inside)

    def _nearest_images(self, queries: Tensor, left_out: Tensor | None) -> Tensor:
        """Numbers in the bank of the images nearest to ``queries`` (h, w, k), by their mean over every other place: (n,).

        As Cohen and Hoshen 2020 do it (Sub-Image Anomaly Detection with Deep Pyramid Correspondences, section 3.2).
        """
        rows, counts = [], []
        for query, row in zip(queries[::2, ::2], self.bank[::2, ::2], strict=True):  # (w, k), (w, images, k)
            present = _present(row) if self._has_absent else row.float()
            own = (present - query[:, None]).square().sum(2).sqrt()
            rows.append(own.nansum(0))
            counts.append((~own.isnan()).sum(0))
        # A mean, because images that the border cuts have fewer places to compare.
        distance = torch.stack(rows).sum(0) / torch.stack(counts).sum(0)
        distance = distance.nan_to_num(math.inf)
        if left_out is not None:
            distance[left_out] = math.inf
        others = len(distance) - (0 if left_out is None else len(left_out))
        return distance.topk(min(self.nearest_images, others), largest=False).indices

    def _by_place(self, queries: Tensor, left_out: Tensor | None) -> Tensor:
        """Squared distance of each of ``queries`` (h, w, k) to the nearest of the bank near its place: (h, w).

        NaN where a query is absent, or all of the bank around it.
        """
        height, width, k = queries.shape
        images = self.bank[:, :, self._nearest_images(queries, left_out)]
        nearest = torch.full((height, width), math.nan, device=queries.device)
        for top in range(0, height, BLOCK):
            rows = slice(max(0, top - self.reach), top + BLOCK + self.reach)
            for left in range(0, width, BLOCK):
                columns = slice(max(0, left - self.reach), left + BLOCK + self.reach)
                bank = images[rows, columns].reshape(-1, k)
                if self._has_absent:
                    bank = bank[bank[:, 0] != ABSENT]
                    if not len(bank):
                        continue
                bank = bank.float()
                block = queries[top : top + BLOCK, left : left + BLOCK]
                # Features of one place are alike, and their common part would cost most of the precision; so would a
                # square that is the sum of larger ones.
                own = block.reshape(-1, k)
                centre = bank[: len(own)].mean(0)
                near, own = bank - centre, own - centre
                found = near[_argmin(torch.addmm(near.square().sum(1), own, near.T, alpha=-2))]
                squares = (own - found).square().sum(1)
                nearest[top : top + BLOCK, left : left + BLOCK] = squares.view(block.shape[:2])
        return nearest

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._absent = None
        # The size of the bank is not known before the file is read.
        for name in ("mean", "basis", "bank"):
            value = state_dict.get(prefix + name)
            if value is not None:
                setattr(self, name, torch.empty_like(value, device=self.bank.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def image_sizes(images: TensorSequence, sharing: Sharing | None = None) -> Tensor:
    """Height and width of each of ``images``: (N, 2); of those that another process has, as it reports them."""
    sharing = sharing or OneProcess()
    own = [number for number in range(len(images)) if sharing.is_own(number)]
    return _in_order(sharing.collected({number: torch.tensor(images[number].shape[1:]) for number in own}))


def _in_order(found: dict[int, Tensor]) -> Tensor:
    return torch.stack([found[number] for number in sorted(found)])


def _by_group(rows: dict[int, Tensor], groups: Sequence[Hashable]) -> dict[int, Tensor]:
    """Rows of the group of each image, by the rows of the images; its own alone where all are of one group."""
    members: dict[Hashable, list[Tensor]] = {}
    for number, own in rows.items():
        members.setdefault(groups[number], []).append(own)
    if len(members) == 1:
        return rows
    return {number: torch.cat(members[groups[number]]) for number in rows}


def _present(bank: Tensor) -> Tensor:
    """Features (..., k) of a bank in single precision, NaN where they are absent."""
    return bank.float().masked_fill(bank[..., :1] == ABSENT, math.nan)


def _argmin(values: Tensor) -> Tensor:
    """Place of the least of each row of ``values`` (n, m): (n,)."""
    if values.device.type == "cpu":  # numpy compares several values at once
        return torch.from_numpy(values.numpy().argmin(1))
    return values.argmin(1)


def _squares(queries: Tensor, bank: Tensor) -> Tensor:
    """Squared distance of each of ``queries`` (n, k) to the nearest of ``bank`` (m, k): (n,).

    |q - b|² - |q|² = |b|² - 2 q · b is one product of (-2 q, 1) and (b, |b|²), so nothing is added to it in a pass of its own.
    """
    longer = torch.cat([bank, bank.square().sum(1, keepdim=True)], 1)  # (m, k + 1)
    parts = [part.T.contiguous() for part in torch.split(longer, FEATURES)]
    scaled = torch.cat([-2 * queries, queries.new_ones(len(queries), 1)], 1)  # (n, k + 1)
    nearest = []
    for some in torch.split(scaled, QUERIES):
        # A running minimum over parts that stay in cache is several times as quick as one product with all.
        least: Tensor | None = None
        for part in parts:
            own = torch.mm(some, part).amin(1)
            least = own if least is None else torch.minimum(least, own)
        assert least is not None
        nearest.append(least)
    return torch.cat(nearest) + queries.square().sum(1)


def _upsampled(values: Tensor, stride: int, offset: int, shape: tuple[int, int]) -> Tensor:
    """``values`` (N, 1, h, w) of places ``stride`` apart, the first at ``offset``, at each pixel of ``shape``."""
    rows, columns = ((side - 1) * stride + 1 for side in values.shape[2:])
    fine = F.interpolate(values, size=(rows, columns), mode="bilinear", align_corners=True)
    missing = (max(0, shape[1] - columns - offset), max(0, shape[0] - rows - offset))
    fine = F.pad(fine, (offset, missing[0], offset, missing[1]), mode="replicate")
    return fine[..., : shape[0], : shape[1]]
