"""A JPEG encoder that is trained through its decoder.

Strümpler, Yang, Timofte 2020, and Liu, Liu, Mantravadi 2022, sections 3 and 4.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from blemish.errors import UsageError
from blemish.jpeg.coefficients import MAX_COEFFICIENT, Coefficients, Plane, Sampling
from blemish.jpeg.deep.attention import ATTENTIONS, Attention, Logits, NoAttention
from blemish.jpeg.deep.loss import Lpips, distortion, rate, require_lpips
from blemish.jpeg.deep.recipe import DeepRecipe, TableSettings
from blemish.jpeg.differentiable_decoder import decode_batch
from blemish.jpeg.entropy import image_bits
from blemish.jpeg.quality import SMALLEST_MS_SSIM
from blemish.jpeg.tables import annex_k
from blemish.jpeg.transform import DCT, RGB_TO_YCC, check_pixels
from blemish.layers.rounding import cubic_round
from blemish.models import Loss
from blemish.models.registry import make_part
from blemish.similarity import ms_ssim


class DeepOutput(NamedTuple):
    """Result of :meth:`DeepJpeg.forward`."""

    reconstruction: Tensor
    """(N, 3, H, W) in [0, 1]: what a decoder makes of the file, value for value."""
    attention: tuple[Tensor, Tensor]
    """A_L and A_C, (N, rows, columns, 8, 8) each, in [0, 1], like the blocks of luma and of chroma."""
    tables: Tensor
    """(N, 2, 8, 8), of luma and of chroma: whole numbers, as in the file."""
    levels: tuple[Tensor, Tensor, Tensor]
    """Quantised coefficients of Y, Cb and Cr, (N, rows, columns, 8, 8) each: whole numbers."""


class DeepJpeg(nn.Module):
    """Learned tables and attention: Z = ⌊F ⊙ A / Q⌉ for each block F, stored in a standard file.

    ::

        x ─► forward_dct ─► F ─────────────┐
        │                                  ├─► levels Z ─► decode_batch ─► reconstruction
        ├─► attention ─► scale, bias ─► A ─┤
        │                    ▲             │
        │            place ──┴► log_tables ─► Q

    All but the attention network is computed in float32, and the values are hard: Z and Q are whole numbers,
    and the reconstruction is that of the file. Only gradients are those of smooth stand-ins.

    With one λ this is the papers' network. With several, one network serves all: ``place`` is the position
    among the sorted λ, each place has tables and, for every coefficient, a scale and a bias of the attention's
    logits, which begin at 1 and 0; between places, scale, bias and log Q are interpolated linearly.

    The papers learn p = s Q with s = 1e-5, clipped to [s, 255 s], by Adam at a rate of 1e-6. Adam takes no
    notice of a gradient's scale, so that is Adam at a rate of 0.1 on Q. Here log Q is learned, clipped
    likewise. Its steps are relative, which suits tables from 1 to 255: 0.1 is a tenth of the smallest entry,
    and of the largest not a thousandth. It is a parameter group of its own, whose rate is the network's times
    ``tables.pace``.

    Parameters
    ----------
    recipe: of whose attention weights are drawn from torch's global generator, and tables that are drawn.
    pretrained: False looks for no pretrained weights, nor for LPIPS before it is needed: a saved model brings
        its own.

    Raises
    ------
    RecipeError
        For an attention that is unknown or refuses a setting.
    FileError
        When pretrained weights are not where the recipe says.
    UsageError
        When the loss has LPIPS and that is not on this machine.

    Examples
    --------
    >>> from blemish.jpeg.deep import load_deep_recipe
    >>> from blemish.recipes import override
    >>> model = DeepJpeg(override(load_deep_recipe("jpeg-lstm"), ["loss.gamma=0"]))
    >>> outcome = model(torch.rand(1, 3, 20, 33), torch.tensor([5]))
    >>> outcome.reconstruction.shape, outcome.attention[0].shape
    (torch.Size([1, 3, 20, 33]), torch.Size([1, 3, 5, 8, 8]))
    """

    pretraining = 0

    def __init__(self, recipe: DeepRecipe, *, pretrained: bool = True) -> None:
        super().__init__()
        if pretrained and recipe.loss.gamma:
            require_lpips()
        self.recipe = recipe
        self.lambdas = tuple(sorted(recipe.lambdas))
        places = len(self.lambdas)
        sampling = recipe.image.sampling
        self.attention: Attention = make_part(
            "attention", ATTENTIONS, recipe.attention, sampling=sampling, pretrained=pretrained
        )
        conditioned = places > 1 and not isinstance(self.attention, NoAttention)
        self.scale = nn.Parameter(torch.ones(places, 2, 8, 8)) if conditioned else None
        self.bias = nn.Parameter(torch.zeros(places, 2, 8, 8)) if conditioned else None
        self.log_tables = nn.Parameter(initial_tables(recipe.tables, places).log())
        self._lpips = Lpips()

    def forward(self, x: Tensor, place: Tensor) -> DeepOutput:
        """Encode and decode.

        Parameters
        ----------
        x: (N, 3, H, W) in [0, 1], of any size.
        place: (N,), 0 to the number of λ less 1, whole or not.
        """
        attention, tables, levels = self._encode(x, place)
        with torch.autocast(x.device.type, enabled=False):
            dequantised = [z * q for z, q in zip(levels, _by_plane(tables), strict=True)]
            height, width = x.shape[-2:]
            pixels = decode_batch(dequantised, height, width, self.recipe.image.sampling)
            return DeepOutput(pixels / 255, attention, tables, levels)

    def _encode(
        self, x: Tensor, place: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Tensor, tuple[Tensor, Tensor, Tensor]]:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            blocks = forward_dct(x, self.recipe.image.sampling)
        height, width = x.shape[-2:]
        logits = self.attention(F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate"), blocks)
        with torch.autocast(x.device.type, enabled=False):
            tables = hard_tables(_at(self.log_tables, place), self.recipe.tables)
            attention = self._maps(logits, place, blocks)
            factors = (attention[0], attention[1], attention[1])
            # No image goes beyond the limit while Q is at least 1, but x may be no image.
            y, cb, cr = (
                cubic_round(dct * a / q).clamp(-MAX_COEFFICIENT, MAX_COEFFICIENT)
                for dct, a, q in zip(blocks, factors, _by_plane(tables), strict=True)
            )
        return attention, tables, (y, cb, cr)

    def _maps(
        self, logits: Logits | None, place: Tensor, blocks: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """A_L and A_C."""
        if logits is None:
            return torch.ones_like(blocks[0]), torch.ones_like(blocks[1])
        luma, chroma = logits
        if self.scale is not None and self.bias is not None:
            scale, bias = _at(self.scale, place)[:, :, None, None], _at(self.bias, place)[:, :, None, None]
            luma = scale[:, 0] * luma + bias[:, 0]
            chroma = scale[:, 1] * chroma + bias[:, 1]
        return luma.sigmoid(), chroma.sigmoid()

    def loss(self, x: Tensor) -> Loss:
        """λ d + r, the mean over images (N, 3, H, W) in [0, 1]: terms ``mse``, ``lpips``, ``ms-ssim``, ``rate``.

        In training each image's place is drawn from torch's global generator; otherwise every place is
        taken equally often, images being repeated where their number is no multiple of that of λ. In
        training tables that the last step took beyond their limits are first brought back.
        """
        if self.training:
            limits = self.recipe.tables
            with torch.no_grad():
                self.log_tables.clamp_(math.log(limits.lowest), math.log(limits.highest))
        x, place = self._placed(x)
        outcome = self(x, place)
        settings = self.recipe.loss
        with torch.autocast(x.device.type, enabled=False):
            lambdas = torch.tensor(self.lambdas, device=x.device)[place]
            parts = distortion(x.float(), outcome.reconstruction, settings, self._lpips)
            terms = {name: (lambdas * part).mean() for name, part in parts.items()}
            terms["rate"] = rate(outcome.attention, outcome.tables, settings).mean()
            return Loss(torch.stack(list(terms.values())).sum(), terms)

    def pretraining_loss(self, x: Tensor) -> Loss:
        """:meth:`loss`: there is nothing to learn before it."""
        return self.loss(x)

    @torch.no_grad()
    def measures(self, x: Tensor) -> dict[str, float]:
        """Figures of images (N, 3, H, W) in [0, 1], every place taken equally often, with the decoder's pixels.

        Returns
        -------
        ``bits per pixel`` of the entropy-coded data under optimal Huffman tables, without headers; ``mse`` in squared
        levels of 0 to 255; ``ms-ssim`` of images of at least 161 pixels a side.
        """
        was = self.training
        self.eval()
        x, place = self._placed(x)
        outcome = self(x, place)
        self.train(was)
        height, width = x.shape[-2:]
        tables = outcome.tables.cpu().numpy().astype(np.uint16)
        bits = 0
        for index in range(len(x)):
            planes = tuple(
                Plane(levels[index].cpu().numpy().astype(np.int16), tables[index, min(number, 1)])
                for number, levels in enumerate(outcome.levels)
            )
            bits += image_bits(Coefficients(width, height, planes, self.recipe.image.sampling))
        found = {
            "bits per pixel": bits / (len(x) * height * width),
            "mse": float((255 * (x.float() - outcome.reconstruction)).square().mean()),
        }
        if min(height, width) >= SMALLEST_MS_SSIM:
            found["ms-ssim"] = float(ms_ssim(x.float(), outcome.reconstruction, data_range=1.0).mean())
        return found

    def _placed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        places = len(self.lambdas)
        if self.training and places > 1:
            return x, torch.randint(places, (len(x),)).to(x.device)
        order = torch.arange(math.ceil(len(x) / places) * places, device=x.device)
        return x[order % len(x)], order % places

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser: the network, if there is one, and log Q with its ``pace``, never decayed."""
        network = [parameter for name, parameter in self.named_parameters() if name != "log_tables"]
        tables = {"params": [self.log_tables], "pace": self.recipe.tables.pace, "weight_decay": 0.0}
        return [{"params": network}, tables] if network else [tables]

    @torch.inference_mode()
    def coefficients(self, pixels: NDArray[np.uint8], place: float) -> Coefficients:
        """Coefficients of the file of one image; they decode to the same as in :meth:`forward`.

        Parameters
        ----------
        pixels: uint8 (H, W) for grey, which gets luma alone, or (H, W, 3) for RGB.
        place: 0 to the number of λ less 1.

        Raises
        ------
        UsageError
            For pixels of another type or shape, and for a place out of range.
        """
        check_pixels(pixels)
        grey = pixels.ndim == 2
        last = len(self.lambdas) - 1
        if not 0 <= place <= last:
            raise UsageError(f"place is {place:g}; choose a number from 0 to {last}")
        height, width = pixels.shape[:2]
        channels = np.broadcast_to(pixels.reshape(height, width, -1), (height, width, 3)).transpose(2, 0, 1)
        x = torch.from_numpy(channels.astype(np.float32)).to(self.log_tables.device)[None] / 255
        _, tables, levels = self._encode(x, torch.tensor([place], device=x.device))
        luma, chroma = tables[0].cpu().numpy().astype(np.uint16)
        planes = tuple(
            Plane(z[0].cpu().numpy().astype(np.int16), table)
            for z, table in zip(levels, (luma, chroma, chroma), strict=True)
        )
        return Coefficients(
            width,
            height,
            planes[:1] if grey else planes,
            "4:4:4" if grey else self.recipe.image.sampling,
        )


