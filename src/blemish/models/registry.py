"""Parts by name, and the assembly of a recipe's parts into one network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from blemish.errors import RecipeError, nearest
from blemish.models.autoencoder import Autoencoder, Decoder, Encoder
from blemish.recipes import Part, Recipe
from blemish.similarity import MEASURES

P = TypeVar("P", bound=nn.Module)

ENCODERS: dict[str, type[Encoder]] = {}
DECODERS: dict[str, type[Decoder]] = {}


def register(kind: dict[str, type[P]], name: str) -> Callable[[type[P]], type[P]]:
    """Class decorator: make a part available to recipes under ``name``.

    The keyword arguments of its constructor are its settings in YAML, checked against their annotations,
    but for those that :func:`build` gives from the pictures and the neighbouring parts (``channels``,
    ``patch``, ``latent``).
    """

    def add(cls: type[P]) -> type[P]:
        kind[name] = cls
        return cls

    return add


def make_part(kind: str, available: dict[str, type[P]], part: Part, **context: Any) -> P:
    """Construct the part that a recipe names, with its settings and what its neighbours tell it.

    Raises
    ------
    RecipeError
        For an unknown part or setting (the nearest is suggested) or a value that the part refuses.
    """
    if part.name not in available:
        raise RecipeError(f"unknown {kind} '{part.name}'; {nearest(part.name, sorted(available))}")
    cls = available[part.name]
    types = get_type_hints(cls.__init__, include_extras=True)
    known = inspect.signature(cls).parameters.keys() - context.keys()
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
    return cls(**context, **settings)


def build(recipe: Recipe, channels: int) -> Autoencoder:
    """The untrained :class:`~blemish.models.autoencoder.Autoencoder` of ``recipe`` for ``channels`` channels.

    Weights are drawn from torch's global generator, so seed it first for a reproducible start.

    Raises
    ------
    RecipeError
        When a part is unknown, refuses a setting, or does not fit its neighbour (both are named).
    """
    encoder = make_part("encoder", ENCODERS, recipe.encoder, channels=channels, patch=recipe.patch.size)
    latent, *grid = encoder.latent_shape
    decoder = make_part(
        "decoder", DECODERS, recipe.decoder, channels=channels, patch=recipe.patch.size, latent=latent
    )
    if tuple(grid) != decoder.latent_grid:
        raise RecipeError(
            f"encoder '{recipe.encoder.name}' gives a latent grid of {_by(grid)} but "
            f"decoder '{recipe.decoder.name}' expects {_by(decoder.latent_grid)}; choose parts that fit"
        )
    loss_terms = {
        f"{index}-{term.name}" if _repeats(recipe, term.name) else term.name: (
            term.weight,
            make_part("loss", MEASURES, term, data_range=1.0),
        )
        for index, term in enumerate(recipe.loss)
    }
    residual = make_part("residual", MEASURES, recipe.residual, data_range=1.0)
    return Autoencoder(encoder, decoder, loss_terms, residual)


def _by(grid: Sequence[int]) -> str:
    return "×".join(str(side) for side in grid)


def _repeats(recipe: Recipe, name: str) -> bool:
    return sum(term.name == name for term in recipe.loss) > 1
