from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import load, save
from torch import Tensor, nn

from blemish.data.modality import Modality, channel_slices
from blemish.demo.painting import MODALITIES, make_painting
from blemish.errors import RecipeError
from blemish.models import Autoencoder, build, modal_residuals, other_pixels
from blemish.models.modal_difference import ModalDifference
from blemish.models.modal_similarity import modal_ssim
from blemish.models.other_pixels import OtherPixelsEncoder
from blemish.recipes import load_recipe, override

SENSORS = [Modality(name="a", channels=2), Modality(name="b", channels=1), Modality(name="c", channels=1)]
PLAIN = ["patch.size=32", "patch.stride=24", "encoder.width=1", "corruption=[]"]


def scene(seed: int, side: int = 32) -> Tensor:
    """(1, 4, side, side): channels that depend on each other linearly, with noise of their own."""
    rng = np.random.default_rng(seed)
    hidden = rng.random((3, side, side))
    mix = np.array([[0.5, 0.3, 0.1], [0.2, 0.4, 0.3], [0.6, 0.1, 0.2], [0.1, 0.1, 0.7]])
    pixels = np.tensordot(mix, hidden, 1) + rng.normal(0, 0.02, (4, side, side))
    return torch.tensor(pixels[None].clip(0, 1), dtype=torch.float32)


@pytest.fixture
def values_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_pixels, "MOST_FEATURES", 1)


def gathered(*settings: str) -> Autoencoder:
    model = build(override(load_recipe("other-pixels"), [*PLAIN, *settings]), 4, modalities=SENSORS)
    model.train()
    for seed in range(6):
        model.loss(torch.cat([scene(10 * seed + number) for number in range(4)]))
    return model.eval()


def least_squares(present: list[int], targets: list[int]) -> np.ndarray:
    """Prediction of ``targets`` of scene 99 by least squares on the channels ``present`` of the training scenes."""
    train = np.concatenate([scene(10 * seed + n)[0].numpy() for seed in range(6) for n in range(4)], 1)
    flat = train.reshape(4, -1).T.astype(float)
    design = np.column_stack([flat[:, present], np.ones(len(flat))])
    weights = np.linalg.lstsq(design, flat[:, targets], rcond=None)[0]
    test = scene(99)[0].numpy().reshape(4, -1).T
    return (np.column_stack([test[:, present], np.ones(len(test))]) @ weights).T.reshape(len(targets), 32, 32)


@pytest.mark.usefixtures("values_alone")
def test_before_training_it_is_least_squares_from_the_other_modalities() -> None:
    with torch.no_grad():
        found = gathered()(scene(99)).reconstruction[0].numpy()
    for present, targets in (([2, 3], [0, 1]), ([0, 1, 3], [2]), ([0, 1, 2], [3])):
        assert_allclose(found[targets], least_squares(present, targets), atol=2e-3)


@pytest.mark.usefixtures("values_alone")
def test_without_a_modality_it_is_least_squares_from_those_that_are_left() -> None:
    x = scene(99)
    x[:, 2, :, 16:] = torch.nan  # absent on the right half
    with torch.no_grad():
        found = gathered()(x).reconstruction[0].numpy()
    assert np.isfinite(found).all()
    assert_allclose(found[3, :, 16:], least_squares([0, 1], [3])[0, :, 16:], atol=2e-3)
    assert_allclose(found[3, :, :16], least_squares([0, 1, 2], [3])[0, :, :16], atol=2e-3)
    assert_allclose(found[2], least_squares([0, 1, 3], [2])[0], atol=2e-3)


def test_least_squares_of_the_values_alone_is_there_beside_the_prediction() -> None:
    model = gathered()
    x = scene(99)
    x[:, 2, :, 16:] = torch.nan
    assert isinstance(model.encoder, OtherPixelsEncoder)
    found = model.encoder.least_squares(x)[0].numpy()
    assert_allclose(found[:2, :, :16], least_squares([2, 3], [0, 1])[:, :, :16], atol=1e-3)
    assert_allclose(found[:2, :, 16:], least_squares([3], [0, 1])[:, :, 16:], atol=1e-3)
    assert_allclose(found[2], least_squares([0, 1, 3], [2])[0], atol=1e-3)
    assert_allclose(found[3, :, 16:], least_squares([0, 1], [3])[0, :, 16:], atol=1e-3)


def test_the_map_compares_with_least_squares_too() -> None:
    model = gathered()
    x = scene(99)
    maps = {}
    for linear in (0.0, 0.5, 1.0):
        measure = ModalDifference(modalities=SENSORS, data_range=1.0, structure=0, linear=linear)
        model.measure = measure
        measure.prepare(model)
        maps[linear] = modal_residuals(model, x).crossed
    assert isinstance(model.encoder, OtherPixelsEncoder)
    # A difference d is shown as 1 − exp(−d / u): logarithms are mixed as the differences are.
    mixed = (torch.log1p(-maps[0.0]) + torch.log1p(-maps[1.0])) / 2
    torch.testing.assert_close(torch.log1p(-maps[0.5]), mixed, atol=1e-4, rtol=1e-3)
    linear_alone = measure.each(x, model.encoder.least_squares(x))
    torch.testing.assert_close(maps[1.0], linear_alone)
    assert (maps[1.0] - maps[0.0]).abs().max() > 1e-3


def test_least_squares_of_another_encoder_is_refused() -> None:
    recipe = override(
        load_recipe("fp-cae-add"), ["patch.size=32", "residual={name: modal-difference, linear: 0.5}"]
    )
    model = build(recipe, 4, modalities=SENSORS).eval()
    with pytest.raises(RecipeError, match="from the encoder 'other-pixels'"):
        model.examine(scene(99))


