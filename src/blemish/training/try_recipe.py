"""Trial of a recipe's parts on empty patches, before hours of work."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from blemish.data.modality import Modality
from blemish.detectors.ensemble import Ensemble
from blemish.detectors.factory import build_model, has_memory_bank, networks, training_recipes
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import RecipeError, UsageError, lacks_memory
from blemish.recipes import Recipe


def check_recipe(recipe: Recipe, modalities: Sequence[Modality] = ()) -> ReconstructionModel | Ensemble:
    """Try the parts of ``recipe`` on empty patches (N, C, P, P), and return the untrained model.

    Parts that do not fit are found before hours of work. Torch's random numbers are left as they were. Without
    ``modalities`` the patches are images of as many channels as the recipe has, or three.

    Raises
    ------
    RecipeError
        Naming the recipe, the part and the remedy.
    """
    channels = sum(modality.channels for modality in modalities) or recipe.image.channels or 3
    recipes = training_recipes(recipe)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model = build_model(recipe, channels, modalities)
            for name, autoencoder in networks(model).items():
                own = recipes[name]
                # Two, where training has as many: batch normalisation cannot learn from one.
                count, side = min(2, own.training.batch), own.patch.size
                patches = torch.zeros(count, channels, side, side)
                autoencoder.loss(patches)
                autoencoder.examine(patches)
                if autoencoder.pretraining:
                    autoencoder.pretraining_loss(patches)
    except UsageError as error:
        raise RecipeError(f"{recipe.name}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise RecipeError(
            f"{recipe.name}: its parts do not fit into memory, with patches of {recipe.patch.size} pixels; "
            "use a smaller patch.size, or smaller settings of the parts"
        ) from None
    if has_memory_bank(recipe) and recipe.threshold.rule == "train-mean":
        raise RecipeError(
            f"{recipe.name}: threshold.rule train-mean scores the training images, which its memory bank holds; "
            "set threshold.rule=conformal"
        )
    return model
