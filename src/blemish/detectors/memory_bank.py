"""A memory of how the good images are built: each small piece of a new one against the most alike remembered.

Two pieces x and y of an image, each without its mean and divided by its standard deviation, differ by

    ‖x̂ - ŷ‖² / n = 2 · (1 - s(x, y)),

with s the structure term of SSIM (Wang et al. 2004, equation 10). So the distance to the nearest remembered piece
asks how alike in structure the good images are at best, whatever their light and contrast. Nothing is trained by
gradients: the pieces are written in the basis of their principal components and kept.

Good images differ from each other more in some places than in others. How much is known from the remembered
ones, each compared with all the rest; what is shown is how far beyond that a place lies.

A rough or smooth area among pieces whose structure is as usual has another local contrast, SSIM's second term. So the
logarithm of local contrast is an image, too, which is remembered in the same way, at a quarter of the size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, Any, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blemish.detectors.map_normaliser import MapNormaliser, resized_map
from blemish.errors import UsageError
from blemish.similarity.windows import Window, window_mean

SAMPLE = 40_000
"""Pieces that the principal components are found from."""
QUERIES = 512
"""Pieces that are compared at once where places do not matter."""
SETTLING = 64
"""Remembered images that tell how unlike each other good images are."""
CONTRAST = Window(size=25, sigma=4.0)
"""Over which local contrast is taken."""
COARSER = 4
"""Pixels of an image to one of its local contrast."""
ROOM = 128
"""Shorter side in pixels of the median image from which on local contrast is compared: two pieces of 16, coarser."""
QUIET = 0.3
"""Local contrast, in units of the image's mean, below which differences fade."""
BLOCK = 4
"""Side in steps of the places that are compared at once where they do."""


