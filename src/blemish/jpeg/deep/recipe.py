"""Schema of the recipes of JPEG networks: attention, tables, loss, training, paper, expectation."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from blemish.jpeg.coefficients import Sampling
from blemish.jpeg.quality import SMALLEST_MS_SSIM
from blemish.limits import MAX_PATCH_SIDE
from blemish.recipes import Part, load_from
from blemish.recipes.files import names_in
from blemish.recipes.schema import RecipeName, RecipeSettings, TrainingSettings, check_batch

STRUMPLER_LAMBDAS = (0.001, 0.0025, 0.005, 0.01, 0.05, 0.1)
"""Those of Strümpler, Yang, Timofte 2020."""


def _not_sexagesimal(value: Any) -> Any:
    """YAML 1.1 reads an unquoted 4:2:0 as a number to the base 60."""
    return {14644: "4:4:4", 14520: "4:2:0"}.get(value, value) if isinstance(value, int) else value


class DeepImageSettings(RecipeSettings):
    """Settings of the image: ``sampling`` of chroma, in the papers 4:4:4."""

    sampling: Annotated[Sampling, BeforeValidator(_not_sexagesimal)] = "4:4:4"


class DeepPatchSettings(RecipeSettings):
    """Training crops, in pixels."""

    size: int = Field(224, ge=32, le=MAX_PATCH_SIDE)


class TableSettings(RecipeSettings):
    """The learned quantisation tables.

    initial: ``uniform``, drawn between 1 and 2 as in the papers, or ``annex-k``, those of T.81 at libjpeg's
    quality of 50, from where a short training arrives. pace: the learning rate of log Q is that of the network
    times this.
    """

    initial: Literal["uniform", "annex-k"] = "uniform"
    lowest: int = Field(1, ge=1, le=255)
    highest: int = Field(255, ge=1, le=255)
    pace: float = Field(6000.0, gt=0)


class LossSettings(RecipeSettings):
    """The weights of λ (MSE + γ LPIPS + σ (1 − MS-SSIM)) + r, and which r: see :mod:`blemish.jpeg.deep.loss`."""

    gamma: float = Field(500.0, ge=0, description="of LPIPS, in squared levels of 0 to 255")
    sigma: float = Field(1000.0, ge=0, description="of 1 - MS-SSIM, in squared levels of 0 to 255")
    alpha: float = Field(10.0, ge=0, description="of the reciprocal tables")
    beta: float = Field(1.0, ge=0, description="of the mean attention")
    reading: Literal["liu2022", "strumpler2020"] = "liu2022"


class DeepRecipe(RecipeSettings):
    """One system: its parts, settings, source and what to expect of it.

    attention: ``none``, ``vgg19``, ``resnet152``, ``lstm`` or ``bilstm``, with their settings as
    :mod:`blemish.jpeg.deep.attention` explains them. lambdas: the price of distortion; with several, one
    network serves them all.
    """

    version: Literal[1] = 1
    name: RecipeName
    title: str
    paper: str
    needs: tuple[str, ...] = ("train", "jpeg", "lpips")
    expect: str
    attention: Part
    lambdas: tuple[Annotated[float, Field(gt=0)], ...] = Field(STRUMPLER_LAMBDAS, min_length=1)
    tables: TableSettings = TableSettings()
    loss: LossSettings = LossSettings()
    image: DeepImageSettings = DeepImageSettings()
    patch: DeepPatchSettings = DeepPatchSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _fits(self) -> DeepRecipe:
        check_batch(self.training.batch, self.patch.size)
        if len(set(self.lambdas)) < len(self.lambdas):
            raise ValueError(f"lambdas {list(self.lambdas)} name one twice; give each once")
        if self.tables.lowest >= self.tables.highest:
            raise ValueError(
                f"tables.lowest {self.tables.lowest} is not below tables.highest {self.tables.highest}; "
                "files hold 1 to 255"
            )
        if self.loss.sigma and self.patch.size < SMALLEST_MS_SSIM:
            raise ValueError(
                f"patch.size {self.patch.size} is too small for the five scales of MS-SSIM; use at least "
                f"{SMALLEST_MS_SSIM}, such as patch.size=176, or do without it by loss.sigma=0"
            )
        return self


@cache
def deep_recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with Blemish, sorted.

    >>> deep_recipe_names()[:3]
    ('jpeg-bilstm', 'jpeg-lstm', 'jpeg-resnet152-block1')
    """
    return names_in(_FOLDER)


def load_deep_recipe(name: str | Path) -> DeepRecipe:
    """A recipe that comes with Blemish, by name, or one of your own, by the path of its ``.yaml`` file.

    ``blemish.recipes.override`` applies ``key=value`` assignments to it.

    Raises
    ------
    RecipeError
        For an unknown name (the nearest is suggested) or a key that does not fit.
    FileError
        When a ``.yaml`` path cannot be read.

    Examples
    --------
    >>> load_deep_recipe("jpeg-lstm").attention.settings
    {'hidden': 64}
    """
    return load_from(_FOLDER, DeepRecipe, name)


_FOLDER = resources.files("blemish.jpeg.deep") / "recipes"
