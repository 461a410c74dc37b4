"""Models of recipes of every kind, and weights that the first format of model folders holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import load

from blemish.data.image import LoadedImage
from blemish.decision import image_score
from blemish.detectors.ensemble import Ensemble, for_inspection
from blemish.detectors.factory import (
    build_model,
    has_memory_bank,
    is_for_modalities,
    least_side,
    needs_whole_images,
    networks,
    training_recipes,
    upgrade_state_dict,
)
from blemish.detectors.memory_bank import MemoryBank
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import RecipeError
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes import Recipe, load_recipe, override, parse_recipe
from blemish.recipes.compat import upgrade_recipe

OLD = Path(__file__).parents[1] / "format-1"
TEXT = {"name": "mine", "title": "Mine", "paper": "none", "expect": "little"}
BANK = {"memory": {"name": "structure"}}


def mine(**content: Any) -> Recipe:
    return parse_recipe({**TEXT, **content}, "mine")


def test_each_kind_of_recipe_has_its_model() -> None:
    network = build_model(load_recipe("ssim-ae"), 3)
    assert isinstance(network, ReconstructionModel)
    both = build_model(load_recipe("blemish"), 1)
    assert isinstance(both, Ensemble)
    assert [type(model).__name__ for model in both.models] == [
        "ReconstructionModel",
        "StructureMemoryBank",
        "FilterBank",
    ]
    bank = build_model(mine(**BANK), 1)
    assert isinstance(bank, Ensemble)
    assert [type(model).__name__ for model in bank.models] == ["StructureMemoryBank"]
    members = build_model(mine(members=["ssim-ae", "blemish", {"name": "bank", **BANK}]), 1)
    assert isinstance(members, Ensemble)
    assert members.names == [
        "ssim-ae",
        "blemish network",
        "blemish memory bank",
        "blemish filter bank",
        "bank memory bank",
    ]


def test_images_of_several_channels_have_a_bank_of_colour_in_a_soft_maximum() -> None:
    def names(channels: int, *settings: str) -> list[str]:
        model = build_model(override(load_recipe("blemish"), list(settings)), channels)
        assert isinstance(model, Ensemble)
        return model.names

    assert names(3, "colour=true") == ["network", "memory bank", "filter bank", "colour bank"]
    assert names(3) == names(3, "colour=true")  # whether it counts is read from the images
    assert (
        names(1, "colour=true")
        == names(1)
        == names(3, "colour=false")
        == ["network", "memory bank", "filter bank"]
    )
    weighted = ("colour=true", "combination=weighted-mean", "filters=false")
    assert names(3, *weighted) == ["network", "memory bank"]


def test_features_are_listed_by_name_with_their_settings() -> None:
    features = [{"name": "structure", "patch": 8}, {"name": "local-contrast", "stride": 2}]
    model = build_model(mine(memory={"features": features, "dimensions": 5}), 1)
    assert isinstance(model, Ensemble)
    (bank,) = model.banks.values()
    assert isinstance(bank, MemoryBank)
    structure, contrast = (own.extractor for own in bank.banks)
    assert (structure.patch, structure.stride, contrast.patch, contrast.stride) == (8, 4, 16, 2)
    assert [own.dimensions for own in bank.banks] == [5, 5]
    # name: structure is short for both with the same settings.
    short = build_model(mine(memory={"name": "structure", "patch": 8}), 1)
    assert isinstance(short, Ensemble)
    assert [own.extractor.title for own in next(iter(short.banks.values())).banks] == [
        "structure",
        "local contrast",
    ]


def test_networks_and_their_recipes_have_the_same_names() -> None:
    recipe = mine(
        members=["ssim-ae", {"name": "bank", **BANK}, "l2-ae"],
        image={"size": 128},
        training={"seed": 7, "device": "cpu", "trim": 0.1},
    )
    recipes = training_recipes(recipe)
    assert list(recipes) == list(networks(build_model(recipe, 1))) == ["0", "2"]
    assert [one.name for one in recipes.values()] == ["ssim-ae", "l2-ae"]
    for name, one in recipes.items():
        own = load_recipe(one.name).training
        assert (one.training.seed, one.training.device, one.training.trim) == (7, "cpu", 0)
        assert (one.training.steps, one.training.batch) == (own.steps, own.batch), name
        assert one.image.size == 128
    single = load_recipe("ssim-ae")
    assert training_recipes(single) == {"": single}
    assert training_recipes(mine(**BANK)) == {}


def test_what_a_recipe_asks_of_its_images() -> None:
    ssim, blemish, bank = load_recipe("ssim-ae"), load_recipe("blemish"), mine(**BANK)
    members = mine(members=["ssim-ae", "l2-ae"])
    assert [needs_whole_images(one) for one in (ssim, blemish, bank, members)] == [False, True, True, True]
    assert [has_memory_bank(one) for one in (ssim, blemish, bank, members)] == [False, True, True, False]
    assert [least_side(one) for one in (ssim, blemish, bank, members)] == [64, 48, 9, 64]
    assert is_for_modalities(load_recipe("fp-cae-add"))
    assert not is_for_modalities(ssim)
    assert not is_for_modalities(bank)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "mine: key 'encoder' is missing"),
        ({**BANK, "encoder": {"name": "unet"}}, "mine: key 'decoder' is missing"),
        ({**BANK, "augmentation": [{"name": "exposure"}]}, "mine: key 'encoder' is missing"),
        (
            {"members": ["ssim-ae"], **BANK},
            "mine: 'memory' has no use beside members; write it in a member's",
        ),
        ({"members": ["ssim-ea"]}, "unknown recipe 'ssim-ea'; did you mean 'ssim-ae'?"),
        ({"members": [{"name": "a", "memori": 1}]}, "mine: unknown key 'members.0.memori'; did you mean"),
        ({"members": [{"name": "a"}]}, "mine: members.0: key 'encoder' is missing"),
        (
            {"members": ["ssim-ae"], "image": {"size": 32}},
            "mine: image.size 32 is less than half of patch.size",
        ),
        (
            {"members": ["ssim-ae", "l2-ae", {"name": "a", "memory": {"name": "structure", "share": 0.5}}]},
            "mine: memory.share 0.5 is for one network and one memory bank, and there are 3 models",
        ),
    ],
)
def test_a_recipe_of_no_kind_is_refused_in_a_line(content: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        build_model(mine(**content), 1)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_members_survive_json() -> None:
    recipe = mine(members=["ssim-ae", {"name": "bank", **BANK}])
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    changed = override(recipe, ["members.0.training.steps=5", "members.1.memory.patch=8"])
    assert changed.members[0].training.steps == 5
    assert changed.members[1].memory is not None
    assert changed.members[1].memory.settings == {"patch": 8}


# -- model folders of format 1 -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ssim-ae", "blemish"])
def test_weights_of_the_first_format_give_the_scores_of_then(name: str, draw: Any) -> None:
    """The folders and scores were written by the version whose recipes said ``picture`` and ``alike``.

    On the machine that wrote them the scores are equal bit by bit; sums of floats depend on the CPU.
    """
    folder = OLD / name
    document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert "picture" in document["recipe"]
    recipe = Recipe.model_validate(upgrade_recipe(document["recipe"]))
    preprocessing = Preprocessing.model_validate(document["preparation"])
    model = build_model(recipe, preprocessing.channels, pretrained=False)
    weights = load((folder / "model.safetensors").read_bytes())
    upgraded = upgrade_state_dict(weights, recipe)
    assert sum(value.numel() for value in upgraded.values()) == sum(
        value.numel() for value in weights.values()
    ) + (name == "blemish")  # the network's weight, which was not written
    model.load_state_dict(upgraded)
    for_inspection(model)
    size = (140, 150) if name == "blemish" else (40, 48)
    scores = [score_of(model, recipe, preprocessing, draw(seed, *size)) for seed in range(3)]
    then = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["scores"]
    np.testing.assert_allclose(scores, then, rtol=1e-4)
    assert len(set(then)) == 3
    if isinstance(model, Ensemble):
        share = np.float32(0.3)
        assert model.weights == [float(np.float32(1 - float(share))), float(share)]
        assert [bank.is_empty for bank in model.banks[1].banks] == [False, False]


def score_of(
    model: ReconstructionModel | Ensemble,
    recipe: Recipe,
    preprocessing: Preprocessing,
    image: NDArray[np.uint8],
) -> float:
    x = preprocessing.apply(LoadedImage(Path("image"), image[None])).pixels
    rule = recipe.score
    return image_score(model.maps(x).anomaly, kind=rule.name, quantile=rule.quantile, sigma=rule.sigma)
