from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from blemish.data.modality import Modality
from blemish.models.autoencoder import Pass, Term
from blemish.models.registry import TERMS
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from blemish.training.image_source import ImageSource
from blemish.training.scene_source import SceneSource
from blemish.training.sources import choose_source

Painting = Callable[..., Path]


class OfModalities(Term):
    """A loss term whose constructor asks for the modalities."""

    def __init__(self, *, modalities: tuple[Modality, ...]) -> None:
        super().__init__()

    def forward(self, done: Pass) -> Tensor:
        return done.target.nan_to_num().mean()


@pytest.mark.parametrize("for_modalities", [False, True])
def test_a_term_declares_that_it_is_made_for_scenes(
    painting: Painting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, for_modalities: bool
) -> None:
    monkeypatch.setitem(TERMS, "of-modalities", OfModalities)
    monkeypatch.setattr(OfModalities, "for_modalities", for_modalities)
    for seed, name in enumerate(["adam", "eve"]):
        painting(tmp_path / name, seed)
    changes = [
        "loss=[{name: of-modalities}]",
        "patch.size=32",
        "patch.stride=32",
        "image.channels=1",
        "threshold.false_reject_rate=0.4",
    ]
    recipe = override(load_recipe("ssim-ae"), changes)
    if for_modalities:
        recipe = recipe.model_copy(update={"image": recipe.image.model_copy(update={"channels": None})})
    opened: list[str] = []

    class Listening(Observer):
        def stage(self, text: str) -> None:
            opened.append(text)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        choose_source(tmp_path, recipe, None)(Listening())
    kind = "Opening the scenes" if for_modalities else "Reading the good images"
    assert [text.startswith(kind) for text in opened] == [True]


def test_a_recipe_for_scenes_takes_folders_of_images_for_them(
    painting: Painting, good: Path, tmp_path: Path
) -> None:
    painting(tmp_path / "scenes" / "adam")
    recipe = override(load_recipe("fp-cae-add"), ["threshold.false_reject_rate=0.4"])
    assert isinstance(choose_source(tmp_path / "scenes", recipe, None)(Observer()), SceneSource)
    assert isinstance(choose_source(good, recipe, None)(Observer()), ImageSource)
