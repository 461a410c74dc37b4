"""Fast kernels of SSIM: chunks that fit in cache, banded window filters, and a hand-written gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from blemish.similarity.pairs import working_dtype
from blemish.similarity.ssim_settings import SSIMSettings
from blemish.similarity.threads import side_by_side
from blemish.similarity.windows import (
    Filter,
    full_precision,
    make_filter,
)

# The fast path, for exponents of 1. With d = x - y and four means under the window
#
#     mu_x,  mu_y,  p = mean(2xy) + c1 + c2,  q = mean(d²)
#
# the four factors of SSIM = (a1 a2) / (b1 b2), equation 13, are
#
#     a1 = 2 mu_x mu_y + c1      b1 = a1 + (mu_x - mu_y)²
#     a2 = p - a1                b2 = a2 + q - (mu_x - mu_y)²
#
# so that equal images give exactly 1 and near-equal images keep 1 - SSIM above rounding. With lum = a1 / b1
# and cs = a2 / b2 (luminance; contrast × structure), the derivatives of lum cs by the means of y, xy and y² are
#
#     by mean(y)     2 [ (cs / b1) (mu_x - lum mu_y) - (lum / b2) (mu_x - cs mu_y) ]
#     by mean(xy)    2 lum / b2
#     by mean(y²)    - lum cs / b2
#
# and the gradient by y is the sum of their adjoint filterings times 1, x and 2 y. Images are processed in chunks
# whose working memory fits the cache of the processor; the gradient of a mean is computed in the same pass as
# its value.

# The products run on planes laid out as (H, planes, W), this many values at a time: few enough for the working
# memory to stay in the cache of the processor, enough to outweigh the cost of the calls.
_CHUNK = {"cpu": 100_000}
_CHUNK_ELSEWHERE = 1 << 24


class _Chunk(NamedTuple):
    """Chunk of a batch: some images, or some channels of one image."""

    images: slice
    channels: slice

    def of(self, batch: Tensor) -> Tensor:
        """Select the chunk from a batch (N, C, H, W) as (H, n, c, W)."""
        return batch[self.images, self.channels].permute(2, 0, 1, 3)


def _chunks(x: Tensor) -> list[_Chunk]:
    count, channels, height, width = x.shape
    planes = max(1, _CHUNK.get(x.device.type, _CHUNK_ELSEWHERE) // (height * width))
    if x.device.type == "cpu":
        planes = min(planes, -(-count * channels // torch.get_num_threads()))
    if planes < channels:
        return [
            _Chunk(slice(image, image + 1), slice(start, start + planes))
            for image in range(count)
            for start in range(0, channels, planes)
        ]
    step = planes // channels
    return [_Chunk(slice(start, start + step), slice(None)) for start in range(0, count, step)]


class _SSIMWork:
    """Working memory for chunks of ``x`` and ``y``, and the arithmetic on it; each chunk overwrites the previous one."""

    def __init__(self, x: Tensor, y: Tensor, settings: SSIMSettings) -> None:
        self.x, self.y = x, y
        self.dtype = working_dtype(x, y)
        self.c1 = torch.tensor(settings.c1, dtype=self.dtype, device=x.device)
        self.c1_c2 = torch.tensor(settings.c1 + settings.c2, dtype=self.dtype, device=x.device)
        size = (settings.window, x.shape[-2:], self.dtype, x.device)
        self.mean, self.adjoint = make_filter(*size), make_filter(*size, adjoint=True)
        self.memory: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a contiguous buffer that is reused from chunk to chunk; its content is undefined."""
        length = torch.Size(shape).numel()
        buffer = self.memory.get(name)
        if buffer is None or buffer.numel() < length:
            buffer = self.memory[name] = torch.empty(length, dtype=self.dtype, device=self.x.device)
        return buffer[:length].view(shape)

    def load(self, chunk: _Chunk) -> tuple[Tensor, Tensor]:
        """Copy the images of a chunk as (H, planes, W) into the buffer that ``compare`` filters."""
        x = chunk.of(self.x)
        height, images, channels, width = x.shape
        self.fields = self.take("fields", height, 4, images * channels, width)
        self.loaded = self.fields[:, 0], self.fields[:, 1]
        as_loaded = self.fields.view(height, 4, images, channels, width)
        as_loaded[:, 0].copy_(x)
        as_loaded[:, 1].copy_(chunk.of(self.y))
        return self.loaded

    def filter(self, window_filter: Filter, fields: Tensor, name: str) -> Tensor:
        """Filter the fields (H, K, planes, W) into the buffer ``name``."""
        height, kinds, planes, width = fields.shape
        rows, columns = window_filter.rows.outputs, window_filter.columns.outputs
        between = self.take("between", rows, kinds * planes, width)
        out = self.take(name, rows, kinds * planes, columns)
        window_filter(fields.view(height, -1, width), between, out)
        return out.view(rows, kinds, planes, columns)

    def compare(self, chunk: _Chunk) -> _Comparison:
        """Compute the means under the window and the terms of SSIM."""
        x, y = self.load(chunk)
        torch.addcmul(self.c1_c2, x, y, value=2, out=self.fields[:, 2])
        torch.sub(x, y, out=self.fields[:, 3]).square_()
        mu_x, mu_y, p, q = self.filter(self.mean, self.fields, "means").unbind(1)
        a1, b1, lum, cs = self.take("terms", 4, *mu_x.shape)
        torch.addcmul(self.c1, mu_x, mu_y, value=2, out=a1)
        torch.sub(mu_x, mu_y, out=b1).square_()
        a2 = p.sub_(a1)
        b2 = q.sub_(b1).add_(a2)
        b1.add_(a1)
        return _Comparison(mu_x, mu_y, b1, b2, torch.div(a1, b1, out=lum), torch.div(a2, b2, out=cs))

    def derivatives(self, terms: _Comparison, luminance: bool, means: int) -> Tensor:
        """Compute half the derivatives by mean(xy), and by mean(y²), mean(y) and, if ``means`` is 2, mean(x), negated.

        The fields (H', 2 + means, planes, W') are filtered together; each sign saves a pass over memory.
        """
        mu_x, mu_y, b1, b2, lum, cs = terms
        height, planes, width = lum.shape
        fields = self.take("derivatives", height, 2 + means, planes, width)
        by_xy, by_square = fields[:, 0], fields[:, 1]
        if luminance:
            torch.div(lum, b2, out=by_xy)
        else:
            torch.reciprocal(b2, out=by_xy)
        torch.mul(cs, by_xy, out=by_square)
        slope = torch.div(cs, b1, out=b1) if luminance else None
        for kind, (mu, other) in enumerate(((mu_x, mu_y), (mu_y, mu_x))[:means], start=2):
            by_mean = torch.addcmul(mu, cs, other, value=-1, out=fields[:, kind]).mul_(by_xy)
            if slope is not None:
                by_mean.addcmul_(slope, torch.addcmul(mu, lum, other, value=-1, out=b2), value=-1)
        return fields

    def pull_back(self, chunk: _Chunk, derivatives: Tensor, x: Tensor, y: Tensor, into: _Gradients) -> None:
        """Write half the gradients by the pixels, negated, from ``derivatives`` into the chunk of ``into``."""
        by_xy, by_square, *by_means = self.filter(self.adjoint, derivatives, "gradients").unbind(1)
        if into.y is not None:
            by_means[0].addcmul_(by_square, y).addcmul_(by_xy, x, value=-1)
            chunk.of(into.y).copy_(by_means[0].view_as(chunk.of(into.y)))
        if into.x is not None:
            by_means[-1].addcmul_(by_square, x).addcmul_(by_xy, y, value=-1)
            chunk.of(into.x).copy_(by_means[-1].view_as(chunk.of(into.x)))


