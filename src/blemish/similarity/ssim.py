"""Structural similarity (SSIM): luminance, contrast and structure under a sliding window.

Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
IEEE Transactions on Image Processing 13(4), 2004, equations 6 to 13.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from blemish.errors import UsageError
from blemish.similarity.measure import Measure
from blemish.similarity.pairs import as_working, check_pair, check_range, working_dtype
from blemish.similarity.threads import side_by_side
from blemish.similarity.windows import (
    Filter,
    Padding,
    Window,
    WindowKind,
    full_precision,
    make_filter,
    window_mean,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

Constants = Literal["wang", "bergmann"]


class SSIMOptions(TypedDict, total=False):
    """The settings of ``ssim``, which explains them."""

    window: int
    sigma: float
    kind: WindowKind
    padding: Padding
    constants: Constants
    k1: float
    k2: float
    c1: float | None
    c2: float | None
    alpha: float
    beta: float
    gamma: float


class SSIMParts(NamedTuple):
    """The three comparisons that SSIM multiplies, each (N, C, H, W)."""

    luminance: Tensor
    contrast: Tensor
    structure: Tensor


class SSIMSettings(NamedTuple):
    """The options with their defaults filled in and checked."""

    window: Window
    c1: float
    c2: float
    exponents: tuple[float, float, float]


def make_settings(
    data_range: float | None,
    *,
    window: int = 11,
    sigma: float = 1.5,
    kind: WindowKind = "gaussian",
    padding: Padding = "symmetric",
    constants: Constants = "wang",
    k1: float = 0.01,
    k2: float = 0.03,
    c1: float | None = None,
    c2: float | None = None,
    alpha: float = 1,
    beta: float = 1,
    gamma: float = 1,
) -> SSIMSettings:
    span = check_range(data_range)
    if constants not in ("wang", "bergmann"):
        raise UsageError(f"constants {constants!r} are unknown; choose 'wang' or 'bergmann'")
    if c1 is None:
        c1 = (k1 * span) ** 2 if constants == "wang" else k1 * span**2
    if c2 is None:
        c2 = (k2 * span) ** 2 if constants == "wang" else k2 * span**2
    for name, value in (("c1 (from k1)", c1), ("c2 (from k2)", c2)):
        if not value > 0:
            raise UsageError(f"{name} is {value}; give a positive constant, it keeps flat images from 0/0")
    for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not value >= 0:
            raise UsageError(f"{name} is {value}; give an exponent of at least 0")
    under = Window(window, sigma, kind, padding)
    under.check()
    return SSIMSettings(under, c1, c2, (alpha, beta, gamma))


# The quick road, for exponents of 1. With d = x - y and four means under the window
#
#     mu_x,  mu_y,  p = mean(2xy) + c1 + c2,  q = mean(d²)
#
# the four factors of SSIM = (a1 a2) / (b1 b2), equation 13, are
#
#     a1 = 2 mu_x mu_y + c1      b1 = a1 + (mu_x - mu_y)²
#     a2 = p - a1                b2 = a2 + q - (mu_x - mu_y)²
#
# so that equal images give exactly 1 and near-equal ones keep 1 - SSIM above rounding. With lum = a1 / b1
# and cs = a2 / b2 (luminance; contrast × structure), the derivatives of lum cs by the means of y, xy and y² are
#
#     by mean(y)     2 [ (cs / b1) (mu_x - lum mu_y) - (lum / b2) (mu_x - cs mu_y) ]
#     by mean(xy)    2 lum / b2
#     by mean(y²)    - lum cs / b2
#
# and the gradient by y is the sum of their adjoint filterings times 1, x and 2 y. Images go through in chunks
# whose working memory fits the processor's cache; a mean's gradient is made in the same visit as its value.


# The products run on planes laid out (H, planes, W), this many values at a time: few enough for the working
# memory to stay in the processor's cache, enough to outweigh the calls.
_CHUNK = {"cpu": 100_000}
_CHUNK_ELSEWHERE = 1 << 24


class _Chunk(NamedTuple):
    """Some images of a batch, or some channels of one."""

    images: slice
    channels: slice

    def of(self, batch: Tensor) -> Tensor:
        """The chunk's part of a batch (N, C, H, W) as (H, n, c, W)."""
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
    """Working memory for chunks of ``x`` and ``y``, and the arithmetic on it; a chunk overwrites the last one."""

    def __init__(self, x: Tensor, y: Tensor, settings: SSIMSettings) -> None:
        self.x, self.y = x, y
        self.dtype = working_dtype(x, y)
        self.c1 = torch.tensor(settings.c1, dtype=self.dtype, device=x.device)
        self.c1_c2 = torch.tensor(settings.c1 + settings.c2, dtype=self.dtype, device=x.device)
        size = (settings.window, x.shape[-2:], self.dtype, x.device)
        self.mean, self.adjoint = make_filter(*size), make_filter(*size, adjoint=True)
        self.memory: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Memory kept from one chunk to the next, contiguous, with whatever it held."""
        length = torch.Size(shape).numel()
        held = self.memory.get(name)
        if held is None or held.numel() < length:
            held = self.memory[name] = torch.empty(length, dtype=self.dtype, device=self.x.device)
        return held[:length].view(shape)

    def load(self, chunk: _Chunk) -> tuple[Tensor, Tensor]:
        """The chunk's images as (H, planes, W), in the memory that ``compare`` filters."""
        x = chunk.of(self.x)
        height, images, channels, width = x.shape
        self.fields = self.take("fields", height, 4, images * channels, width)
        self.loaded = self.fields[:, 0], self.fields[:, 1]
        as_loaded = self.fields.view(height, 4, images, channels, width)
        as_loaded[:, 0].copy_(x)
        as_loaded[:, 1].copy_(chunk.of(self.y))
        return self.loaded

    def filter(self, window_filter: Filter, fields: Tensor, name: str) -> Tensor:
        """The fields (H, K, planes, W) filtered, in memory of that name."""
        height, kinds, planes, width = fields.shape
        rows, columns = window_filter.rows.outputs, window_filter.columns.outputs
        between = self.take("between", rows, kinds * planes, width)
        out = self.take(name, rows, kinds * planes, columns)
        window_filter(fields.view(height, -1, width), between, out)
        return out.view(rows, kinds, planes, columns)

    def compare(self, chunk: _Chunk) -> _Comparison:
        """The means under the window and the terms that follow from them."""
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
        """Half the derivatives by mean(xy), and negative by mean(y²), mean(y) and, if ``means`` is 2, mean(x).

        Fields (H', 2 + means, planes, W') to filter together; the signs spare a pass over memory each.
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
        """Half the gradients by the pixels, negative, from ``derivatives``, into the chunk's part of ``into``."""
        by_xy, by_square, *by_means = self.filter(self.adjoint, derivatives, "gradients").unbind(1)
        if into.y is not None:
            by_means[0].addcmul_(by_square, y).addcmul_(by_xy, x, value=-1)
            chunk.of(into.y).copy_(by_means[0].view_as(chunk.of(into.y)))
        if into.x is not None:
            by_means[-1].addcmul_(by_square, x).addcmul_(by_xy, y, value=-1)
            chunk.of(into.x).copy_(by_means[-1].view_as(chunk.of(into.x)))