class Images(Protocol):
    """Images (C, H, W) in [0, 1] by number; a list of them is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


def structure(x: Tensor, patch: int, stride: int, floor: float) -> Tensor:
    """The structure of each piece of an image: without its mean, divided by its contrast.

    Parameters
    ----------
    x: (N, C, H, W); mirrored at its border.
    patch: side of a piece in pixels, even.
    stride: from one piece to the next.
    floor: contrast below which a piece counts as flat, in units of the mean contrast of the image's pieces. It
        makes the result the same for a · x + b, a > 0.

    Returns
    -------
    (N, h, w, C · patch²), h = ⌊H / stride⌋ + 1.

    Raises
    ------
    UsageError
        When a side of the images is too short to be mirrored by half a piece.

    >>> structure(torch.rand(1, 1, 32, 48), 16, 4, 1.0).shape
    torch.Size([1, 9, 13, 256])
    """
    n, channels, height, width = x.shape
    if min(height, width) <= patch // 2:
        raise UsageError(
            f"an image of {width} × {height} pixels is too small for a memory of pieces of {patch} × {patch}; it "
            f"needs more than {patch // 2}"
        )
    padded = F.pad(x, (patch // 2,) * 4, mode="reflect")
    pieces = F.unfold(padded, patch, stride=stride)  # (N, C · patch², h · w)
    pieces = pieces.view(n, channels, patch * patch, -1)
    pieces = (pieces - pieces.mean(2, keepdim=True)).flatten(1, 2)
    deviation = pieces.square().mean(1, keepdim=True).sqrt()  # (N, 1, h · w)
    mean = deviation.mean(2, keepdim=True).clamp(min=1e-6)
    pieces = pieces / (deviation + floor * mean)
    return pieces.transpose(1, 2).reshape(n, height // stride + 1, width // stride + 1, -1)


def contrast(x: Tensor) -> Tensor:
    """Logarithm of the local contrast of images, at a quarter of their size.

    log(σ_x + 0.3 mean(σ_x)) with σ_x the standard deviation in a Gaussian window of 4 pixels (Wang et al. 2004,
    equation 15), of each channel by itself. A gain adds a constant, an offset nothing.

    Parameters
    ----------
    x: (N, C, H, W); each side at least 25.

    Returns
    -------
    (N, C, ⌊H / 4⌋, ⌊W / 4⌋).

    >>> contrast(torch.rand(1, 3, 130, 160)).shape
    torch.Size([1, 3, 32, 40])
    """
    x = x - x.mean((2, 3), keepdim=True)
    mu_x = window_mean(x, CONTRAST)
    sigma_x = (window_mean(x * x, CONTRAST) - mu_x * mu_x).clamp(min=0).sqrt()
    logarithm = (sigma_x + QUIET * sigma_x.mean((2, 3), keepdim=True) + 1e-6).log()
    return resized_map(logarithm, (x.shape[2] // COARSER, x.shape[3] // COARSER))


class PatchBank(nn.Module):
    """Small pieces of good images; :meth:`forward` is how unusually unlike all of them those of an image are.

    Parameters
    ----------
    patch, stride, floor: as :func:`structure` takes them.
    dimensions: principal components that are kept of a piece.
    capacity: pieces that are remembered where places do not matter.
    images: that are remembered where they do.
    alike: of these, those that a new image is compared with: the most alike ones as a whole.
    reach: how far around its block of 4 × 4 places a piece is looked for, in steps, where places matter.
    """

    mean: Tensor
    basis: Tensor
    bank: Tensor
    size: Tensor

    def __init__(
        self,
        *,
        patch: int,
        stride: int,
        floor: float,
        dimensions: int,
        capacity: int,
        images: int,
        alike: int,
        reach: int,
    ) -> None:
        super().__init__()
        self.patch, self.stride, self.floor = patch, stride, floor
        self.dimensions, self.capacity, self.images = dimensions, capacity, images
        self.alike, self.reach = alike, reach
        self.register_buffer("bank", torch.zeros(0, 0, dtype=torch.float16))
        self.usual = MapNormaliser()
        PatchBank.forget(self)

    def forget(self) -> None:
        """Remember nothing, as before :meth:`fill`."""
        device = self.bank.device
        self.bank = torch.zeros(0, 0, dtype=torch.float16, device=device)
        self.register_buffer("mean", torch.zeros(0, device=device))
        self.register_buffer("basis", torch.zeros(0, 0, device=device))
        self.usual.forget()
        # (height, width) that every image is brought to where places matter.
        self.register_buffer("size", torch.zeros(2, dtype=torch.int64, device=device))
        self.kin: dict[int, Tensor] = {}
        """Where in :attr:`bank` the group of each image of the last :meth:`fill` lies; not kept on disk."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is remembered yet."""
        return self.bank.numel() == 0

    @property
    def by_place(self) -> bool:
        """Whether a piece is compared with those of the same place only."""
        return self.bank.ndim == 4

    @property
    def _shape(self) -> tuple[int, int]:
        height, width = self.size.tolist()
        return height, width

    def fill(
        self,
        images: Images,
        generator: torch.Generator,
        *,
        by_place: bool,
        groups: Sequence[Hashable] | None = None,
    ) -> None:
        """Remember ``images``, (C, H, W) each in [0, 1]; forgets what was remembered before.

        Parameters
        ----------
        by_place: whether pieces are kept with their place, which says something where all images show the same
            thing in the same pose. Images of several sizes are then all stretched to the median one, as suits
            parts that were cut out along their outline.
        groups: what each image is of. How unlike good images are is told between groups, unless all are of one:
            two images of one thing are more alike than a new thing will be. Without it each is by itself.
        """
        self.forget()
        if by_place:
            self.size = _sides(images).median(0).values.to(self.size)

        def seen(number: int) -> Tensor:
            image = images[number][None].to(self.bank.device)
            return resized_map(image, self._shape) if by_place else image

        order = torch.randperm(len(images), generator=generator).tolist()
        sample = torch.cat([self._drawn(seen(i), math.ceil(SAMPLE / len(images)), generator) for i in order])
        self.mean = sample.mean(0)
        _, vectors = torch.linalg.eigh(torch.cov((sample - self.mean).T))
        self.basis = vectors.flip(1)[:, : self.dimensions].contiguous()  # (C · patch², k)
        if by_place:
            kept = [self._described(seen(i))[0] for i in order[: self.images]]
            self.bank = torch.stack(kept, 2).half()  # (h, w, images, k)
            own = torch.split(torch.arange(len(kept)), 1)
        else:
            each = math.ceil(self.capacity / len(images))
            pieces = [self._projected(self._drawn(seen(i), each, generator)) for i in order]
            self.bank = torch.cat(pieces)[: self.capacity].half()  # (pieces, k)
            lie = torch.split(torch.arange(sum(map(len, pieces))), [len(one) for one in pieces])
            own = tuple(one[one < len(self.bank)] for one in lie)
        self.kin = _kin(dict(zip(order, own, strict=False)), groups or range(len(images)))
        self._settle(seen)

    @torch.no_grad()
    def _settle(self, seen: Callable[[int], Tensor]) -> None:
        """Learn how unlike the others good images usually are, from some of those that are remembered."""
        if len(self.kin) > 1:  # or there is nothing to compare the one image with
            found = [self.distances(seen(number), number)[0] for number in list(self.kin)[:SETTLING]]
            self.usual.learn(found, by_place=self.by_place)

    def forward(self, x: Tensor, without: int | None = None) -> Tensor:
        """How unusually far each place is from all that is remembered: (N, C, H, W) to (N, 1, H, W), at least 0.

        As far as a place goes beyond the mean of good images at that place, or at all places, measured by their
        standard deviation.

        Parameters
        ----------
        without: number of an image that is not to count, nor its group, where the last :meth:`fill` was of this
            object: how unlike the others is an image that is remembered itself?
        """
        seen = resized_map(x, self._shape) if self.by_place else x
        unusual = self.usual(self.distances(seen, without))  # (N, h, w)
        shown = _upsampled(unusual[:, None], self.stride, (seen.shape[2], seen.shape[3]))
        return resized_map(shown, (x.shape[2], x.shape[3]))

    def distances(self, x: Tensor, without: int | None = None) -> Tensor:
        """Distance of each piece of ``x`` (N, C, H, W) to the nearest remembered one: (N, h, w), at least 0.

        In units in which two pieces without any likeness of structure lie 1 apart. Where places matter, ``x`` is of
        the size that is remembered.
        """
        left_out = self.kin.get(without) if without is not None else None
        described = self._described(x)  # (N, h, w, k)
        if self.by_place:
            squares = torch.stack([self._by_place(one, left_out) for one in described])
        else:
            bank = self.bank
            if left_out is not None:
                stays = torch.ones(len(bank), dtype=torch.bool, device=bank.device)
                stays[left_out] = False
                bank = bank[stays]
            squares = _anywhere(described.flatten(0, 2), bank.float()).view(described.shape[:3])
        return (squares / (2 * len(self.mean))).clamp(min=0).sqrt()

    def _described(self, x: Tensor) -> Tensor:
        return self._projected(structure(x, self.patch, self.stride, self.floor))

    def _projected(self, pieces: Tensor) -> Tensor:
        return (pieces - self.mean) @ self.basis

    def _drawn(self, image: Tensor, count: int, generator: torch.Generator) -> Tensor:
        pieces = structure(image, self.patch, self.stride, self.floor).flatten(0, 2)
        return pieces[torch.randperm(len(pieces), generator=generator)[:count]]

    def _most_alike(self, queries: Tensor, left_out: Tensor | None) -> Tensor:
        """Which remembered images are most like ``queries`` (h, w, k) in the mean of every other place: (n,).

        As Cohen and Hoshen 2020 do it (Sub-Image Anomaly Detection with Deep Pyramid Correspondences, section 3.2).
        """
        rows = []
        for some, row in zip(queries[::2, ::2], self.bank[::2, ::2], strict=True):  # (w, k), (w, images, k)
            squares = (row.float() - some[:, None]).square().sum(2)
            rows.append(squares.sqrt().sum(0))
        unlike = torch.stack(rows).sum(0)
        if left_out is not None:
            unlike[left_out] = math.inf
        others = len(unlike) - (0 if left_out is None else len(left_out))
        return unlike.topk(min(self.alike, others), largest=False).indices

    def _by_place(self, queries: Tensor, left_out: Tensor | None) -> Tensor:
        """Squared distance of each of ``queries`` (h, w, k) to the nearest remembered near its place: (h, w)."""
        height, width, k = queries.shape
        remembered = self.bank[:, :, self._most_alike(queries, left_out)]
        nearest = torch.empty(height, width, device=queries.device)
        for top in range(0, height, BLOCK):
            rows = slice(max(0, top - self.reach), top + BLOCK + self.reach)
            for left in range(0, width, BLOCK):
                columns = slice(max(0, left - self.reach), left + BLOCK + self.reach)
                bank = remembered[rows, columns].reshape(-1, k).float()
                block = queries[top : top + BLOCK, left : left + BLOCK]
                some = block.reshape(-1, k)
                nearest[top : top + BLOCK, left : left + BLOCK] = _anywhere(some, bank).view(block.shape[:2])
        return nearest

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # How much is remembered is not known before the file is read.
        for name in ("mean", "basis", "bank"):
            value = state_dict.get(prefix + name)
            if value is not None:
                setattr(self, name, torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args)


