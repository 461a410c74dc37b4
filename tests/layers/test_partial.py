"""Partial convolutions against the paper's example, and against its definition written out."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.errors import UsageError
from blemish.layers import partial
from blemish.layers.partial import (
    Geometry,
    PartialConv1d,
    PartialConv2d,
    PartialConvTranspose2d,
    partial_convolution,
)

# Arguments of torch's layers after the channels, of which there are 4 and 6.
PLAIN: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 5, "stride": 2, "padding": 2},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (0, 1)},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 3, "padding": 3, "groups": 2},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 3, "padding": "valid", "bias": False},
    {"kernel_size": 9, "padding": 4},  # larger than the input
]
TRANSPOSED: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 4, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    {"kernel_size": (3, 5), "stride": (1, 3), "padding": (0, 2)},
    {"kernel_size": 3, "stride": 2, "dilation": 2, "groups": 2},
    {"kernel_size": 2, "stride": 3, "bias": False},  # gaps that no input reaches
]
LAYERS = [(nn.Conv2d, PartialConv2d, settings) for settings in PLAIN] + [
    (nn.ConvTranspose2d, PartialConvTranspose2d, settings) for settings in TRANSPOSED
]
each_layer = pytest.mark.parametrize(("plain", "kind", "settings"), LAYERS, ids=str)


def by_definition(layer: Any, x: Tensor, mask: Tensor, whole: int) -> tuple[Tensor, Tensor]:
    """Equations 1 and 2 window by window: ``x`` and ``mask`` (N, C, H, W), the mask in each channel.

    A transposed convolution is a plain one on the input with zeros inserted, with the flipped kernel.
    """
    weight, groups = layer.weight, layer.groups
    stride, dilation = layer.stride, layer.dilation
    x = torch.where(mask, x, 0)
    valid = mask.to(x.dtype)
    reach = [d * (k - 1) for d, k in zip(dilation, layer.kernel_size, strict=True)]
    if isinstance(layer, nn.ConvTranspose2d):
        height, width = (s * (side - 1) + 1 for s, side in zip(stride, x.shape[2:], strict=True))
        spread = torch.zeros(2, *x.shape[:2], height, width, dtype=x.dtype)
        spread[..., :: stride[0], :: stride[1]] = torch.stack([x, valid])
        x, valid = spread
        split = weight.reshape(groups, -1, *weight.shape[1:])
        weight = split.transpose(1, 2).flatten(0, 1).flip(2, 3)  # (D, C / groups, K, K)
        edges = [
            (r - p, r - p + o) for r, p, o in zip(reach, layer.padding, layer.output_padding, strict=True)
        ]
        stride = (1, 1)
    elif layer.padding == "same":
        edges = [(r // 2, r - r // 2) for r in reach]
    else:
        sides = (0, 0) if layer.padding == "valid" else layer.padding
        edges = [(p, p) for p in sides]
    (top, bottom), (left, right) = edges
    x, valid = (F.pad(field, (left, right, top, bottom)) for field in (x, valid))
    kernel_h, kernel_w = layer.kernel_size
    rows = range(0, x.shape[2] - reach[0], stride[0])
    columns = range(0, x.shape[3] - reach[1], stride[1])
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    y = torch.zeros(len(x), weight.shape[0], len(rows), len(columns), dtype=x.dtype)
    reached = torch.zeros_like(y, dtype=torch.bool)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = (
                ...,
                slice(row, row + reach[0] + 1, dilation[0]),
                slice(column, column + reach[1] + 1, dilation[1]),
            )
            assert x[window].shape[2:] == (kernel_h, kernel_w)
            for group in range(groups):
                of = slice(group * inputs, (group + 1) * inputs)
                to = slice(group * outputs, (group + 1) * outputs)
                z = torch.einsum("nchw,dchw->nd", x[window][:, of], weight[to])
                m = valid[window][:, of].sum((1, 2, 3))[:, None]
                bias = 0 if layer.bias is None else layer.bias[to]
                y[:, to, i, j] = torch.where(m > 0, z * whole * inputs / m.clamp_min(1) + bias, 0)
                reached[:, to, i, j] = m > 0
    return y, reached


def made(kind: Any, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return kind(4, 6, **settings).double()


def whole_of(layer: Any) -> int:
    """Count the inputs that reach an output far from every border."""
    ones = torch.ones(1, 1, 60, 60)
    kernel = torch.ones(1, 1, *layer.kernel_size)
    if isinstance(layer, nn.ConvTranspose2d):
        return int(F.conv_transpose2d(ones, kernel, None, layer.stride, dilation=layer.dilation).max())
    return int(F.conv2d(ones, kernel, None, dilation=layer.dilation).max())


def test_the_papers_figure_3() -> None:
    layer = PartialConvTranspose2d(1, 1, 3, stride=2, padding=1, bias=False)
    plain = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, bias=False)
    for each in (layer, plain):
        nn.init.ones_(each.weight)
    x = torch.ones(1, 1, 3, 3)
    # (b) the input with zeros between, 5 × 5, and around, 7 × 7; (c) what a 3 × 3 window of ones finds in it.
    rows = torch.tensor([1.0, 2, 1, 2, 1])
    m = rows[:, None] * rows
    assert torch.equal(plain(x)[0, 0], m)
    # (d) and (e): the scale factors 4, 2 and 1 make all equal to the largest.
    assert (4 / m).unique().tolist() == [1, 2, 4]
    assert torch.equal(layer(x)[0, 0], torch.full((5, 5), 4.0))


@each_layer
@pytest.mark.parametrize("holes", ["none", "shared", "by channel"])
def test_the_layer_equals_the_written_definition(
    plain: Any, kind: Any, settings: dict[str, Any], holes: str
) -> None:
    layer = made(kind, settings)
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    whole = whole_of(layer)
    if holes == "none":
        reference, _ = by_definition(layer, x, torch.ones_like(x, dtype=torch.bool), whole)
        torch.testing.assert_close(layer(x), reference)
        return
    mask = torch.rand(2, 1 if holes == "shared" else 4, 7, 6) < 0.3
    mask[1, :, 1:] = False
    y, reached = layer(x, mask=mask)
    reference, reference_reached = by_definition(layer, x, mask.expand_as(x), whole)
    torch.testing.assert_close(y, reference)
    assert torch.equal(reached.expand_as(y), reference_reached)
    assert reached.any()


@each_layer
def test_far_from_the_border_the_layer_equals_the_plain_operation(
    plain: Any, kind: Any, settings: dict[str, Any]
) -> None:
    layer, other = made(kind, settings), made(plain, settings)
    x = torch.randn(1, 4, 40, 40, dtype=torch.float64)
    y, reference = layer(x), other(x)
    assert y.shape == reference.shape
    ones = other.double()
    with torch.no_grad():
        ones.weight.fill_(1)
        if ones.bias is not None:
            ones.bias.zero_()
    counts = ones(torch.ones_like(x))[0, 0]
    inside = counts == counts.max()
    assert inside.double().mean() > 0.05
    torch.testing.assert_close(y[..., inside], reference[..., inside], rtol=1e-12, atol=1e-12)
    partly = ~inside & (counts > 0)
    if partly.any():
        assert not torch.allclose(y[..., partly], reference[..., partly])


@pytest.mark.parametrize("side", [3, 12])
@pytest.mark.parametrize(
    "layer",
    [
        PartialConv2d(2, 1, 5, padding=2, bias=False),
        PartialConv2d(2, 1, 4, 2, 1, bias=False),
        PartialConvTranspose2d(2, 1, 4, 2, 1, bias=False),
        PartialConvTranspose2d(2, 1, 3, 2, 1, 1, bias=False),
    ],
    ids=str,
)
def test_a_mean_of_a_constant_is_that_constant_up_to_the_border_at_any_size(
    layer: PartialConv2d | PartialConvTranspose2d, side: int
) -> None:
    nn.init.constant_(layer.weight, 1 / (2 * whole_of(layer)))
    y = layer(torch.full((1, 2, side, side), 0.7))
    torch.testing.assert_close(y, torch.full_like(y, 0.7))


def test_a_one_dimensional_layer_scales_at_its_ends() -> None:
    layer = PartialConv1d(1, 1, 3, padding=1)
    nn.init.constant_(layer.weight, 1.0)
    nn.init.constant_(layer.bias, 0.5)  # type: ignore[arg-type]
    x = torch.tensor([[[1.0, 2.0, 4.0, 8.0]]])
    # 3/2 · (1 + 2), 1 + 2 + 4, 2 + 4 + 8 and 3/2 · (4 + 8), and the bias
    assert torch.equal(layer(x), torch.tensor([[[5, 7.5, 14.5, 18.5]]]))
    y, reached = layer(x, mask=torch.tensor([[[1, 0, 0, 0]]]))
    assert torch.equal(y, torch.tensor([[[3.5, 3.5, 0, 0]]]))
    assert reached.tolist() == [[[True, True, False, False]]]


@each_layer
def test_values_in_a_hole_have_no_influence(plain: Any, kind: Any, settings: dict[str, Any]) -> None:
    layer = made(kind, settings)
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    mask = torch.rand(2, 1, 9, 9) < 0.7
    results = []
    for content in (0.0, 1e6, torch.nan, torch.inf):
        filled = torch.where(mask, x, content).requires_grad_()
        y, _ = layer(filled, mask=mask)
        (gradient,) = torch.autograd.grad(y.square().sum(), filled)
        assert y.isfinite().all()
        assert gradient.isfinite().all()
        assert not torch.where(mask, 0, gradient).any()
        results.append((y, gradient))
    assert all(
        torch.equal(one, other) for pair in results for one, other in zip(pair, results[0], strict=True)
    )


@each_layer
def test_a_mask_without_holes_changes_nothing(plain: Any, kind: Any, settings: dict[str, Any]) -> None:
    layer = made(kind, settings)
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    for mask in (torch.ones(2, 1, 9, 8), torch.ones_like(x, dtype=torch.bool)):
        torch.testing.assert_close(layer(x, mask=mask)[0], layer(x))


def test_a_hole_shrinks_from_layer_to_layer() -> None:
    first, second = PartialConv2d(1, 2, 3, padding=1), PartialConv2d(2, 1, 3, padding=1)
    mask = torch.ones(1, 1, 9, 9, dtype=torch.bool)
    mask[..., 2:7, 2:7] = False
    x = torch.where(mask, torch.rand(1, 1, 9, 9), torch.nan)
    y, after = first(x, mask=mask)
    assert after.shape == mask.shape
    assert int((~after).sum()) == 9
    assert not y[..., 3:6, 3:6].any()
    z, last = second(y, mask=after)
    assert int((~last).sum()) == 1
    assert z[..., ~last[0, 0]].tolist() == [[[0]]]
    assert z.isfinite().all()


def test_the_bias_is_left_out_where_no_input_is_valid() -> None:
    spread = PartialConvTranspose2d(1, 1, 1, stride=2)
    nn.init.ones_(spread.weight)
    nn.init.constant_(spread.bias, 5.0)  # type: ignore[arg-type]
    assert spread(torch.ones(1, 1, 2, 2))[0, 0].tolist() == [[6, 0, 6], [0, 0, 0], [6, 0, 6]]
    wide = PartialConv2d(1, 1, 1, padding=1)
    nn.init.constant_(wide.bias, 5.0)  # type: ignore[arg-type]
    y = wide(torch.zeros(1, 1, 1, 1))
    assert y[0, 0].tolist() == [[0, 0, 0], [0, 5, 0], [0, 0, 0]]


@each_layer
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_agree_with_finite_differences(
    plain: Any, kind: Any, settings: dict[str, Any], masked: bool
) -> None:
    layer = made(kind, {**settings, "bias": True})
    x = torch.randn(1, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(1, 4, 4, 3) < 0.6 if masked else None

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        extra = layer.output_padding if isinstance(layer, nn.ConvTranspose2d) else None
        geometry = Geometry(layer.kernel_size, layer.stride, layer.padding, layer.dilation, extra)
        return partial_convolution(x, weight, bias, geometry, groups=layer.groups, mask=mask)[0]

    assert torch.autograd.gradcheck(run, (x, layer.weight, layer.bias), fast_mode=True)


@each_layer
def test_weights_are_interchangeable_with_the_plain_layer(
    plain: Any, kind: Any, settings: dict[str, Any]
) -> None:
    layer, other = kind(4, 6, **settings), plain(4, 6, **settings)
    layer(torch.rand(1, 4, 9, 9))
    assert layer.state_dict().keys() == other.state_dict().keys()
    other.load_state_dict(layer.state_dict())
    layer.load_state_dict(other.state_dict())
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    x = torch.rand(1, 4, 9, 9)
    for again in (copy.deepcopy(layer), torch.load(buffer, weights_only=False)):
        assert torch.equal(again(x), layer(x))


def test_the_scale_of_a_shape_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made_for = []
    make = partial._shape_scale

    def counting(geometry: Geometry, size: tuple[int, ...], *where: Any) -> Any:
        made_for.append(size)
        return make(geometry, size, *where)

    monkeypatch.setattr(partial, "_shape_scale", counting)
    partial._kept_scale.cache_clear()
    layer = PartialConv2d(1, 3, 3, padding=1)
    for size in [(8, 8), (8, 9), (8, 8), (8, 9), (8, 8)]:
        layer(torch.rand(2, 1, *size))
    assert made_for == [(8, 8), (8, 9)]
    monkeypatch.setattr(partial, "_KEPT_VALUES", 100)
    expected = layer(torch.rand(1, 1, 8, 8)).shape
    assert made_for[2:] == [(8, 8)]
    assert partial._kept_scale.cache_info().currsize == 2
    assert expected == (1, 3, 8, 8)


def test_a_scale_too_large_for_the_cache_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = PartialConvTranspose2d(2, 3, 3, 2, 1), torch.rand(1, 2, 5, 5)
    kept = layer(x)
    monkeypatch.setattr(partial, "_KEPT_VALUES", 0)
    torch.testing.assert_close(layer(x), kept)


def test_a_shape_first_used_in_inference_can_be_trained_on() -> None:
    partial._kept_scale.cache_clear()
    layer, x = PartialConv2d(2, 3, 3, padding=1), torch.rand(1, 2, 7, 11)
    with torch.inference_mode():
        before = layer(x)
    y = layer(x)
    y.square().sum().backward()
    assert torch.equal(y, before)
    assert layer.weight.grad is not None
    assert layer.weight.grad.any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("masked", [False, True])
def test_autocast_gives_bfloat16_near_the_exact_result(layout: torch.memory_format, masked: bool) -> None:
    # Counts of 11 · 25 inputs are beyond the whole numbers that bfloat16 has.
    torch.manual_seed(0)
    layer = PartialConv2d(11, 8, 5, 2, 2)
    x = torch.rand(2, 11, 16, 16).to(memory_format=layout)
    mask = torch.rand(2, 11, 16, 16) < 0.9
    call = (lambda: layer(x, mask=mask)[0]) if masked else (lambda: layer(x))
    exact = call()
    with torch.autocast("cpu", torch.bfloat16):
        y = call()
    assert y.dtype is torch.bfloat16
    torch.testing.assert_close(y.float(), exact, atol=0.02, rtol=0.02)
    y.float().square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype is torch.float32


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("kind", [PartialConv1d, PartialConv2d])
def test_padding_modes_other_than_zeros_are_refused(kind: Any, mode: str) -> None:
    with pytest.raises(UsageError, match=f"padding_mode is '{mode}'.*padding_mode='zeros'"):
        kind(1, 1, 3, padding=1, padding_mode=mode)


def test_inputs_without_a_batch_axis_and_masks_of_another_shape_are_refused() -> None:
    layer = PartialConv2d(2, 1, 3)
    with pytest.raises(UsageError, match=r"shape \(2, 5, 5\); give a batch"):
        layer(torch.rand(2, 5, 5))
    for shape in [(1, 3, 5, 5), (2, 1, 5, 5), (1, 1, 5, 4), (5, 5)]:
        with pytest.raises(UsageError, match="the mask has shape"):
            layer(torch.rand(1, 2, 5, 5), mask=torch.ones(shape))


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), (4, 2, 1), (5, 3, 1), (4, 2, 2), (2, 3, 1)]
)
def test_a_complete_transposed_window_has_the_largest_count_of_inputs(
    kernel: int, stride: int, dilation: int
) -> None:
    layer = nn.ConvTranspose2d(1, 1, kernel, stride, dilation=dilation)
    geometry = Geometry(layer.kernel_size, layer.stride, (0, 0), layer.dilation, (0, 0))
    assert geometry.whole == whole_of(layer)
    assert math.isqrt(geometry.whole) ** 2 == geometry.whole