class _Comparison(NamedTuple):
    """Means, denominators, luminance and contrast × structure at every pixel, each (H', planes, W')."""

    mu_x: Tensor
    mu_y: Tensor
    b1: Tensor
    b2: Tensor
    lum: Tensor
    cs: Tensor


class _Gradients(NamedTuple):
    """Where the gradients go, (N, C, H, W) each; None where none is wanted."""

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
    """The gradient in the type and memory layout of its batch."""
    # both in one copy would take three times as long
    gradient = gradient.to(batch.dtype)
    if gradient.stride() == batch.stride():
        return gradient
    return torch.empty_like(batch, device=gradient.device).copy_(gradient)


class _PlaneMeans(torch.autograd.Function):
    """The mean over each plane of SSIM, or of contrast × structure alone: (N, C), with its gradient."""

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


class _Map(torch.autograd.Function):
    """The SSIM of every pixel, (N, C, H', W')."""

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
    """The mean over each plane of SSIM or, without ``luminance``, of contrast × structure alone: (N, C)."""
    settings.window.check_fits(*x.shape[-2:])
    means: Tensor = _PlaneMeans.apply(*_free_first(x, y), settings, luminance, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return means


def _free_first(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    # SSIM is symmetric, and the gradient by the second image alone takes one filtering less
    return (y, x) if x.requires_grad and not y.requires_grad else (x, y)


def _map(x: Tensor, y: Tensor, settings: SSIMSettings) -> Tensor:
    settings.window.check_fits(*x.shape[-2:])
    if settings.exponents == (1, 1, 1):
        similarity: Tensor = _Map.apply(*_free_first(x, y), settings, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
        return similarity
    luminance, contrast, structure = _parts(*as_working(x, y), settings)
    alpha, beta, gamma = settings.exponents
    return _power(luminance, alpha) * _power(contrast, beta) * _power(structure, gamma)


def _parts(x: Tensor, y: Tensor, settings: SSIMSettings) -> SSIMParts:
    window, c1, c2, _ = settings
    mu_x, mu_y = window_mean(x, window), window_mean(y, window)
    square_x, square_y, product = (window_mean(pair, window) for pair in (x * x, y * y, x * y))
    # below rounding a variance says nothing, and the slope of its square root would be infinite at 0
    floor = torch.finfo(x.dtype).eps * c2
    variance_x, variance_y = (
        (square_x - mu_x * mu_x).clamp_min(floor),
        (square_y - mu_y * mu_y).clamp_min(floor),
    )
    sigma_xy = product - mu_x * mu_y
    sigmas = variance_x.sqrt() * variance_y.sqrt()
    return SSIMParts(
        (2 * (mu_x * mu_y) + c1) / (mu_x * mu_x + mu_y * mu_y + c1),
        (2 * sigmas + c2) / (variance_x + variance_y + c2),
        (sigma_xy + c2 / 2) / (sigmas + c2 / 2),
    )


def _power(part: Tensor, exponent: float) -> Tensor:
    """sign(part) |part|^exponent, with slope 0 at 0, where the true one may be infinite."""
    if exponent == 0:
        return torch.ones_like(part)
    if exponent == 1:
        return part
    return part.sign() * part.abs().clamp_min(torch.finfo(part.dtype).eps) ** exponent


def ssim_parts(
    x: Tensor, y: Tensor, *, data_range: float | None = None, **options: Unpack[SSIMOptions]
) -> SSIMParts:
    """Luminance, contrast and structure of ``ssim_map``, which is their product under their exponents.

    The parts are returned without exponents, each (N, C, H, W) (smaller with "valid" padding): luminance
    and contrast in (0, 1], structure in [-1, 1], up to rounding. Equations 6, 9 and 10 of Wang et al. with
    c3 = c2 / 2. Takes the options of ``ssim`` and raises its errors.
    """
    settings = make_settings(data_range, **options)
    x, y = as_working(x, y)
    return _parts(x, y, settings)


def ssim_map(
    x: Tensor, y: Tensor, *, data_range: float | None = None, **options: Unpack[SSIMOptions]
) -> Tensor:
    """The SSIM of every pixel and channel: (N, C, H, W), at most 1.

    With "symmetric" padding the map has the images' size and equals scikit-image's full map; with "valid"
    padding it is smaller by window - 1. Takes the options of ``ssim`` and raises its errors.

    Examples
    --------
    >>> x = torch.zeros(1, 1, 16, 16)
    >>> y = x.clone()
    >>> y[..., 8, 8] = 0.1
    >>> ssim_map(x, y, data_range=1.0)[0, 0, 8, 8:15]
    tensor([0.3850, 0.4749, 0.7017, 0.8964, 0.9777, 0.9970, 1.0000])
    """
    settings = make_settings(data_range, **options)
    check_pair(x, y)
    return _map(x, y, settings)


def ssim(x: Tensor, y: Tensor, *, data_range: float | None = None, **options: Unpack[SSIMOptions]) -> Tensor:
    """The mean structural similarity of each pair of images (N, C, H, W): (N,), 1 for equal ones, never more.

    Local means and variances are taken under a window of ``window`` × ``window`` pixels, "gaussian" with
    standard deviation ``sigma`` or "uniform". At the border the image is mirrored, edge pixel included ("symmetric",
    as scikit-image's full map), or windows that leave it are left out ("valid", as scikit-image's mean).

    The constants follow the data range L: "wang" takes c1 = (k1 L)², c2 = (k2 L)², as the SSIM paper and
    everyone since; "bergmann" takes c1 = k1 L², c2 = k2 L², which for L = 1 are the 0.01 and 0.03 that
    Bergmann et al., "Improving unsupervised defect segmentation by applying structural similarity to
    autoencoders" (VISAPP 2019), print, not squared. ``c1`` and ``c2``, where given, are taken as they are.

    ``alpha``, ``beta``, ``gamma`` are the exponents of luminance, contrast and structure (Wang et al. 2004,
    equation 12). A part that is negative keeps its sign, sign(s) |s|^gamma; exponent 0 leaves a part out.

    The gradient is written by hand and can be taken once, not twice.

    Parameters
    ----------
    data_range: the span L of the values, 1.0 for images in [0, 1]; must be given.
    window, sigma, kind: 11 pixels, 1.5 pixels and "gaussian" by default.
    padding: "symmetric" by default.
    constants, k1, k2: "wang", 0.01 and 0.03 by default.
    c1, c2: None by default, so that they follow from ``constants``, ``k1`` and ``k2``.
    alpha, beta, gamma: 1 by default.

    Raises
    ------
    UsageError
        For a missing or non-positive ``data_range``, batches that are no float (N, C, H, W) of one shape, an
        even window, a window larger than the image, and any other option out of range.

    Examples
    --------
    >>> x = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    >>> ssim(x, x, data_range=1.0)
    tensor([1.])
    >>> ssim(x, 1 - x, data_range=1.0) < 0.7
    tensor([True])
    """
    settings = make_settings(data_range, **options)
    check_pair(x, y)
    if settings.exponents == (1, 1, 1):
        return plane_means(x, y, settings).mean(1)
    return _map(x, y, settings).mean((1, 2, 3))


def log_ssim(
    x: Tensor, y: Tensor, *, data_range: float | None = None, **options: Unpack[SSIMOptions]
) -> Tensor:
    """−log((SSIM + 1) / 2) of the mean SSIM of each pair: (N,), at least 0 up to rounding.

    Xie et al. 2019. Takes the options of ``ssim`` and raises its errors.

    Examples
    --------
    >>> log_ssim(torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16), data_range=1.0).abs()
    tensor([0.])
    """
    return _minus_log(ssim(x, y, data_range=data_range, **options))


def _minus_log(similarity: Tensor) -> Tensor:
    # at SSIM = -1, which only opposite images of no mean reach, the logarithm has no value
    return -((similarity + 1) / 2).clamp_min(torch.finfo(similarity.dtype).eps).log()


class SSIM(Measure):
    """1 − SSIM as a measure; takes the options of ``ssim``. Its map always has the images' own size."""

    title = "1 − SSIM"

    def __init__(
        self,
        *,
        data_range: float | None = None,
        window: int = 11,
        sigma: float = 1.5,
        kind: WindowKind = "gaussian",
        padding: Padding = "symmetric",
        constants: Constants = "wang",
        k1: float = 0.01,
        k2: float = 0.03,
        c1: float | None = None,
        c2: float | None = None,
        alpha: float = 1,
        beta: float = 1,
        gamma: float = 1,
    ) -> None:
        super().__init__(data_range=data_range)
        self.options = SSIMOptions(
            window=window,
            sigma=sigma,
            kind=kind,
            padding=padding,
            constants=constants,
            k1=k1,
            k2=k2,
            c1=c1,
            c2=c2,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
        )
        # a wrong option is refused here, not at the first image
        make_settings(self.data_range, **self.options)

    def _map(self, x: Tensor, y: Tensor) -> Tensor:
        full_size: SSIMOptions = {**self.options, "padding": "symmetric"}
        return ssim_map(x, y, data_range=self.data_range, **full_size)

    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        return (1 - self._map(x, y)).mean(1, keepdim=True).clamp_min(0)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return (1 - ssim(x, y, data_range=self.data_range, **self.options)).clamp_min(0)

    def settings(self) -> dict[str, object]:
        return {**super().settings(), **self.options}


class LogSSIM(SSIM):
    """``log_ssim`` as a measure; takes the options of ``ssim``."""

    title = "−log((SSIM + 1) / 2)"

    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        return _minus_log(self._map(x, y)).mean(1, keepdim=True).clamp_min(0)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return log_ssim(x, y, data_range=self.data_range, **self.options).clamp_min(0)