class _Comparison(NamedTuple):
    """Terms of SSIM at every pixel, each (H', planes, W'): means, denominators, luminance, contrast × structure."""

    mu_x: Tensor
    mu_y: Tensor
    b1: Tensor
    b2: Tensor
    lum: Tensor
    cs: Tensor


class _Gradients(NamedTuple):
    """Output buffers of the gradients, (N, C, H, W) each; None if a gradient is not needed."""

    x: Tensor | None
    y: Tensor | None

    @classmethod
    def like(cls, batch: Tensor, by_x: bool, by_y: bool, dtype: torch.dtype) -> _Gradients:
        x, y = (
            torch.empty(batch.shape, dtype=dtype, device=batch.device) if wanted else None
            for wanted in (by_x, by_y)
        )
        return cls(x, y)


def _laid_out(gradient: Tensor, batch: Tensor) -> Tensor:
    """Convert a gradient to the dtype and memory layout of its batch."""
    # both in one copy takes three times as long
    gradient = gradient.to(batch.dtype)
    if gradient.stride() == batch.stride():
        return gradient
    return torch.empty_like(batch, device=gradient.device).copy_(gradient)


class _PlaneMeans(torch.autograd.Function):
    """Mean over each plane of SSIM, or of contrast × structure alone: (N, C), with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, settings: SSIMSettings, luminance: bool, gradient: bool
    ) -> Tensor:
        by_x, by_y = (gradient and needed for needed in ctx.needs_input_grad[:2])
        into = _Gradients.like(x, by_x, by_y, working_dtype(x, y))
        means = torch.empty(x.shape[:2], dtype=working_dtype(x, y), device=x.device)

        def visit(chunks: Iterator[_Chunk]) -> None:
            work = _SSIMWork(x, y, settings)
            for chunk in chunks:
                terms = work.compare(chunk)
                similar = terms.cs
                if luminance:
                    similar = torch.mul(terms.lum, terms.cs, out=work.take("map", *terms.cs.shape))
                part = means[chunk.images, chunk.channels]
                part.copy_(similar.mean((0, 2)).view_as(part))
                if by_x or by_y:
                    derivatives = work.derivatives(terms, luminance, 2 if by_x else 1)
                    work.pull_back(chunk, derivatives, *work.loaded, into)

        with full_precision(x.device):
            side_by_side(visit, _chunks(x), x.device)
        window, height, width = settings.window, *x.shape[-2:]
        ctx.gradients, ctx.scale = into, -2 / (window.outputs(height) * window.outputs(width))
        ctx.like = [torch.empty_like(batch, device="meta") for batch in (x, y)]
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scale = (gradient * ctx.scale)[..., None, None]
        by_x, by_y = (
            None if by is None else _laid_out(by * scale, like)
            for by, like in zip(ctx.gradients, ctx.like, strict=True)
        )
        return by_x, by_y, None, None, None


class SSIMMap(torch.autograd.Function):
    """SSIM of every pixel, (N, C, H', W'), with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, settings: SSIMSettings, gradient: bool) -> Tensor:
        by_x, by_y = (gradient and needed for needed in ctx.needs_input_grad[:2])
        size = (settings.window.outputs(side) for side in x.shape[-2:])
        similarity = torch.empty(*x.shape[:2], *size, dtype=working_dtype(x, y), device=x.device)
        kept: list[tuple[_Chunk, Tensor]] = []

        def visit(chunks: Iterator[_Chunk]) -> None:
            work = _SSIMWork(x, y, settings)
            for chunk in chunks:
                terms = work.compare(chunk)
                part = chunk.of(similarity)
                torch.mul(terms.lum.view_as(part), terms.cs.view_as(part), out=part)
                if by_x or by_y:
                    kept.append((chunk, work.derivatives(terms, True, 2 if by_x else 1).clone()))

        with full_precision(x.device):
            side_by_side(visit, _chunks(x), x.device)
        if by_x or by_y:
            ctx.settings, ctx.chunks = settings, [chunk for chunk, _ in kept]
            ctx.save_for_backward(x, y, *(derivatives for _, derivatives in kept))
        return similarity

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, y, *kept = ctx.saved_tensors
        by_x, by_y = ctx.needs_input_grad[:2]
        into = _Gradients.like(x, by_x, by_y, working_dtype(x, y))

        def visit(chunks: Iterator[tuple[_Chunk, Tensor]]) -> None:
            work = _SSIMWork(x, y, ctx.settings)
            for chunk, derivatives in chunks:
                weight = chunk.of(gradient).mul(-2).flatten(1, 2)[:, None]  # (H', 1, planes, W')
                weighted = torch.mul(derivatives, weight, out=work.take("derivatives", *derivatives.shape))
                work.pull_back(chunk, weighted, *work.load(chunk), into)

        with full_precision(x.device):
            side_by_side(visit, list(zip(ctx.chunks, kept, strict=True)), x.device)
        return (
            None if into.x is None else _laid_out(into.x, x),
            None if into.y is None else _laid_out(into.y, y),
            None,
            None,
        )


def plane_means(x: Tensor, y: Tensor, settings: SSIMSettings, *, luminance: bool = True) -> Tensor:
    """Compute the mean over each plane of SSIM or, without ``luminance``, of contrast × structure alone: (N, C)."""
    settings.window.check_fits(*x.shape[-2:])
    means: Tensor = _PlaneMeans.apply(*free_first(x, y), settings, luminance, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return means


def free_first(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Order a pair so that only the second image needs a gradient: SSIM is symmetric, and that saves a filtering."""
    return (y, x) if x.requires_grad and not y.requires_grad else (x, y)
