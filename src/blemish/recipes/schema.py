"""Schema of recipes: parts and settings of one method, its paper, and its expected results."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from blemish.decision.conformal import Trim
from blemish.decision.scores import Score
from blemish.errors import RecipeError, nearest
from blemish.limits import (
    MAX_BATCH,
    MAX_BATCH_PIXELS,
    MAX_CHANNELS,
    MAX_IMAGE_SIDE,
    MAX_PATCH_SIDE,
    MAX_SECONDS,
    MAX_SEED,
    MAX_SIGMA,
    MAX_STEPS,
    plain_name,
)
from blemish.preprocessing.tiling import smallest_side
from blemish.recipes.compat import upgrade_key, upgrade_loudly
from blemish.recipes.files import SHIPPED, read_yaml
from blemish.recipes.time_spans import seconds_in


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return seconds_in(value)
    except ValueError as error:
        raise ValueError(f"training.budget {value}: {error}") from None


def _share(value: Any) -> Any:
    if value == "auto" or (isinstance(value, (int, float)) and 0 <= value < 0.5):
        return value
    raise ValueError(f"trim {value}: give a share from 0 to less than 0.5, or auto")


class RecipeSettings(BaseModel):
    """Keys that are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


R = TypeVar("R", bound=RecipeSettings)

RecipeName = Annotated[str, AfterValidator(plain_name)]
"""A name that becomes that of folders."""


class Part(BaseModel):
    """A registered part by name; every other key is a setting that the part itself checks."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class LossTerm(Part):
    """A similarity measure by name, times ``weight``; further keys are the measure's settings."""

    weight: float = Field(1.0, gt=0, le=1e9)


class MemoryPart(Part):
    """A memory bank: ``name: structure``, or the ``features`` of any extractors; further keys are its settings."""

    name: str = "features"
    features: tuple[Part, ...] = Field((), description="extractors by name, with their settings")

    @model_validator(mode="after")
    def _names_or_lists(self) -> MemoryPart:
        if self.name != "features" and self.features:
            raise ValueError(
                f"memory.name '{self.name}' and memory.features both say what to compare; leave one out"
            )
        if self.name == "features" and not self.features:
            raise ValueError("memory.features is missing; list extractors, such as [{name: structure}]")
        return self


class CorruptionPart(Part):
    """A corruption by name; further keys are its settings."""

    at_inspection: bool = Field(False, description="whether inspected images are corrupted too")


class ImageSettings(RecipeSettings):
    """Preprocessing of an image file for the network."""

    size: int | None = Field(
        None, ge=8, le=MAX_IMAGE_SIDE, description="shorter side in pixels after resizing; null keeps it"
    )
    scale: Literal["each", "common"] = Field(
        "each",
        description="whether each image is resized to `size`, or all by the factor that brings their median to it",
    )
    pose: Literal["never", "auto"] = Field(
        "never",
        description="bring each object on a plain ground into one pose; auto: where the images show such",
    )
    range: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="value that means 1 in files of 16 bits with fewer, such as 4095; null: that of the type",
    )
    other_kinds: Literal["reject", "accept"] = Field(
        "reject",
        description="images that look of another kind than the good ones: empty, dark, blurred, of another size",
    )
    channels: int | None = Field(
        None, ge=1, le=MAX_CHANNELS, description="convert to so many channels; null keeps them"
    )


class PatchSettings(RecipeSettings):
    """Training crops and inspection tiles, in pixels after resizing."""

    size: int = Field(128, ge=16, le=MAX_PATCH_SIDE)
    stride: int = Field(64, ge=1, description="step between overlapping tiles at inspection")


class ScoreSettings(RecipeSettings):
    """Image score: the rule that reduces the anomaly map to one number."""

    name: Score = "smoothed-max"
    quantile: float = Field(0.99, gt=0, lt=1)
    sigma: float = Field(4.0, gt=0, le=MAX_SIGMA, description="of the smoothing, in pixels after resizing")


class ThresholdSettings(RecipeSettings):
    """Threshold of the reject decision, from good images alone."""

    rule: Literal["conformal", "train-mean", "fixed"] = "conformal"
    false_reject_rate: float = Field(0.05, gt=0, lt=1)
    value: float | None = Field(None, description="the threshold itself, with rule 'fixed'")
    hold_out: bool = Field(
        True, description="keep good images for calibration; false trains on them too, with rule 'train-mean'"
    )
    trim: Annotated[Trim, BeforeValidator(_share)] = Field(
        0.0, description="share of the largest calibration scores that is taken for defective, or auto"
    )


