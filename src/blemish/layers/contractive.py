"""Contractive penalty: the sensitivity of the latent to small changes of the image.

Rifai, Vincent, Muller, Glorot, Bengio 2011, Contractive Auto-Encoders, equation 4: the squared Frobenius norm
of the Jacobian J of the latent with respect to the image, the sum of the squares of all its entries.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from blemish.errors import UsageError

Encode = Callable[[Tensor], Tensor]


def jacobian_norm_exact(encode: Encode, x: Tensor) -> Tensor:
    """Compute ‖J‖_F² of each image exactly, one row of J for each latent variable: (N,), at least 0.

    Where gradients are enabled, the norm is differentiable with respect to everything that ``encode`` depends on. Time and memory grow with
    the number of latent variables; beyond a few dozen use :func:`jacobian_norm_estimate`.

    Parameters
    ----------
    encode: (N, C, H, W) to (N, …), each image independently: batch normalisation must be in evaluation mode.
    x: (N, C, H, W).

    Examples
    --------
    >>> import torch
    >>> jacobian_norm_exact(lambda x: 3 * x, torch.zeros(1, 1, 2, 2))
    tensor([36.])
    """
    x, z = _latent(encode, x)
    rows = torch.eye(z[0].numel(), dtype=z.dtype, device=z.device)
    return _squared_products(x, z, rows[:, None].expand(-1, len(z), -1))


def jacobian_norm_estimate(
    encode: Encode, x: Tensor, projections: int, generator: torch.Generator | None = None
) -> Tensor:
    """Estimate ‖J‖_F² of each image without bias from random projections of J: (N,), at least 0.

    The mean of ‖Jᵀ v‖² over vectors v of random signs (Hutchinson 1990). With A = J Jᵀ its variance is
    2 (‖A‖_F² − Σ A_ii²) / ``projections``: smaller than the 2 ‖A‖_F² of normal v, and 0 where the latent
    variables depend on the image in orthogonal directions. Random signs in the space of the image, ‖J u‖², would
    replace A by JᵀJ, whose diagonal has more entries and a smaller share of the norm.

    Each projection costs a backward pass through ``encode``, and about two more when the estimate itself is
    differentiated.

    Parameters
    ----------
    encode, x: as in :func:`jacobian_norm_exact`, and differentiable in the same way.
    projections: vectors v for each image, at least 1.
    generator: source of the random signs; torch's global generator by default.

    Raises
    ------
    UsageError
        For fewer than one projection.

    Examples
    --------
    >>> import torch
    >>> jacobian_norm_estimate(lambda x: 3 * x, torch.zeros(1, 1, 2, 2), projections=1)
    tensor([36.])
    """
    if projections < 1:
        raise UsageError(f"projections is {projections}; give at least 1")
    x, z = _latent(encode, x)
    shape = (projections, len(z), z[0].numel())
    device = z.device if generator is None else generator.device
    signs = torch.randint(2, shape, generator=generator, device=device).to(z) * 2 - 1
    return _squared_products(x, z, signs) / projections


def _latent(encode: Encode, x: Tensor) -> tuple[Tensor, Tensor]:
    """Detach ``x`` as a leaf and encode it with a graph, even where gradients are disabled."""
    # Fused attention can be differentiated only once; a differentiable norm needs it twice.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        x = x.detach().requires_grad_()
        return x, encode(x).flatten(1)


def _squared_products(x: Tensor, z: Tensor, v: Tensor) -> Tensor:
    """Sum ‖Jᵀ v_k‖² over k for each image, with ``z`` (N, d) and ``v`` (K, N, d): (N,)."""
    total = x.new_zeros(len(x))
    # In sequence: in one batched pass (vmap) the convolutions take up to three times as long.
    for v_k in v:
        (product,) = torch.autograd.grad(
            z, x, v_k, retain_graph=True, create_graph=torch.is_grad_enabled()
        )  # (N, C, H, W)
        total = total + product.square().flatten(1).sum(1)
    return total
