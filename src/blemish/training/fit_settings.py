"""Settings of a fit: the recipe of the user, of a warm start or by default, and its overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blemish.data.scenes import looks_like_scenes
from blemish.decision import check_rate
from blemish.errors import UsageError
from blemish.recipes import Recipe, load_recipe, override
from blemish.recipes.time_spans import seconds_in
from blemish.training.sources import describes_scenes
from blemish.training.warm_start import WarmStart

DEFAULT_RECIPE = "blemish"
DEFAULT_FOR_SCENES = "other-pixels"


def all_settings(
    settings: Sequence[str], budget: str | float | None, false_reject_rate: float | None
) -> list[str]:
    """``settings`` with those that have an argument of their own.

    Raises
    ------
    UsageError
        For a budget or a rate out of range.
    """
    changes = list(settings)
    if budget is not None:
        changes.append(f"training.budget={_seconds(budget)}")
    if false_reject_rate is not None:
        check_rate(false_reject_rate)
        changes += ["threshold.rule=conformal", f"threshold.false_reject_rate={false_reject_rate}"]
    return changes


def choose_recipe(
    path: Path, recipe: str | Path | Recipe | None, start: WarmStart | None, changes: list[str]
) -> Recipe:
    """The recipe of the user, of the warm start, or the default for the data in ``path``, with ``changes``.

    Raises
    ------
    RecipeError
        For an unknown recipe or setting, or one that a warm start cannot change.
    """
    if start is not None:
        return start.recipe(recipe, changes)
    if recipe is None:
        recipe = DEFAULT_FOR_SCENES if describes_scenes(path) or looks_like_scenes(path) else DEFAULT_RECIPE
    return override(recipe if isinstance(recipe, Recipe) else load_recipe(recipe), changes)


def _seconds(budget: str | float) -> float:
    try:
        seconds = seconds_in(budget) if isinstance(budget, str) else float(budget)
    except ValueError as error:
        raise UsageError(f"--budget {budget}: {error}") from None
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--budget {budget}: give more than 0 seconds")
    return seconds