class TrainingSettings(RecipeSettings):
    steps: int = Field(2_500, ge=1, le=MAX_STEPS)
    budget: Annotated[float | None, BeforeValidator(_seconds)] = Field(
        None,
        gt=0,
        le=MAX_SECONDS,
        description="seconds of training instead of steps; --set also takes 90s, 5m or 1h",
    )
    batch: int = Field(32, ge=1, le=MAX_BATCH)
    learning_rate: float = Field(2e-4, gt=0)
    schedule: Literal["constant", "cosine", "inverse"] = "constant"
    decay: float = Field(
        0.0, ge=0, le=1e6, description="of schedule 'inverse': learning_rate / (1 + decay · step)"
    )
    weight_decay: float = Field(1e-5, ge=0, le=1e6)
    validate_every: int = Field(
        250, ge=1, le=MAX_STEPS, description="steps between looks at the held-out good images"
    )
    patience: int = Field(
        12, ge=1, le=MAX_STEPS, description="looks without improvement before training stops"
    )
    trim: Annotated[Trim, BeforeValidator(_share)] = Field(
        0.0, description="share of the training images, the worst at half time, to leave out, or auto"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @model_validator(mode="after")
    def _decays(self) -> TrainingSettings:
        if self.decay and self.schedule != "inverse":
            raise ValueError(
                f"training.decay {self.decay:g} has no use with training.schedule '{self.schedule}'; "
                "set training.schedule to inverse, or training.decay to 0"
            )
        return self


def check_batch(batch: int, patch: int) -> None:
    """Refuse batches that no memory holds.

    Raises
    ------
    ValueError
        For more than :data:`~blemish.limits.MAX_BATCH_PIXELS` pixels.
    """
    if batch * patch**2 > MAX_BATCH_PIXELS:
        raise ValueError(
            f"training.batch {batch} of patches of {patch} × {patch} pixels does not fit into memory; "
            f"use at most {max(1, MAX_BATCH_PIXELS // patch**2)}, or a smaller patch.size"
        )


def _member(value: Any) -> Any:
    """A member by the name or path of its recipe, or written out, where title, paper and expectation may be left out."""
    if isinstance(value, str):
        return upgrade_loudly(read_yaml(SHIPPED, value), value)
    if isinstance(value, dict):
        return {"title": value.get("name", ""), "paper": "none", "expect": "", **value}
    return value


class Recipe(RecipeSettings):
    """One method: its parts, settings, source and what to expect of it.

    Either an autoencoder (encoder, decoder, loss and residual, with further parts), a memory bank, a bank of filters,
    or several of these, or ``members``: recipes whose models form an ensemble. Image, score, threshold and combination
    are those of the outermost recipe; each member trains as its own recipe says.
    """

    version: Literal[1] = 1
    name: RecipeName
    title: str
    paper: str
    needs: tuple[str, ...] = ("train",)
    expect: str
    image: ImageSettings = ImageSettings()
    patch: PatchSettings = PatchSettings()
    augmentation: tuple[Part, ...] = ()
    corruption: tuple[CorruptionPart, ...] = ()
    alignment: Part | None = None
    encoder: Part | None = None
    bottleneck: tuple[Part, ...] = ()
    decoder: Part | None = None
    loss: tuple[LossTerm, ...] = ()
    residual: Part | None = None
    memory: MemoryPart | None = None
    filters: bool = Field(False, description="whether a bank of classical filters is a member")
    colour: bool | Literal["auto"] = Field(
        False,
        description="whether a memory bank of colour is a member of a soft maximum: auto where an object in one pose has "
        "colour, true wherever the images have colour",
    )
    combination: Literal["weighted-mean", "soft-maximum"] = Field(
        "weighted-mean",
        description="of several models: weights selected on synthetic anomalies, or a soft maximum with fixed ones",
    )
    members: tuple[Annotated[Recipe, BeforeValidator(_member)], ...] = ()
    score: ScoreSettings = ScoreSettings()
    threshold: ThresholdSettings = ThresholdSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if not self._check_kind():
            return self
        check_batch(self.training.batch, self.patch.size)
        if self.patch.stride > self.patch.size:
            raise ValueError(
                f"patch.stride {self.patch.stride} leaves gaps between patches of {self.patch.size}; "
                "use at most patch.size"
            )
        self._check_image(self.image.size)
        return self

    def _check_image(self, size: int | None) -> None:
        """Refuse images that are resized to less than half a patch of a network."""
        least = smallest_side(self.patch.size)
        if self.encoder is not None and size is not None and size < least:
            raise ValueError(
                f"image.size {size} is less than half of patch.size {self.patch.size}; "
                f"use at least {least}, or a smaller patch.size"
            )
        for member in self.members:
            member._check_image(size)

    def _check_kind(self) -> bool:
        """Refuse parts that do not belong together; whether there is an autoencoder."""
        if self.threshold.rule == "fixed" and self.threshold.value is None:
            raise ValueError("threshold.rule 'fixed' needs threshold.value, the threshold itself")
        if not self.threshold.hold_out and (self.threshold.rule != "train-mean" or self.threshold.trim):
            raise ValueError(
                "threshold.hold_out false needs threshold.rule 'train-mean' and no threshold.trim, because nothing is left to "
                "calibrate on; leave it out"
            )
        needed = {
            "encoder": self.encoder,
            "decoder": self.decoder,
            "loss": self.loss,
            "residual": self.residual,
        }
        optional = {
            "augmentation": self.augmentation,
            "alignment": self.alignment,
            "bottleneck": self.bottleneck,
        }
        given = [key for key, value in {**needed, **optional}.items() if value]
        if self.members:
            given += [key for key in ("memory", "filters", "colour") if getattr(self, key)]
            if given:
                raise ValueError(f"'{given[0]}' has no use beside members; write it in a member's recipe")
            for member in self.members:
                member._check_image(self.image.size)
            return False
        if (self.memory is not None or self.filters) and not given:
            return False
        for key, value in needed.items():
            if value is None:
                raise ValueError(f"key '{key}' is missing")
            if not value:
                raise ValueError(
                    "'loss' is []: give at least one measure"
                    if "loss" in self.model_fields_set
                    else "key 'loss' is missing"
                )
        return True


def parse_recipe(data: Any, source: str) -> Recipe:
    """Check ``data`` against the schema.

    Raises
    ------
    RecipeError
        In one line, naming ``source``, the key and, for an unknown key, the nearest known one.
    """
    return parse(Recipe, data, source)


def parse(model: type[R], data: Any, source: str) -> R:
    """:func:`parse_recipe` for any schema, whose validators raise ``ValueError``."""
    data = upgrade_loudly(data, source)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_explain(model, error.errors()[0])}") from None


