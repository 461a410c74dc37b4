"""Augmentations: their effect, their invariants, and their application to the target, in training only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blemish.layers.affine import AffineRange
from blemish.models import build
from blemish.models.augmentations import Exposure, Flips, RandomRotation, expose, flip
from blemish.models.contracts import Pass, Term
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from blemish.training import runs


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 3, channels: int = 2) -> Tensor:
    return torch.rand(count, channels, 32, 32, generator=seeded(1))


def test_exposure_has_the_gain_and_gamma_asked_for() -> None:
    x = torch.full((2000, 1, 1, 2), 0.2)
    x[..., 1] = 0.4
    log_y = expose(x, 0.1, 0.08, seeded()).log()[:, 0, 0]
    # log y = log a + b log x: two values give the gamma, then the gain.
    b = (log_y[:, 1] - log_y[:, 0]) / torch.tensor(2.0).log()
    log_a = log_y[:, 0] - b * torch.tensor(0.2).log()
    assert abs(b.log().mean()) < 0.01
    assert abs(log_a.mean()) < 0.01
    assert abs(b.log().std() - 0.08) < 0.006
    assert abs(log_a.std() - 0.1) < 0.008


def test_exposure_saturates_and_keeps_order_black_and_absent_values() -> None:
    x = torch.linspace(0, 1, 101).expand(50, 3, 1, 101).clone()
    x[:, 1, 0, 7] = torch.nan
    y = expose(x, 0.3, 0.2, seeded())
    assert torch.equal(y.isnan(), x.isnan())
    torch.testing.assert_close(y[:, 0], y[:, 2])  # all channels change in the same way
    assert (y[:, 0].diff(dim=-1) >= 0).all()
    assert (y[:, 0, 0, 0] == 0).all()
    assert y.nan_to_num().max() == 1
    torch.testing.assert_close(expose(x, 0.0, 0.0, seeded()), x, equal_nan=True)


def test_flips_mirror_half_of_the_images_along_each_axis() -> None:
    x = images(400)
    for axis in (-1, -2):
        y = flip(x, axis, seeded())
        mirrored = (y == x.flip(axis)).flatten(1).all(1)
        assert ((y == x).flatten(1).all(1) ^ mirrored).all()
        assert 0.4 < mirrored.float().mean() < 0.6
    neither = Flips(horizontal=False, vertical=False)
    assert torch.equal(neither(x), x)
    level = Flips(vertical=False)(x, seeded())
    assert torch.equal(level.sort(-1).values, x.sort(-1).values)
    assert not torch.equal(level, x)


class RecordingTerm(Term):
    """Term that keeps its input."""

    def forward(self, done: Pass) -> Tensor:
        self.done = done
        return done.output.reconstruction.mean()


def test_the_target_is_augmented_before_the_corruption() -> None:
    recipe = override(
        load_recipe("dae-mse"),
        ["patch.size=32", "patch.stride=32", "augmentation=[{name: exposure, gain: 0.2}]"],
    )
    model = build(recipe, 1)
    recorder = RecordingTerm()
    model.loss_terms["mse"] = recorder
    x = images(channels=1)
    torch.manual_seed(0)
    model.train().loss(x)
    torch.manual_seed(0)
    target = Exposure(gain=0.2)(x)
    assert torch.equal(recorder.done.target, target)
    assert torch.equal(recorder.done.seen, model.corruptions[0](target))
    model.eval().loss(x)
    assert torch.equal(recorder.done.target, x)


def test_without_corruption_the_encoder_sees_the_target() -> None:
    model = build(override(load_recipe("l2-ae"), ["patch.size=32", "patch.stride=32"]), 1)
    recorder = RecordingTerm()
    model.loss_terms["mse"] = recorder
    x = images(channels=1)[..., :29]  # padded after the corruption
    model.train().loss(x)
    assert torch.equal(recorder.done.seen, x)


def test_rotation_cuts_patches_from_larger_images_in_training_and_held_out() -> None:
    settings = ["patch.size=32", "patch.stride=32", "augmentation=[{name: rotation}]"]
    torch.manual_seed(0)
    model = build(override(load_recipe("l2-ae"), settings), 1)
    side = model.drawn_side(32)
    assert side >= 32 * 2**0.5
    x = torch.rand(3, 1, side, side, generator=seeded(2))
    model.train()
    first, second = model.augment(x), model.augment(x)
    assert first.shape == (3, 1, 32, 32)
    assert not torch.equal(first, second)
    model.eval()
    held_out = model.augment(x)
    assert torch.equal(held_out, model.augment(x))
    middle = x[..., (side - 32) // 2 :, (side - 32) // 2 :][..., :32, :32]
    assert (held_out - middle).abs().mean() > 0.1
    assert model.loss(x).total.isfinite()
    assert model(x[..., :32, :32]).reconstruction.shape == (3, 1, 32, 32)  # inspection turns nothing


def test_a_rotated_stripe_lies_at_every_angle() -> None:
    stripes = (torch.arange(64.0) / 2).sin().expand(300, 1, 64, 64) / 2 + 0.5
    rotation = RandomRotation(patch=32)
    y = rotation(stripes, seeded())
    g_y, g_x = torch.gradient(y[:, 0], dim=(1, 2))
    twice = torch.atan2(2 * (g_x * g_y).sum((1, 2)), (g_x**2 - g_y**2).sum((1, 2)))
    counts = torch.histc(twice, 6, -torch.pi, torch.pi)
    assert counts.min() > 25
    none = RandomRotation(patch=32, degrees=0)
    torch.testing.assert_close(none(stripes[:2]), stripes[:2, :, 16:48, 16:48], atol=1e-5, rtol=0)


def test_the_trainer_draws_images_that_hold_every_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    class Asked(Exception):
        pass

    def note(*_: Any, patch: int, **__: Any) -> None:
        drawn.append(patch)
        raise Asked

    monkeypatch.setattr(runs, "Trainer", note)
    monkeypatch.setattr(runs, "_identity", lambda *_: {})
    for augmentation in ("[]", "[{name: rotation}]"):
        settings = ["patch.size=32", "patch.stride=32", f"augmentation={augmentation}"]
        recipe = override(load_recipe("l2-ae"), settings)
        with pytest.raises(Asked):
            runs.train_for(
                None,
                build(recipe, 1),
                recipe,
                None,
                None,
                machine=None,
                data=None,
                split={},
                resume=False,
                observer=Observer(),
            )
    assert drawn == [32, AffineRange().side(32)]
