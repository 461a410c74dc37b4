from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from blemish.data.maps import write_image
from blemish.data.modality import Modality
from blemish.inspection.detector import load
from blemish.models import Autoencoder, build, modal_residuals
from blemish.models.modal_similarity import ModalSSIM
from blemish.recipes import load_recipe
from blemish.storage.training_record import ModalityFigures
from blemish.training.fit import fit
from blemish.training.modality_figures import (
    compare_modalities,
    is_learned,
    leave_out,
    modality_notes,
)

SENSORS = [Modality(name="rgb", channels=3), Modality(name="infrared", channels=1)]
TINY = ["training.batch=4", "training.device=cpu", "training.precision=float32"]


def thermal(seed: int, height: int = 96, width: int = 160) -> Tensor:
    """(4, height, width) as a colour camera and a thermal one see it: sharp texture, and smooth bright bodies."""
    rng = np.random.default_rng(seed)
    bodies = np.zeros((height, width))
    for _ in range(20):
        y, x = rng.integers(0, height), rng.integers(0, width)
        bodies[y : y + rng.integers(8, 40), x : x + rng.integers(8, 40)] += rng.normal(0, 0.15)
    texture = ndimage.gaussian_filter(rng.normal(size=(height, width)), 0.8) * 0.1
    rgb = [(0.5 + share * bodies + texture).clip(0, 1) for share in (1, 0.8, 0.6)]
    infrared = (0.45 + 1.2 * ndimage.gaussian_filter(bodies, 2)).clip(0, 1)
    return torch.tensor(np.stack([*rgb, infrared]), dtype=torch.float32)


def patches(seed: int, count: int = 12) -> Tensor:
    rng = np.random.default_rng(seed)
    scene = thermal(seed)
    places = [(int(rng.integers(64)), int(rng.integers(128))) for _ in range(count)]
    return torch.stack([scene[:, top : top + 32, left : left + 32] for top, left in places])


def network(name: str = "fp-cae-add") -> Autoencoder:
    torch.manual_seed(0)
    return build(load_recipe(name), 4, modalities=SENSORS).eval()


def dead(model: Autoencoder) -> Autoencoder:
    """The model with a decoder of the colour image that gives a constant grey."""
    decoder = model.decoder.decoders[0]  # type: ignore[union-attr]
    for layer in decoder.modules():
        if isinstance(layer, nn.ConvTranspose2d) or hasattr(layer, "weight"):
            nn.init.zeros_(layer.weight)
    return model


def figures(similarity: float, constant: float, **more: float) -> ModalityFigures:
    others = {"from_others": None, "linear": None, **more}
    return ModalityFigures(name="rgb", similarity=similarity, constant=constant, **others)


def test_baselines_are_what_they_say() -> None:
    """Infrared that is a sum of the others' channels is predicted by linear regression, a flat patch by a constant."""
    x = patches(0)
    x[:, 3] = (x[:, :3] * torch.tensor([0.2, 0.5, 0.1])[:, None, None]).sum(1)
    _, infrared = compare_modalities(network(), x, x)
    assert infrared.linear == pytest.approx(1, abs=1e-4)
    assert infrared.constant is not None
    assert infrared.constant < 0.9
    x[:, 3] = 0.4
    assert compare_modalities(network(), x, x)[1].constant == pytest.approx(1, abs=1e-4)


def test_an_absent_modality_has_no_figures() -> None:
    x = patches(0)
    x[:, 3] = torch.nan
    rgb, infrared = compare_modalities(network(), x, patches(1))
    assert infrared.similarity is infrared.constant is infrared.linear is None
    assert is_learned(infrared)
    assert rgb.linear is not None


def test_a_constant_reconstruction_is_not_learned() -> None:
    rgb, _ = compare_modalities(dead(network()), patches(0), patches(1))
    assert rgb.similarity is not None
    assert rgb.constant is not None
    assert rgb.similarity <= rgb.constant + 1e-3
    assert not is_learned(rgb)
    assert is_learned(figures(0.8, 0.7))
    assert not is_learned(figures(0.71, 0.7))
    assert is_learned(figures(0.9995, 0.999)), "a constant leaves little to gain"