def _explain(model: type[BaseModel], error: Any) -> str:
    if error["type"] == "value_error":
        place = ".".join(str(part) for part in error["loc"] if part in ("members",) or isinstance(part, int))
        return (f"{place}: " if place.startswith("members") else "") + str(error["ctx"]["error"])
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        return _unknown_key(location, _known_keys(model, location[:-1]))
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    if error["type"] == "model_type":
        return f"{repr(key) if key else 'it'} is {error['input']!r}: write keys and values, as in 'name: …'"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"'{key}' is {error['input']!r}: {message}"


def _known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    while len(location) > 1 and location[0] == "members":
        location = location[2:]
    for name in location:
        field = model.model_fields.get(name)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _unknown_key(path: list[str], known: list[str]) -> str:
    prefix = "".join(f"{name}." for name in path[:-1])
    return f"unknown key '{'.'.join(path)}'; {nearest(path[-1], known, prefix)}"


def override(recipe: R, assignments: list[str]) -> R:
    """``recipe`` with ``key=value`` assignments applied, as ``--set`` takes them.

    Keys are dotted (``training.steps``, ``loss.0.weight``), values are YAML. Steps that are asked for take the place of
    the recipe's budget, unless a budget is asked for too.

    Raises
    ------
    RecipeError
        For an assignment without ``=``, an unknown key (the nearest is suggested) or a bad value.

    Examples
    --------
    >>> from blemish.recipes import load_recipe
    >>> override(load_recipe("ssim-ae"), ["training.steps=100"]).training.steps
    100
    """
    data = recipe.model_dump(mode="json")
    keys = {assignment.partition("=")[0].strip() for assignment in assignments}
    if "training.steps" in keys and "training.budget" not in keys:
        assignments = [*assignments, "training.budget=null"]
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"--set {assignment}: write it as key=value, for example training.steps=2000")
        key = upgrade_key(key.strip(), "--set")
        try:
            value = yaml.safe_load(text)
        except (
            yaml.YAMLError,
            ValueError,
            RecursionError,
        ):  # ValueError: a date that is none, such as 2024-13-45
            raise RecipeError(f"--set {assignment}: the value is not valid YAML; quote it") from None
        _assign(data, key.split("."), value)
    return parse(type(recipe), data, "--set")


def _assign(data: Any, path: list[str], value: Any) -> None:
    target = data
    for depth, name in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(target, list):
            if not name.isdigit() or int(name) >= len(target):
                raise RecipeError(
                    f"--set {'.'.join(path)}: '{name}' is no place in a list of {len(target)}; use 0"
                    + (f" to {len(target) - 1}" if len(target) > 1 else "")
                )
            index: Any = int(name)
        elif isinstance(target, dict):
            # A part's own settings are open: the part checks them when the model is built.
            if name not in target and not (last and "name" in target and depth > 0):
                raise RecipeError(f"--set: {_unknown_key(path[: depth + 1], list(target))}")
            index = name
        else:
            raise RecipeError(f"--set: '{'.'.join(path[:depth])}' has no keys of its own")
        if last:
            target[index] = value
        else:
            target = target[index]
