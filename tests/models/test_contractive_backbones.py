"""Contractive term in recipes of large networks, at an eighth of their width."""

from __future__ import annotations

import pytest

from tests.models.test_contractive_loss import LARGE, train_a_hundred_steps


@pytest.mark.slow
@pytest.mark.usefixtures("narrow_backbones")
@pytest.mark.parametrize("name", LARGE)
def test_a_hundred_steps_lower_the_loss_and_its_terms(name: str) -> None:
    train_a_hundred_steps(name)
