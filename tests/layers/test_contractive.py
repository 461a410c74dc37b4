"""The contractive penalty against torch.func's Jacobian, and its estimator's mean and variance."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from blemish.errors import UsageError
from blemish.layers import jacobian_norm_estimate, jacobian_norm_exact

Norm = Callable[[Tensor], Tensor]


def network(channels: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 3, 3),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(3 * 1 * 2, 5),
    ).double()


def images(count: int = 3, channels: int = 2) -> Tensor:
    return torch.rand(count, channels, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def jacobians(encode: nn.Module, x: Tensor) -> Tensor:
    """(N, d, D), an image at a time."""
    rows = [torch.func.jacrev(lambda one: encode(one[None])[0].flatten())(image) for image in x]
    return torch.stack(rows).flatten(2)


@pytest.mark.parametrize("channels", [1, 2, 11])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_exact_norm_is_that_of_torchs_jacobian(channels: int, memory_format: torch.memory_format) -> None:
    encode, x = network(channels), images(3, channels)
    expected = jacobians(encode, x).square().sum((1, 2))
    norms = jacobian_norm_exact(encode, x.to(memory_format=memory_format))
    torch.testing.assert_close(norms, expected)
    assert (norms > 0).all()


def test_every_shape_of_latent_is_accepted() -> None:
    x = images()
    torch.testing.assert_close(
        jacobian_norm_exact(lambda x: 2 * x, x), torch.full((3,), 4.0 * x[0].numel()).double()
    )
    assert torch.equal(jacobian_norm_exact(lambda x: x * 0, x), torch.zeros(3).double())


def estimates(encode: nn.Module, x: Tensor, count: int, projections: int = 1) -> Tensor:
    """(count, N), drawn independently."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        repeated = jacobian_norm_estimate(encode, x.repeat(count, 1, 1, 1), projections, generator)
    return repeated.view(count, len(x))


@pytest.mark.parametrize("projections", [1, 3])
def test_the_mean_of_the_estimates_is_the_exact_norm(projections: int) -> None:
    encode, x = network(), images()
    drawn = estimates(encode, x, 2000, projections)
    standard_error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - jacobian_norm_exact(encode, x)).abs() < 4 * standard_error).all()
    # Narrow enough to detect a factor that is off by a few per cent.
    assert (4 * standard_error < 0.1 * drawn.mean(0)).all()


@pytest.mark.parametrize("projections", [1, 3])
def test_the_variance_of_the_estimates_is_as_documented(projections: int) -> None:
    encode, x = network(), images()
    jacobian = jacobians(encode, x)
    a = jacobian @ jacobian.mT  # (N, d, d)
    off_diagonal = a.square().sum((1, 2)) - a.diagonal(dim1=1, dim2=2).square().sum(1)
    drawn = estimates(encode, x, 4000, projections)
    torch.testing.assert_close(drawn.var(0), 2 * off_diagonal / projections, rtol=0.2, atol=0)
    # Less than with normal directions, whose diagonal counts too.
    assert (drawn.var(0) < 0.8 * 2 * a.square().sum((1, 2)) / projections).all()


def test_orthogonal_directions_leave_no_variance() -> None:
    weight = torch.linalg.qr(torch.randn(96, 5, dtype=torch.float64)).Q.T * torch.arange(1, 6)[:, None]
    drawn = estimates(nn.Sequential(nn.Flatten(), _Linear(weight)), images(), 8)
    torch.testing.assert_close(drawn, torch.full((8, 3), 1.0 + 4 + 9 + 16 + 25).double())


class _Linear(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def gradients(encode: nn.Module, norms: Tensor) -> Tensor:
    found = torch.autograd.grad(norms.mean(), list(encode.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def test_gradients_of_the_exact_norm_match_finite_differences() -> None:
    encode, x = network(), images(1)
    weight = encode[0].weight

    def norm(weight: Tensor) -> Tensor:
        def with_it(x: Tensor) -> Tensor:
            encoded: Tensor = torch.func.functional_call(encode, {"0.weight": weight}, (x,))
            return encoded

        return jacobian_norm_exact(with_it, x)

    assert torch.autograd.gradcheck(norm, (weight.detach().requires_grad_(),))


def test_gradients_of_the_estimate_have_the_exact_ones_as_their_mean() -> None:
    encode, x = network(), images()
    exact = gradients(encode, jacobian_norm_exact(encode, x))
    generator = torch.Generator().manual_seed(3)
    drawn = torch.stack(
        [
            gradients(encode, jacobian_norm_estimate(encode, x.repeat(50, 1, 1, 1), 1, generator))
            for _ in range(20)
        ]
    )
    standard_error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - exact).abs() <= 5 * standard_error + 1e-12).all()
    assert (drawn.mean(0) - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("norm", [jacobian_norm_exact, lambda e, x: jacobian_norm_estimate(e, x, 2)])
def test_norms_are_computed_without_gradients_and_leave_none_behind(norm: Callable[..., Tensor]) -> None:
    encode, x = network(), images()
    with torch.no_grad():
        norms = norm(encode, x)
    assert not norms.requires_grad
    assert (norms > 0).all()
    assert norm(encode, x).requires_grad
    assert all(parameter.grad is None for parameter in encode.parameters())
    assert not x.requires_grad


def test_fused_attention_is_differentiated_twice() -> None:
    torch.manual_seed(0)
    block = nn.MultiheadAttention(8, 2, batch_first=True)

    def encode(x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        attended, _ = block(tokens, tokens, tokens, need_weights=False)
        mixed: Tensor = attended
        return mixed

    x = torch.rand(2, 8, 2, 3)
    norms = jacobian_norm_exact(encode, x)
    expected = [torch.func.jacrev(lambda one: encode(one[None]).flatten())(image) for image in x]
    torch.testing.assert_close(norms, torch.stack([j.square().sum() for j in expected]))
    norms.sum().backward()  # type: ignore[no-untyped-call]
    assert block.in_proj_weight.grad is not None
    assert block.in_proj_weight.grad.isfinite().all()


def test_signs_come_from_the_generator_or_from_torchs_own() -> None:
    encode, x = network(), images()

    def drawn(seed: int) -> Tensor:
        return jacobian_norm_estimate(encode, x, 1, torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    torch.manual_seed(5)
    first = jacobian_norm_estimate(encode, x, 1)
    torch.manual_seed(5)
    assert torch.equal(jacobian_norm_estimate(encode, x, 1), first)


@pytest.mark.parametrize("projections", [0, -1])
def test_less_than_one_projection_is_refused(projections: int) -> None:
    with pytest.raises(UsageError, match=f"projections is {projections}; give at least 1"):
        jacobian_norm_estimate(network(), images(), projections)
