from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blemish.models import Autoencoder
from blemish.storage.training_record import TrainingLook
from blemish.training import plateau
from blemish.training.fit import fit
from blemish.training.plateau import HELPED, LOOKS, TERM, PlateauWatch, plateau_notes
from tests.training.test_modality_figures import TINY, dead, network, patches, write_scenes


def watch(model: Autoencoder, said: list[str]) -> PlateauWatch:
    return PlateauWatch(model, patches(0), patches(1), said.append)


def test_a_modality_at_a_constant_is_helped_until_it_is_better() -> None:
    said: list[str] = []
    model = dead(network())
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    watching = watch(model, said)
    own = model.loss(patches(2)).terms
    looks = [watching.look(step) for step in range(LOOKS)]
    assert [look[HELPED] for look in looks] == [0, 1]
    assert looks[0]["rgb, SSIM"] == pytest.approx(looks[0]["rgb, SSIM of a constant"], abs=5e-3)
    assert len([line for line in said if line.startswith("rgb: as good as a constant at step 1")]) == 1
    history = [TrainingLook(step=1, training=0.0, validation=0.0, measures=look) for look in looks]
    watching.restore(history)
    terms = model.loss(patches(2)).terms
    assert {name for name in terms if name.startswith(TERM)} == {f"{TERM}-rgb", f"{TERM}-infrared"}
    assert {name: terms[name].item() for name in own} == {name: value.item() for name, value in own.items()}
    assert model.state_dict().keys() == weights.keys()
    watching.pause()
    assert model.loss(patches(2)).terms.keys() == own.keys()
    again = dead(network())
    restored = watch(again, said)
    restored.restore(history)
    assert TERM in again.loss_terms
    (note,) = plateau_notes(history)
    assert note.endswith(
        "stayed at a constant, so that squared differences were added to the loss from step 1 to the end."
    )
    assert plateau_notes(history[:1]) == ()


def test_a_modality_that_is_learned_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    monkeypatch.setattr(plateau, "is_learned", lambda one: True)
    watching = watch(model, [])
    looks = [watching.look(step) for step in range(3)]
    assert [look[HELPED] for look in looks] == [0, 0, 0]
    watching.restore([TrainingLook(step=1, training=0.0, validation=0.0, measures=looks[-1])])
    assert TERM not in model.loss_terms


@pytest.mark.slow
def test_squared_differences_lead_off_the_plateau_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On generated scenes of a colour and a thermal camera, by the held-out loss of the recipe."""
    scenes = write_scenes(tmp_path / "scenes")
    settings = [
        *TINY,
        "training.batch=8",
        "training.steps=120",
        "training.validate_every=40",
        "threshold.rule=fixed",
        "threshold.value=1",
    ]
    helped = fit(scenes, "fp-cae-concat", settings=settings).file.training
    monkeypatch.setattr(plateau, "LOOKS", 1000)
    alone = fit(scenes, "fp-cae-concat", settings=settings).file.training
    assert [look.measures[HELPED] for look in helped.history[:2]] == [0, 1]
    assert not any(look.measures[HELPED] for look in alone.history)
    assert torch.equal(
        *(torch.tensor([look.validation for look in one.history[:2]]) for one in (helped, alone))
    )
    assert helped.history[-1].validation < alone.history[-1].validation - 0.002
    assert helped.history[-1].measures["rgb, SSIM"] > alone.history[-1].measures["rgb, SSIM"]
    assert any("squared differences were added" in note for note in helped.notes)
