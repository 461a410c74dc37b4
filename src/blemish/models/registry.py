"""Parts by name, and the assembly of a recipe's parts into one network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from blemish.data.modality import Modality
from blemish.errors import RecipeError, UsageError, nearest
from blemish.limits import MAX_PART_SETTING
from blemish.models.autoencoder import Autoencoder
from blemish.models.contracts import (
    Alignment,
    Augmentation,
    Bottleneck,
    Corruption,
    ImageDecoder,
    ImageEncoder,
    ResidualRule,
    Term,
)
from blemish.recipes import Part, Recipe
from blemish.similarity import MEASURES, Measure

P = TypeVar("P", bound=nn.Module)

AUGMENTATIONS: dict[str, type[Augmentation]] = {}
CORRUPTIONS: dict[str, type[Corruption]] = {}
ALIGNMENTS: dict[str, type[Alignment]] = {}
ENCODERS: dict[str, type[ImageEncoder]] = {}
BOTTLENECKS: dict[str, type[Bottleneck]] = {}
DECODERS: dict[str, type[ImageDecoder]] = {}
TERMS: dict[str, type[Term]] = {}
"""Loss terms that are no measure."""
RESIDUALS: dict[str, type[ResidualRule]] = {}
"""Residuals that are no measure."""


def register(kind: dict[str, type[P]], name: str) -> Callable[[type[P]], type[P]]:
    """Class decorator: make a part available to recipes under ``name``.

    The keyword arguments of its constructor are its settings in YAML, checked against their annotations,
    but for those that :func:`build` gives, to the parts that ask for them: ``channels`` of the images, the
    ``modalities`` that these belong to, side of the ``patch``, ``pretrained`` (whether to look for pretrained weights; a saved model brings its own),
    ``shape`` (channels, height, width) of what the preceding part gives (bottlenecks and decoders) or of the latent
    (residuals), ``latent``, the channels of it (decoders), and ``data_range`` (loss terms and residuals).
    """

    def add(cls: type[P]) -> type[P]:
        kind[name] = cls
        return cls

    return add


def make_part(kind: str, available: dict[str, type[P]], part: Part, **context: Any) -> P:
    """Construct the part that a recipe names, with its settings and the ``context`` that its constructor asks for.

    Raises
    ------
    RecipeError
        For an unknown part or setting (the nearest is suggested) or a value that the part refuses.
    """
    if part.name not in available:
        raise RecipeError(f"unknown {kind} '{part.name}'; {nearest(part.name, sorted(available))}")
    cls = available[part.name]
    types = get_type_hints(cls.__init__, include_extras=True)
    asked = inspect.signature(cls).parameters.keys()
    known = asked - context.keys()
    settings: dict[str, Any] = {}
    for name, value in part.settings.items():
        if name not in known:
            # What the recipe itself reads of a part, such as a loss term's weight, may be meant too.
            also = sorted(known | (type(part).model_fields.keys() - {"name"}))
            raise RecipeError(f"{kind} '{part.name}' has no setting '{name}'; {nearest(name, also)}")
        adapter = TypeAdapter(types[name], config=ConfigDict(allow_inf_nan=False))
        try:
            settings[name] = adapter.validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise RecipeError(
                f"{kind} '{part.name}': {name} is {value!r}; {reason[0].lower()}{reason[1:]}"
            ) from None
        if _largest(settings[name]) > MAX_PART_SETTING:
            raise RecipeError(
                f"{kind} '{part.name}': {name} is {value!r}; use numbers of at most {MAX_PART_SETTING}"
            )
    return cls(**{name: value for name, value in context.items() if name in asked}, **settings)


def _largest(value: Any) -> float:
    """The largest size of any number in a setting."""
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, (int, float)) else 0


def build(
    recipe: Recipe, channels: int, *, modalities: Sequence[Modality] = (), pretrained: bool = True
) -> Autoencoder:
    """The untrained :class:`~blemish.models.autoencoder.Autoencoder` of ``recipe`` for ``channels`` channels.

    A memory bank or members of the recipe are left out; :func:`blemish.detectors.factory.build_model` builds the whole.

    ``modalities`` say whose the channels are, in their order; without any, they are all of one, ``image``.

    Weights are drawn from torch's global generator, so seed it first for a reproducible start. Without
    ``pretrained``, parts that begin with pretrained weights are drawn too: their own are to be loaded after.

    Raises
    ------
    RecipeError
        When the recipe has no autoencoder, or a part is unknown, refuses a setting, or does not fit its neighbour
        (both are named).
    UsageError
        When the modalities bear one name twice, or have not as many channels as the images.
    FileError
        When pretrained weights are not where the recipe says.
    """
    if recipe.encoder is None or recipe.decoder is None or recipe.residual is None:
        raise RecipeError(f"{recipe.name}: has no autoencoder; add encoder, decoder, loss and residual")
    modalities = tuple(modalities) or (Modality(name="image", channels=channels),)
    _check_modalities(modalities, channels)
    images = {
        "channels": channels,
        "modalities": modalities,
        "patch": recipe.patch.size,
        "pretrained": pretrained,
    }
    augmentations = [make_part("augmentation", AUGMENTATIONS, part, **images) for part in recipe.augmentation]
    corruptions = [
        (make_part("corruption", CORRUPTIONS, part, **images), part.at_inspection)
        for part in recipe.corruption
    ]
    alignment = make_part("alignment", ALIGNMENTS, recipe.alignment, **images) if recipe.alignment else None
    encoder = make_part("encoder", ENCODERS, recipe.encoder, **images)
    for settings, (corruption, _) in zip(recipe.corruption, corruptions, strict=True):
        if corruption.makes_absent and not encoder.takes_absent:
            raise RecipeError(
                f"corruption '{settings.name}' takes values away, which encoder '{recipe.encoder.name}' cannot do "
                "without as it is set; choose parts that fit, such as those of fp-cae-add"
            )
    shape = encoder.latent_shape
    bottlenecks: list[Bottleneck] = []
    for part in recipe.bottleneck:
        bottlenecks.append(make_part("bottleneck", BOTTLENECKS, part, shape=shape, **images))
        shape = bottlenecks[-1].latent_shape
    code = _decoded(recipe, bottlenecks, shape)
    decoder = make_part("decoder", DECODERS, recipe.decoder, latent=code[0], shape=code, **images)
    if code[1:] != decoder.latent_grid:
        before = ("bottleneck", recipe.bottleneck[0]) if bottlenecks else ("encoder", recipe.encoder)
        raise RecipeError(
            f"{before[0]} '{before[1].name}' gives a latent grid of {_by(code[1:])} but "
            f"decoder '{recipe.decoder.name}' expects {_by(decoder.latent_grid)}; choose parts that fit"
        )
    losses: dict[str, type[Measure | Term]] = {**MEASURES, **TERMS}
    loss_terms = {
        f"{index}-{term.name}" if _repeats(recipe, term.name) else term.name: (
            term.weight,
            make_part("loss", losses, term, data_range=1.0, **images),
        )
        for index, term in enumerate(recipe.loss)
    }
    residuals: dict[str, type[Measure | ResidualRule]] = {**MEASURES, **RESIDUALS}
    residual = make_part("residual", residuals, recipe.residual, shape=shape, data_range=1.0, **images)
    return Autoencoder(
        encoder,
        decoder,
        loss_terms,
        residual,
        augmentations=augmentations,
        corruptions=corruptions,
        alignment=alignment,
        bottlenecks=bottlenecks,
    )


def _check_modalities(modalities: Sequence[Modality], channels: int) -> None:
    names = [modality.name for modality in modalities]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two modalities bear the name '{name}'; give each a name of its own")
    total = sum(modality.channels for modality in modalities)
    if total != channels:
        raise UsageError(
            f"the modalities {', '.join(names)} have {total} channels in all, but the images {channels}; "
            "say how many channels each has"
        )


def _decoded(
    recipe: Recipe, bottlenecks: Sequence[Bottleneck], shape: tuple[int, int, int]
) -> tuple[int, int, int]:
    """(channels, height, width) of what the decoder reads, after all bottlenecks gave back what they took."""
    for place in reversed(range(len(bottlenecks))):
        if shape != bottlenecks[place].latent_shape:
            raise RecipeError(
                f"bottleneck '{recipe.bottleneck[place].name}' expects back {_by(bottlenecks[place].latent_shape)} "
                f"but bottleneck '{recipe.bottleneck[place + 1].name}' gives {_by(shape)}; choose parts that fit"
            )
        shape = bottlenecks[place].code_shape
    return shape


def _by(grid: Sequence[int]) -> str:
    return "×".join(str(side) for side in grid)


def _repeats(recipe: Recipe, name: str) -> bool:
    return sum(term.name == name for term in recipe.loss) > 1