def forward_dct(x: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """The DCT of Y, Cb and Cr, differentiable, as ``planes_of`` and ``blocks_dct`` of :mod:`blemish.jpeg.transform`.

    Parameters
    ----------
    x: float (N, 3, H, W) in [0, 1].
    sampling: "4:4:4", or "4:2:0" for chroma of half the rows and columns.

    Returns
    -------
    (N, rows, columns, 8, 8) each, by [vertical, horizontal] frequency, of pixels in -128..127.
    """
    ycc = torch.einsum("pc,nchw->pnhw", torch.from_numpy(RGB_TO_YCC).to(x), 255 * x)
    y, cb, cr = ycc - torch.tensor([128, 0, 0]).to(x).view(3, 1, 1, 1)
    if sampling == "4:2:0":
        cb, cr = (F.avg_pool2d(_edged(plane, 2), 2) for plane in (cb, cr))
    first, second, third = (_blocks_dct(plane) for plane in (y, cb, cr))
    return first, second, third


def _blocks_dct(plane: Tensor) -> Tensor:
    """(N, h, w) to (N, rows, columns, 8, 8)."""
    whole = _edged(plane, 8)
    count, height, width = whole.shape
    blocks = whole.reshape(count, height // 8, 8, width // 8, 8).transpose(2, 3)
    dct = torch.from_numpy(DCT).to(plane)
    return dct @ blocks @ dct.T


def _edged(plane: Tensor, multiple: int) -> Tensor:
    """(N, h, w) with the last row and column repeated up to multiples."""
    height, width = plane.shape[1:]
    return F.pad(plane, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def initial_tables(settings: TableSettings, places: int) -> Tensor:
    """Q to begin with: (places, 2, 8, 8), real numbers within the limits."""
    if settings.initial == "uniform":
        tables = 1 + torch.rand(places, 2, 8, 8)
    else:
        luma, chroma = (torch.from_numpy(table.astype(np.float32)) for table in annex_k(50))
        tables = torch.stack([luma, chroma]).repeat(places, 1, 1, 1)
    return tables.clamp(settings.lowest, settings.highest)


class _HardTables(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_tables: Tensor, lowest: float, highest: float) -> Tensor:
        tables = log_tables.exp()
        ctx.save_for_backward(tables)
        return torch.floor(tables.clamp(lowest, highest) + 0.5)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (tables,) = ctx.saved_tensors
        return gradients[0] * tables, None, None


def hard_tables(log_tables: Tensor, settings: TableSettings) -> Tensor:
    """Q as a file holds it: exp(log Q) within the limits, halves rounded up; any shape.

    The gradient is that of exp alone. The cubic's, by which coefficients are rounded, is 0 at whole numbers,
    where tables would stay: those of annex K could not be learned from.

    Examples
    --------
    >>> hard_tables(torch.tensor([0.4, 1.2, 300.0]).log(), TableSettings())
    tensor([  1.,   1., 255.])
    """
    tables: Tensor = _HardTables.apply(log_tables, settings.lowest, settings.highest)  # type: ignore[no-untyped-call]
    return tables


def _at(values: Tensor, place: Tensor) -> Tensor:
    """(K, 2, 8, 8) at places (N,): (N, 2, 8, 8), interpolated linearly."""
    low = place.floor().long()
    high = place.ceil().long()
    share = (place - low).to(values).view(-1, 1, 1, 1)
    return torch.lerp(values[low], values[high], share)


def _by_plane(tables: Tensor) -> list[Tensor]:
    """(N, 2, 8, 8) to the tables of Y, Cb and Cr, (N, 1, 1, 8, 8) each."""
    luma, chroma = tables[:, :, None, None].unbind(1)
    return [luma, chroma, chroma]