class MemoryBank(PatchBank):
    """The structure of good images, and that of their local contrast; what a network's map counts beside it.

    Parameters
    ----------
    patch, stride, floor, dimensions, capacity, images, alike, reach: as :class:`PatchBank` takes them.
    by_place: whether places matter; None leaves the choice to who fills the memory.
    share: of the memory in a detector's map, the rest being the network's; None leaves the choice, too.
    contrast: whether local contrast is remembered beside the image itself, where the median image's shorter side
        has 128 pixels or more, and no image is smaller than a piece.
    """

    units: Tensor
    counts: Tensor

    def __init__(
        self,
        *,
        patch: Annotated[int, Field(ge=4, multiple_of=2)] = 16,
        stride: Annotated[int, Field(ge=1)] = 4,
        floor: Annotated[float, Field(gt=0)] = 2.0,
        dimensions: Annotated[int, Field(ge=1)] = 16,
        capacity: Annotated[int, Field(ge=1)] = 30_000,
        images: Annotated[int, Field(ge=1)] = 1000,
        alike: Annotated[int, Field(ge=1)] = 50,
        reach: Annotated[int, Field(ge=0)] = 1,
        by_place: bool | None = None,
        share: Annotated[float | None, Field(ge=0, le=1)] = None,
        contrast: bool = True,
    ) -> None:
        settings: dict[str, Any] = {
            "patch": patch,
            "stride": stride,
            "floor": floor,
            "dimensions": dimensions,
            "capacity": capacity,
            "images": images,
            "alike": alike,
            "reach": reach,
        }
        super().__init__(**settings)
        self.contrasts = PatchBank(**settings) if contrast else None
        self.ways = (False, True) if by_place is None else (by_place,)
        self.share = share
        self.network = MapNormaliser()
        """What the network's map usually shows of good images."""
        # Of the network's map and of this one, and the share of this one in what a detector shows.
        self.register_buffer("units", torch.tensor([1.0, 1.0]))
        self.register_buffer("counts", torch.tensor(0.0))

    @property
    def _least(self) -> int:
        """Pixels of a side that local contrast needs."""
        return max(CONTRAST.size, COARSER * (self.patch // 2 + 1))

    def weigh(self, units: tuple[float, float], share: float) -> None:
        """Set how what a detector shows is made up; see :func:`joined`."""
        self.units = torch.tensor(units, device=self.units.device)
        self.counts = torch.tensor(share, device=self.counts.device)

    def forget(self) -> None:
        """Remember nothing and count for nothing, as before :meth:`fill` and :meth:`weigh`."""
        super().forget()
        if self.contrasts is not None:
            self.contrasts.forget()
        self.network.forget()
        self.weigh((1.0, 1.0), 0.0)

    def join(self, network: Tensor, memory: Tensor | None) -> Tensor:
        """What a detector shows, by the map of its network and by :meth:`forward`, (h, w) each.

        Parameters
        ----------
        memory: None where nothing is remembered.
        """
        return joined(self.network(network), memory, self.units.tolist(), self.counts.item())

    def fill(
        self,
        images: Images,
        generator: torch.Generator,
        *,
        by_place: bool,
        groups: Sequence[Hashable] | None = None,
    ) -> None:
        """As :meth:`PatchBank.fill`."""
        super().fill(images, generator, by_place=by_place, groups=groups)
        sides = _sides(images)
        has_room = sides.min() >= self._least and sides.median(0).values.min() >= ROOM
        if self.contrasts is not None and has_room:
            coarse = [contrast(images[number][None])[0] for number in range(len(images))]
            self.contrasts.fill(coarse, generator, by_place=by_place, groups=groups)

    def forward(self, x: Tensor, without: int | None = None) -> Tensor:
        """As :meth:`PatchBank.forward`; with local contrast, the sum of both.

        Raises
        ------
        UsageError
            When a side of the images is too short.
        """
        shown = super().forward(x, without)
        if self.contrasts is None or self.contrasts.is_empty:
            return shown
        if min(x.shape[2:]) < self._least:
            raise UsageError(
                f"an image of {x.shape[3]} × {x.shape[2]} pixels is too small to be compared in local contrast; it "
                f"needs at least {self._least}"
            )
        coarse: Tensor = self.contrasts(contrast(x), without)
        return shown + resized_map(coarse, (x.shape[2], x.shape[3]))


def joined(network: Tensor, memory: Tensor | None, units: Sequence[float], share: float) -> Tensor:
    """(1 - share) · log₂(1 + n) + share · m, with n and m the two maps, each divided by its unit.

    Both are 1 at their unit. Beyond it only doublings of n count: a network is surest of itself by hundreds of units, now
    and then on a good image that is merely lit in another way, where the distances of a memory reach two or three.

    >>> joined(torch.tensor([0.0, 3.0, 9.0]), torch.tensor([5.0, 5.0, 5.0]), (3.0, 5.0), 0.5)
    tensor([0.5000, 1.0000, 1.5000])
    """
    shown = (1 - share) * torch.log2(1 + network / units[0])
    return shown if memory is None else shown + share / units[1] * memory


def _kin(own: dict[int, Tensor], groups: Sequence[Hashable]) -> dict[int, Tensor]:
    """Where the group of each image lies, by where the images lie; that of itself alone where all are of one."""
    members: dict[Hashable, list[Tensor]] = {}
    for number, lies in own.items():
        members.setdefault(groups[number], []).append(lies)
    if len(members) == 1:
        return own
    return {number: torch.cat(members[groups[number]]) for number in own}


def _anywhere(queries: Tensor, bank: Tensor) -> Tensor:
    """Squared distance of each of ``queries`` (n, k) to the nearest of ``bank`` (m, k): (n,)."""
    lengths = bank.square().sum(1)
    nearest = [
        torch.addmm(lengths, some, bank.T, alpha=-2).amin(1) + some.square().sum(1)
        for some in torch.split(queries, QUERIES)
    ]
    return torch.cat(nearest)


def _sides(images: Images) -> Tensor:
    """Height and width of each of ``images``: (N, 2)."""
    return torch.tensor([images[number].shape[1:] for number in range(len(images))])


def _upsampled(values: Tensor, stride: int, shape: tuple[int, int]) -> Tensor:
    """``values`` (N, 1, h, w) of places ``stride`` apart, the first at the image's corner, at each pixel."""
    rows, columns = ((side - 1) * stride + 1 for side in values.shape[2:])
    fine = F.interpolate(values, size=(rows, columns), mode="bilinear", align_corners=True)
    missing = (0, max(0, shape[1] - columns), 0, max(0, shape[0] - rows))
    return F.pad(fine, missing, mode="replicate")[..., : shape[0], : shape[1]]
