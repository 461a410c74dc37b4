"""Partial convolution, plain and transposed: the valid inputs of a window are scaled up for the missing ones.

Xie, Meeus, Pižurica 2019 (Partial Convolution Based Multimodal Autoencoder for Art Investigation), section
3.1. The plain operation gives Z' from the input and the kernel, and M from ones in place of both, and

    Z = Z' · R + b,    R = max(M) / M,    and 0, without b, where M is 0.

Zero padding and, in a transposed convolution, the zeros between the inputs count as missing. A mask can mark
any other part of the input as missing (Liu et al. 2018, Image Inpainting for Irregular Holes Using Partial
Convolutions, equations 1 and 2); the values there have no influence, and may be NaN.

max(M) is the value of M for a complete window, one that misses nothing. It equals the paper's maximum wherever
the input contains such a window. Where the input is too small, or its holes leave no complete window, the scale
still does not depend on the size of the image or on its other holes.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.errors import UsageError

_KEPT = 32
_KEPT_VALUES = 1 << 19  # of a cached scale; a larger one is recomputed, cheap beside its convolution


class Geometry(NamedTuple):
    """Geometry of a convolution: one number per axis in each field, one axis or two."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...] | None = None
    """Output padding of a transposed convolution; None for a plain convolution."""

    def convolve(self, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
        """Apply torch's own operation, without bias."""
        operation: Any
        if self.output_padding is None:
            operation = (F.conv1d, F.conv2d)[len(self.kernel) - 1]
            y: Tensor = operation(x, weight, None, self.stride, self.padding, self.dilation, groups)
            return y
        operation = (F.conv_transpose1d, F.conv_transpose2d)[len(self.kernel) - 1]
        y = operation(x, weight, None, self.stride, self.padding, self.output_padding, groups, self.dilation)
        return y

    @property
    def whole(self) -> int:
        """Number of inputs per channel that reach an output of a complete window: max(M) of one channel.

        Examples
        --------
        >>> Geometry((3, 3), (2, 2), (1, 1), (1, 1)).whole
        9
        >>> Geometry((3, 3), (2, 2), (1, 1), (1, 1), output_padding=(0, 0)).whole
        4
        """
        if self.output_padding is None:
            return math.prod(self.kernel)
        # In a transposed convolution, an output meets only the taps with the same remainder by the stride.
        return math.prod(
            max(Counter(tap * dilation % stride for tap in range(kernel)).values())
            for kernel, stride, dilation in zip(self.kernel, self.stride, self.dilation, strict=True)
        )


class _Scale(NamedTuple):
    ratio: Tensor
    """R, (1 or N, 1 or D, …)."""
    reached: Tensor | None
    """Mask of outputs where M is not 0, in the shape of R; None if M is never 0."""


def _scale_of(m: Tensor, whole: int, dtype: torch.dtype) -> _Scale:
    reached = m > 0
    # Half precision cannot hold large counts exactly; their ratio it can.
    ratio = torch.where(reached, whole / m.to(torch.promote_types(dtype, torch.float32)), 0)
    return _Scale(ratio.to(dtype), reached)


@torch.inference_mode(False)  # a tensor made in inference mode could not serve a later backward pass
@torch.no_grad()
def _shape_scale(
    geometry: Geometry, size: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> _Scale:
    """Compute the scale of inputs of ``size`` in which only the padding is missing: R is (1, 1, …)."""
    with torch.autocast("cpu", enabled=False):
        m = geometry.convolve(torch.ones(1, 1, *size), torch.ones(1, 1, *geometry.kernel)).round()
    ratio, reached = _scale_of(m, geometry.whole, dtype)
    assert reached is not None
    return _Scale(ratio.to(device), None if reached.all() else reached.to(device))


@lru_cache(maxsize=_KEPT)
def _kept_scale(
    geometry: Geometry,
    size: tuple[int, ...],
    channels: int,
    dtype: torch.dtype,
    device: torch.device,
    memory_format: torch.memory_format,
) -> _Scale:
    """Cache ``_shape_scale`` with R as (1, D, …) in the layout of the output, for the fastest product."""
    ratio, reached = _shape_scale(geometry, size, dtype, device)
    with torch.inference_mode(False):
        whole = ratio.expand(1, channels, *ratio.shape[2:]).contiguous(memory_format=memory_format)
    return _Scale(whole, reached)


@torch.no_grad()
def _mask_scale(geometry: Geometry, mask: Tensor, groups: int, outputs: int, dtype: torch.dtype) -> _Scale:
    """Compute the scale of inputs that are valid where ``mask`` is true: R is (N, 1, …), or (N, D, …) with groups."""
    groups = 1 if mask.shape[1] == 1 else groups
    split = mask.reshape(
        mask.shape[0], groups, -1, *mask.shape[2:]
    )  # (N, C, …) -> (N, groups, C / groups, …)
    counts = split.sum(2, dtype=torch.float32)
    ones = counts.new_ones(groups, 1, *geometry.kernel)
    with torch.autocast(mask.device.type, enabled=False):
        m = geometry.convolve(counts, ones, groups).round()
    if groups > 1:
        m = m.repeat_interleave(outputs // groups, 1)
    return _scale_of(m, geometry.whole * (mask.shape[1] // groups), dtype)


def partial_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    *,
    groups: int = 1,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Apply a partial convolution to ``x`` and compute the mask of its valid outputs.

    Parameters
    ----------
    x: (N, C, H, W), or (N, C, L).
    weight: in torch's layout: (D, C / groups, …), or (C, D / groups, …) transposed.
    bias: (D,) or None.
    mask: (N, 1, …) or (N, C, …), not 0 where ``x`` is valid; None if it is valid everywhere.

    Returns
    -------
    The result (N, D, …), and the mask of the next layer, booleans (N, 1, …), or (N, D, …) where several groups
    differ; None without ``mask``.

    Raises
    ------
    UsageError
        If ``x`` is not a batch, or the mask has another shape.

    Examples
    --------
    A moving average of three values of a constant signal, at its ends and beside a hole:

    >>> third = torch.full((1, 1, 3), 1 / 3)
    >>> geometry = Geometry((3,), (1,), (1,), (1,))
    >>> partial_convolution(torch.ones(1, 1, 6), third, None, geometry)[0]
    tensor([[[1., 1., 1., 1., 1., 1.]]])
    >>> nan = torch.nan
    >>> x = torch.tensor([[[1.0, nan, nan, nan, 1.0, 1.0]]])
    >>> y, mask = partial_convolution(x, third, None, geometry, mask=~x.isnan())
    >>> y, mask
    (tensor([[[1., 1., 0., 1., 1., 1.]]]), tensor([[[ True,  True, False,  True,  True,  True]]]))
    """
    axes = len(geometry.kernel)
    if x.ndim != axes + 2:
        raise UsageError(
            f"a partial convolution was given shape {tuple(x.shape)}; give a batch of {axes + 2} axes, "
            "(N, C, H, W) or (N, C, L)"
        )
    if mask is not None:
        return _masked(x, weight, bias, geometry, groups, mask)
    y = geometry.convolve(x, weight, groups)
    size = tuple(x.shape[2:])
    if y[0].numel() > _KEPT_VALUES:
        scale = _shape_scale(geometry, size, y.dtype, y.device)
    else:
        last = axes == 2 and y.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        scale = _kept_scale(geometry, size, y.shape[1], y.dtype, y.device, layout)
    if bias is None:
        return y * scale.ratio, None
    shift = bias.to(y.dtype).view(-1, *[1] * axes)
    if scale.reached is not None:
        shift = shift * scale.reached
    return torch.addcmul(shift, y, scale.ratio), None


def _masked(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int, mask: Tensor
) -> tuple[Tensor, Tensor]:
    if mask.shape not in (x.shape, (x.shape[0], 1, *x.shape[2:])):
        raise UsageError(
            f"the mask has shape {tuple(mask.shape)} and the input {tuple(x.shape)}; give the mask the input's "
            "shape, or one channel of it"
        )
    valid = mask != 0
    y = geometry.convolve(torch.where(valid, x, 0), weight, groups)
    ratio, reached = _mask_scale(geometry, valid, groups, y.shape[1], y.dtype)
    assert reached is not None
    y = y * ratio
    if bias is not None:
        y = y + bias.to(y.dtype).view(-1, *[1] * len(geometry.kernel)) * reached
    return y, reached


def _plain(layer: nn.Conv1d | nn.Conv2d, x: Tensor, mask: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
    geometry = Geometry(layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    y, reached = partial_convolution(x, layer.weight, layer.bias, geometry, groups=layer.groups, mask=mask)
    return y if reached is None else (y, reached)


def _refuse_other_padding(mode: str) -> None:
    if mode != "zeros":
        raise UsageError(
            f"padding_mode is '{mode}', which leaves nothing missing at the border; "
            "use padding_mode='zeros' for a partial convolution, or torch's own layer"
        )


class PartialConv1d(nn.Conv1d):
    """``torch.nn.Conv1d`` as :func:`partial_convolution`: the same arguments and weights, zero padding only.

    With ``mask`` the result is a pair: the output and the mask of the next layer.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        _refuse_other_padding(self.padding_mode)

    @overload
    def forward(self, input: Tensor, *, mask: None = None) -> Tensor: ...
    @overload
    def forward(self, input: Tensor, *, mask: Tensor) -> tuple[Tensor, Tensor]: ...
    def forward(self, input: Tensor, *, mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        return _plain(self, input, mask)


class PartialConv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` as :func:`partial_convolution`: the same arguments and weights, zero padding only.

    With ``mask`` the result is a pair: the output and the mask of the next layer.

    Examples
    --------
    >>> layer = PartialConv2d(1, 1, 3, padding=1, bias=False)
    >>> _ = nn.init.ones_(layer.weight)
    >>> layer(torch.ones(1, 1, 5, 5)).unique()
    tensor([9.], grad_fn=<Unique2Backward0>)
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        _refuse_other_padding(self.padding_mode)

    @overload
    def forward(self, input: Tensor, *, mask: None = None) -> Tensor: ...
    @overload
    def forward(self, input: Tensor, *, mask: Tensor) -> tuple[Tensor, Tensor]: ...
    def forward(self, input: Tensor, *, mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        return _plain(self, input, mask)


class PartialConvTranspose2d(nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d`` as :func:`partial_convolution`, the paper's partial deconvolution.

    The same arguments and weights. With ``mask`` the result is a pair: the output and the mask of the next layer.

    Examples
    --------
    The paper's Figure 3: a kernel of ones on an input of ones, for which the plain operation gives 1, 2 and 4 in turn.

    >>> layer = PartialConvTranspose2d(1, 1, 3, stride=2, padding=1, bias=False)
    >>> _ = nn.init.ones_(layer.weight)
    >>> layer(torch.ones(1, 1, 3, 3)).unique()
    tensor([4.], grad_fn=<Unique2Backward0>)
    """

    @overload
    def forward(
        self, input: Tensor, output_size: list[int] | None = None, *, mask: None = None
    ) -> Tensor: ...
    @overload
    def forward(
        self, input: Tensor, output_size: list[int] | None = None, *, mask: Tensor
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self, input: Tensor, output_size: list[int] | None = None, *, mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        assert isinstance(self.padding, tuple)  # torch's transposed layer accepts no string, unlike its type
        extra = self._output_padding(
            input,
            output_size,
            list(self.stride),
            list(self.padding),
            list(self.kernel_size),
            2,
            list(self.dilation),
        )
        geometry = Geometry(self.kernel_size, self.stride, self.padding, self.dilation, tuple(extra))
        y, reached = partial_convolution(
            input, self.weight, self.bias, geometry, groups=self.groups, mask=mask
        )
        return y if reached is None else (y, reached)
