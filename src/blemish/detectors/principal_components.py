"""Principal components of features."""

from __future__ import annotations

import torch
from torch import Tensor

WIDE = 2048
"""Features from which on their covariance is not computed: of 10,000 of them it would take minutes and gigabytes."""
EXTRA = 16
"""Directions beside those asked for, which the iterations need."""
ITERATIONS = 6


def principal_components(sample: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The first ``count`` principal components of features without their mean, (n, f): (f, k), k ≤ count.

    Of more than 2048 features by randomised subspace iteration (Halko, Martinsson, Tropp, SIAM Review 53(2), 2011,
    algorithm 4.4), which never forms an f × f matrix.
    """
    features = sample.shape[1]
    if features <= WIDE:
        # Of a single feature torch gives a number instead of a matrix.
        covariance = torch.cov(sample.T).reshape(features, features)
        _, vectors = torch.linalg.eigh(covariance)
        found: Tensor = vectors.flip(1)[:, :count].contiguous()
        return found
    own = min(count + EXTRA, *sample.shape)
    basis = torch.randn(features, own, generator=generator).to(sample)
    for _ in range(ITERATIONS):
        basis, _ = torch.linalg.qr(sample.T @ (sample @ basis))
    _, _, rotation = torch.linalg.svd(sample @ basis, full_matrices=False)
    found = (basis @ rotation.T)[:, :count].contiguous()
    return found