def test_a_modality_that_was_not_learned_is_left_out_of_score_and_maps() -> None:
    model = network()
    x = patches(0, 2)
    before = modal_residuals(model, x)
    leave_out(model, [figures(0.7, 0.7), figures(0.9, 0.5)])
    after = modal_residuals(model, x)
    assert after.own[:, 0].isnan().all()
    assert after.crossed[:, 0].isnan().all()
    assert torch.equal(after.own[:, 1], before.own[:, 1])
    assert torch.equal(model.examine(x).map[:, 0], before.own[:, 1])
    assert not after.reconstruction.isnan().any()


def test_nothing_is_left_out_where_nothing_was_learned() -> None:
    model = network()
    leave_out(model, [figures(0.7, 0.7), figures(0.5, 0.5)])
    assert isinstance(model.measure, ModalSSIM)
    assert model.measure.counted.tolist() == [1, 1]


def test_a_model_of_an_earlier_version_counts_every_modality() -> None:
    model = network()
    state = {name: value for name, value in model.state_dict().items() if "counted" not in name}
    again = network()
    again.load_state_dict(state)
    assert isinstance(again.measure, ModalSSIM)
    assert again.measure.counted.tolist() == [1, 1]


def test_notes_name_the_modality_and_both_baselines() -> None:
    (note, other) = modality_notes([figures(0.682, 0.68), figures(0.8, 0.6, from_others=0.7, linear=0.9)])
    assert note.startswith(
        "rgb: not learned, its reconstruction is as good as a constant (SSIM 0.682, constant 0.680)"
    )
    assert "left out of score and maps" in note
    assert "SSIM 0.700, linear regression on their pixels has 0.900" in other
    assert modality_notes([figures(0.8, 0.6, from_others=0.9, linear=0.8)]) == ()


def write_scenes(folder: Path, count: int = 3) -> Path:
    for seed in range(count):
        pixels = thermal(seed).numpy()
        write_image(folder / f"scene{seed}" / "rgb.png", pixels[:3])
        write_image(folder / f"scene{seed}" / "infrared.png", pixels[3:])
    return folder


def test_a_fit_of_thermal_scenes_learns_both_and_says_so(tmp_path: Path) -> None:
    """The default recipe for scenes leaves no plateau behind, and is better than both baselines."""
    settings = [*TINY, "training.steps=30", "training.validate_every=10", "threshold.false_reject_rate=0.3"]
    detector = fit(write_scenes(tmp_path / "scenes"), settings=settings, out=tmp_path / "model")
    assert detector.recipe.name == "other-pixels"
    training = load(tmp_path / "model").file.training
    assert [one.name for one in training.modalities] == ["infrared", "rgb"]
    assert training.not_learned == ()
    for one in training.modalities:
        assert one.similarity is not None
        assert one.constant is not None
        assert one.linear is not None
        assert one.similarity > one.constant + 0.05
        assert one.similarity > one.linear
    card = (tmp_path / "model" / "card.md").read_text()
    assert "| modality | reconstruction | from the others | linear regression | constant |" in card


def test_a_dead_decoder_is_named_in_card_and_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One modality counts as learned and one does not: the second is in no map and named in the card."""
    monkeypatch.setattr("blemish.training.modality_figures.is_learned", lambda one: one.name == "infrared")
    settings = [*TINY, "training.steps=2", "training.validate_every=2", "threshold.false_reject_rate=0.3"]
    fit(write_scenes(tmp_path / "scenes", 2), "fp-cae-add", settings=settings, out=tmp_path / "model")
    detector = load(tmp_path / "model")
    assert detector.file.training.not_learned == ("rgb",)
    maps = detector.model.maps(thermal(7)[[3, 0, 1, 2]].numpy())
    assert maps.own is not None
    assert np.isnan(maps.own[1]).all()
    np.testing.assert_allclose(maps.anomaly, maps.own[0], atol=1e-6)
    assert "rgb: not learned" in (tmp_path / "model" / "card.md").read_text()
