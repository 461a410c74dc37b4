"""Anomaly model of a recipe; the only module that distinguishes kinds of recipes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from blemish.data.modality import Modality
from blemish.decision import image_score
from blemish.detectors.contracts import TrainableModel
from blemish.detectors.ensemble import Ensemble, EnsembleSelection
from blemish.detectors.ensemble_selection import SyntheticAnomalySelection
from blemish.detectors.feature_extractors import FEATURE_EXTRACTORS, FeatureExtractor, Structure
from blemish.detectors.filter_bank import FilterBank
from blemish.detectors.filter_responses import LEAST_SIDE
from blemish.detectors.memory_bank import ColourMemoryBank, MemoryBank, StructureMemoryBank
from blemish.detectors.pretrained_extractors import EfficientNetLiteFeatures as EfficientNetLiteFeatures
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.detectors.soft_maximum import SoftMaximumSelection
from blemish.errors import RecipeError
from blemish.models import Autoencoder, build
from blemish.models.registry import CORRUPTIONS, RESIDUALS, TERMS, make_part
from blemish.models.synthetic_anomalies import SyntheticAnomalies
from blemish.preprocessing.tiling import smallest_side
from blemish.recipes import Recipe
from blemish.recipes.schema import MemoryPart

MEMORY_BANKS: dict[str, type[MemoryBank]] = {"structure": StructureMemoryBank, "features": MemoryBank}
ANOMALIES = "synthetic-anomalies"
"""Corruption that the weights of an ensemble are selected on."""


def build_model(
    recipe: Recipe, channels: int, modalities: Sequence[Modality] = (), pretrained: bool = True
) -> ReconstructionModel | Ensemble:
    """The untrained anomaly model of ``recipe`` for images of ``channels`` channels.

    A recipe with an autoencoder alone gives a :class:`~blemish.detectors.reconstruction.ReconstructionModel`, any
    other an :class:`~blemish.detectors.ensemble.Ensemble`: of an autoencoder and a memory bank, of a memory bank alone,
    which the ensemble scales and chooses the placement of, or of ``members``. Weights of networks are drawn from
    torch's global generator, as :func:`blemish.models.build` does it.

    Raises
    ------
    RecipeError
        When a part is unknown, refuses a setting, or does not fit its neighbour.
    UsageError, FileError
        As :func:`blemish.models.build`.
    """
    models, names = _members(recipe, channels, tuple(modalities), pretrained, "")
    if len(models) == 1 and isinstance(models[0], ReconstructionModel):
        return models[0]
    for model in models:
        if isinstance(model, MemoryBank) and model.share is not None:
            if recipe.combination != "weighted-mean":
                raise RecipeError(
                    f"{recipe.name}: memory.share {model.share:g} is for combination weighted-mean, and the weights of "
                    "a soft maximum are fixed; leave it out"
                )
            if len(models) > 2:
                raise RecipeError(
                    f"{recipe.name}: memory.share {model.share:g} is for one network and one memory bank, and "
                    f"there are {len(models)} models; leave it out"
                )
    score = partial(
        image_score, kind=recipe.score.name, quantile=recipe.score.quantile, sigma=recipe.score.sigma
    )
    trim = recipe.training.trim
    selection: EnsembleSelection
    if recipe.combination == "soft-maximum":
        selection = SoftMaximumSelection(score, trim)
    else:
        selection = SyntheticAnomalySelection(_anomalies(recipe, models, channels), score, trim)
    return Ensemble(models, names=names, selection=selection, combination=recipe.combination, score=score)


def networks(model: TrainableModel) -> dict[str, Autoencoder]:
    """The autoencoders in ``model``, by the names under which they are trained."""
    models = model.models if isinstance(model, Ensemble) else [model]
    return {one.name: one.autoencoder for one in models if isinstance(one, ReconstructionModel)}


def training_recipes(recipe: Recipe) -> dict[str, Recipe]:
    """Recipe of each network that ``recipe`` trains, by the network's name: ``""`` of the only one, else its place.

    Empty for a memory bank alone. A member trains as its own recipe says, but on the images, the seed and the device of
    ``recipe``, and without ``training.trim``, which is for detectors.
    """
    if not recipe.members:
        return {"": recipe} if recipe.encoder else {}
    whole = recipe.training
    shared = {"seed": whole.seed, "device": whole.device, "precision": whole.precision, "trim": 0.0}
    return {
        name: one.model_copy(
            update={"image": recipe.image, "training": one.training.model_copy(update=shared)}
        )
        for name, one in _leaves(recipe, "")
        if one.encoder is not None
    }


def needs_whole_images(recipe: Recipe) -> bool:
    """True if the model of ``recipe`` is fitted on whole images, and so not on scenes."""
    return recipe.memory is not None or recipe.filters or bool(recipe.colour) or bool(recipe.members)


def is_for_modalities(recipe: Recipe) -> bool:
    """True if ``recipe`` is made for scenes of several modalities, by its loss terms and residuals."""
    for _, one in _leaves(recipe, ""):
        residual = RESIDUALS.get(one.residual.name) if one.residual else None
        terms = [TERMS.get(term.name) for term in one.loss]
        if any(part is not None and part.for_modalities for part in (residual, *terms)):
            return True
    return False


def has_memory_bank(recipe: Recipe) -> bool:
    """True if the model of ``recipe`` stores its training images, so that their scores are not comparable."""
    return any(one.memory is not None or bool(one.colour) for _, one in _leaves(recipe, ""))


def least_side(recipe: Recipe) -> int:
    """Least shorter side, in pixels after resizing, of images to fit on and to inspect."""
    sides = []
    for _, one in _leaves(recipe, ""):
        if one.encoder is not None:
            sides.append(smallest_side(one.patch.size))
        if one.memory is not None:
            bank = _memory_bank(one.memory, channels=3, pretrained=False)
            extractors = [_extractor(own) for own in bank.banks]
            always = [own for own in extractors if type(own).has_room is FeatureExtractor.has_room]
            sides.append(
                max(own.least_side for own in always) if always else min(own.least_side for own in extractors)
            )
        if one.filters:
            sides.append(LEAST_SIDE)
    return max(sides)


def upgrade_state_dict(weights: dict[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """Weights of a model folder of format 1 under the names that the modules of ``recipe`` have now.

    The values stay as they are; the weight of the network is what the memory bank's leaves of 1.
    """
    if recipe.memory is None:
        return {f"autoencoder.{name}": value for name, value in weights.items()}
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if not name.startswith("memory."):
            renamed[f"members.0.autoencoder.{name}"] = value
            continue
        own = name.removeprefix("memory.")
        if own == "units":
            renamed["scales"] = value
        elif own == "counts":
            share = value.item()
            renamed |= {"weight_0": value.new_tensor(1 - share), "weight_1": value}
        elif own.startswith("network."):
            renamed[f"normalisers.0.{own.removeprefix('network.')}"] = value
        else:
            number, own = (1, own.removeprefix("contrasts.")) if own.startswith("contrasts.") else (0, own)
            if own.startswith("usual."):
                own = f"normaliser.{own.removeprefix('usual.')}"
            renamed[f"members.1.banks.{number}.{own}"] = value
    return renamed


def _leaves(recipe: Recipe, name: str) -> list[tuple[str, Recipe]]:
    """The recipes that ``recipe`` is made of, with their places; itself alone where it has no members."""
    if not recipe.members:
        return [(name, recipe)]
    prefix = f"{name}." if name else ""
    return [
        leaf for place, member in enumerate(recipe.members) for leaf in _leaves(member, f"{prefix}{place}")
    ]


def _members(
    recipe: Recipe, channels: int, modalities: tuple[Modality, ...], pretrained: bool, name: str
) -> tuple[list[ReconstructionModel | MemoryBank | FilterBank], list[str]]:
    models: list[ReconstructionModel | MemoryBank | FilterBank] = []
    names: list[str] = []
    for place, one in _leaves(recipe, name):
        both = one.encoder is not None and (one.memory is not None or one.filters)
        label = f"{one.name} " if place else ""
        if one.encoder is not None:
            autoencoder = build(one, channels, modalities=modalities, pretrained=pretrained)
            models.append(
                ReconstructionModel(
                    autoencoder,
                    patch=one.patch.size,
                    stride=one.patch.stride,
                    modalities=len(modalities),
                    name=place,
                )
            )
            names.append(f"{label}network" if both or not place else one.name)
        if one.memory is not None:
            bank = _memory_bank(one.memory, channels=channels, pretrained=pretrained)
            if one.encoder is not None:
                _check_fits(one, bank, is_selected=recipe.combination == "weighted-mean")
            models.append(bank)
            names.append(f"{label}memory bank")
        if one.filters:
            models.append(FilterBank())
            names.append(f"{label}filter bank")
        if one.colour and channels > 1 and recipe.combination == "soft-maximum":
            models.append(ColourMemoryBank(only_posed=one.colour == "auto"))
            names.append(f"{label}colour bank")
    return models, names


def _memory_bank(part: MemoryPart, *, channels: int, pretrained: bool) -> MemoryBank:
    if not part.features:
        return make_part("memory", MEMORY_BANKS, part)
    images = {"channels": channels, "pretrained": pretrained}
    extractors = [make_part("feature extractor", FEATURE_EXTRACTORS, one, **images) for one in part.features]
    return make_part("memory", MEMORY_BANKS, part, extractors=extractors)


def _extractor(bank: object) -> FeatureExtractor:
    extractor = getattr(bank, "extractor", None)
    assert isinstance(extractor, FeatureExtractor)
    return extractor


def _check_fits(recipe: Recipe, bank: MemoryBank, *, is_selected: bool) -> None:
    """Refuse an autoencoder whose smallest images the memory bank beside it cannot take."""
    if is_selected and not any(corruption.name == ANOMALIES for corruption in recipe.corruption):
        raise RecipeError(
            f"memory '{recipe.memory.name if recipe.memory else ''}' is weighted by the corruption '{ANOMALIES}', "
            "which the recipe lacks; add it"
        )
    shortest = smallest_side(recipe.patch.size)
    for own in bank.banks:
        extractor = _extractor(own)
        if type(extractor) is Structure and extractor.least_side > shortest:
            raise RecipeError(
                f"memory 'structure' of patches of {extractor.patch} × {extractor.patch} needs images of more than "
                f"{extractor.patch // 2} pixels, and patch.size {recipe.patch.size} lets in those of {shortest}; set "
                f"memory.patch={max(4, (shortest - 1) * 2)} or less"
            )


def _anomalies(
    recipe: Recipe, models: Sequence[ReconstructionModel | MemoryBank | FilterBank], channels: int
) -> SyntheticAnomalies:
    """Synthetic anomalies of the recipe itself, of its first network that trains on them, or of default settings."""
    if not recipe.encoder:
        for part in recipe.corruption:
            if part.name == ANOMALIES:
                made = make_part("corruption", CORRUPTIONS, part, channels=channels)
                assert isinstance(made, SyntheticAnomalies)
                return made
    for model in models:
        if isinstance(model, ReconstructionModel):
            for corruption in model.autoencoder.corruptions:
                if isinstance(corruption, SyntheticAnomalies):
                    return corruption
    return SyntheticAnomalies()
