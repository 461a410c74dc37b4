"""Trial of a recipe's parts on empty patches, before hours of work."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from blemish.data.modality import Modality
from blemish.errors import RecipeError, UsageError
from blemish.models import Autoencoder, build
from blemish.recipes import Recipe


def check_recipe(recipe: Recipe, modalities: Sequence[Modality] = ()) -> Autoencoder:
    """Try the parts of ``recipe`` on empty patches (N, C, P, P), and return the untrained network.

    Parts that do not fit are found before hours of work. Torch's random numbers are left as they were. Without
    ``modalities`` the patches are images of as many channels as the recipe has, or three.

    Raises
    ------
    RecipeError
        Naming the recipe, the part and the remedy.
    """
    channels = sum(modality.channels for modality in modalities) or recipe.image.channels or 3
    # Two, where training has as many: batch normalisation cannot learn from one.
    patches = torch.zeros(min(2, recipe.training.batch), channels, recipe.patch.size, recipe.patch.size)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model = build(recipe, channels, modalities=modalities)
            model.loss(patches)
            model.examine(patches)
            if model.pretraining:
                model.pretraining_loss(patches)
    except UsageError as error:
        raise RecipeError(f"{recipe.name}: {error}") from None
    if recipe.memory is not None and recipe.threshold.rule == "train-mean":
        raise RecipeError(
            f"{recipe.name}: threshold.rule train-mean scores the training images, which its memory knows by heart; "
            "set threshold.rule=conformal"
        )
    return model