def test_a_modality_never_sees_itself() -> None:
    model = gathered("encoder.width=8")
    for network in model.encoder.networks:  # type: ignore[union-attr]
        nn.init.normal_(network[-1].weight)
    x = scene(99)
    changed = x.clone()
    changed[:, 2] = torch.rand(32, 32)
    with torch.no_grad():
        before, after = model(x).reconstruction, model(changed).reconstruction
    assert torch.equal(before[:, 2], after[:, 2])
    assert not torch.equal(before[:, 3], after[:, 3])
    residuals = modal_residuals(model, x)
    assert torch.equal(residuals.own, residuals.crossed)


def test_scenes_that_never_have_all_modalities_teach_it_too() -> None:
    """Each pair of modalities is seen together, all three never are."""
    model = build(override(load_recipe("other-pixels"), PLAIN), 4, modalities=SENSORS)
    model.train()
    for seed in range(9):
        batch = torch.cat([scene(10 * seed + number) for number in range(3)])
        for number, channels in enumerate((slice(0, 2), slice(2, 3), slice(3, 4))):
            batch[number, channels] = torch.nan
        model.loss(batch)
    model.eval()
    x = scene(99)
    with torch.no_grad():
        y = model(x).reconstruction
    assert ((x - y) ** 2).mean((0, 2, 3)).lt(x.var((0, 2, 3))).all()


def test_a_saved_model_predicts_the_same(tmp_path: Path) -> None:
    model = gathered("encoder.width=8")
    again = build(override(load_recipe("other-pixels"), [*PLAIN, "encoder.width=8"]), 4, modalities=SENSORS)
    again.load_state_dict(load(save(model.state_dict())))
    again.eval()
    x = scene(99)
    x[:, 2, :9] = torch.nan
    with torch.no_grad():
        assert torch.equal(model(x).reconstruction, again(x).reconstruction)
        assert torch.equal(
            modal_residuals(model, x).own.nan_to_num(), modal_residuals(again, x).own.nan_to_num()
        )


def test_a_graph_has_the_predictions_from_every_set_of_modalities() -> None:
    model = gathered("encoder.width=8")
    encoder = model.encoder
    encoder.load_state_dict(encoder.state_dict())
    assert isinstance(encoder, OtherPixelsEncoder)
    x = scene(99)
    x[:, 2, :9] = torch.nan
    x[:, :2, :, 20:] = torch.nan
    two = torch.cat([x, scene(98)])
    graph = torch.export.export(encoder, (two,), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    with torch.no_grad():
        for images in (two, torch.cat([two, x])):
            assert_allclose(graph(images).numpy(), encoder(images).numpy(), atol=1e-5)


def test_it_predicts_paintings_better_than_a_constant_and_than_least_squares() -> None:
    """Fitted on two generated paintings, compared on a third that it has not seen."""
    sensors = [Modality(name=name, channels=channels) for name, channels in MODALITIES.items()]
    recipe = override(load_recipe("other-pixels"), ["patch.size=64", "patch.stride=48", "encoder.width=16"])
    torch.manual_seed(0)
    model = build(recipe, 11, modalities=sensors)
    paintings = [torch.tensor(make_painting(seed, 128).stacked, dtype=torch.float32) for seed in range(3)]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    rng = np.random.default_rng(0)
    model.train()
    for _ in range(15):
        tops, lefts = rng.integers(0, 65, (2, 2))
        batch = torch.stack(
            [
                painting[:, top : top + 64, left : left + 64]
                for painting, top, left in zip(paintings[:2], tops, lefts, strict=True)
            ]
        )
        loss = model.loss(batch).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    x = paintings[2][None]
    with torch.no_grad():
        y = model(x).reconstruction
    flat = torch.cat([painting.reshape(11, -1) for painting in paintings[:2]], 1).T.double()
    linear = torch.empty_like(x)
    for own in channel_slices(sensors):
        others = [number for number in range(11) if not own.start <= number < own.stop]
        design = torch.cat([flat[:, others], torch.ones(len(flat), 1)], 1)
        weights = torch.linalg.lstsq(design, flat[:, own]).solution
        test = torch.cat([x[0].reshape(11, -1).T[:, others], torch.ones(128 * 128, 1)], 1).double()
        linear[0, own] = (test @ weights).T.reshape(-1, 128, 128).float()
    similar = {
        name: modal_ssim(x, z.clamp(0, 1), sensors, data_range=1.0).ssim[0]
        for name, z in (
            ("it", y),
            ("linear", linear),
            ("constant", x.mean((2, 3), keepdim=True).expand_as(x)),
        )
    }
    assert (similar["it"] > similar["constant"] + 0.05).all()
    assert similar["it"].mean() > similar["linear"].mean()


def test_the_residual_is_between_0_and_1_and_0_where_all_is_predicted() -> None:
    measure = ModalDifference(modalities=SENSORS, data_range=1.0)
    x = scene(0)
    assert measure.each(x, x).abs().max() < 1e-6
    shifted = x.clone()
    shifted[:, 3] += 0.4
    maps = measure.each(x, shifted)
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert maps[:, 2].mean() > 0.5, "a change of grey level alone is a difference"
    assert maps[:, :2].abs().max() < 1e-6
    x[:, 3, 10:20] = torch.nan
    assert torch.equal(measure.each(x, shifted)[0, 2].isnan(), x[0, 3].isnan())


def test_one_modality_alone_is_refused() -> None:
    with pytest.raises(RecipeError, match="predicts each modality from the others, and there is one alone"):
        build(load_recipe("other-pixels"), 3)
