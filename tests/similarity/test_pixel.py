"""Squared and absolute differences against torch's own."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from blemish.similarity import l1, l1_map, mse, mse_map


def test_equal_torch() -> None:
    x, y = torch.rand(3, 2, 5, 7), torch.rand(3, 2, 5, 7)
    torch.testing.assert_close(mse_map(x, y, data_range=1.0), F.mse_loss(x, y, reduction="none"))
    torch.testing.assert_close(l1_map(x, y, data_range=1.0), F.l1_loss(x, y, reduction="none"))
    torch.testing.assert_close(mse(x, y, data_range=1.0).mean(), F.mse_loss(x, y))
    torch.testing.assert_close(l1(x, y, data_range=1.0).mean(), F.l1_loss(x, y))


def test_count_in_units_of_the_data_range() -> None:
    x, y = torch.rand(3, 2, 5, 7), torch.rand(3, 2, 5, 7)
    torch.testing.assert_close(mse(255 * x, 255 * y, data_range=255), mse(x, y, data_range=1.0))
    torch.testing.assert_close(l1(255 * x, 255 * y, data_range=255), l1(x, y, data_range=1.0))
