"""Schema of ``modalities.yaml``, which assigns the files of a scene to its modalities."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from blemish.data.modality import AutomaticRange, ModalityName, ModalityRange, ModalityTransform, ScenePath
from blemish.errors import FileError, nearest

MODALITIES_FILE = "modalities.yaml"


class ModalityEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: ModalityName
    file: Annotated[ScenePath, Field(min_length=1)]
    dataset: str = ""
    channels: int | None = Field(None, ge=1)
    range: ModalityRange | AutomaticRange | None = None
    grey: bool | None = None
    no_data: FiniteFloat | None = None


class SceneDescription(BaseModel):
    model_config = ConfigDict(extra="forbid")

    modalities: list[ModalityEntry] = Field(min_length=1)
    root: str = "."
    grid: str | None = None
    region_of_interest: ScenePath = ""
    """Image in the folder of a scene that marks what is judged; ``roi`` where there is one and none is named."""
    exclude: ScenePath = ""
    """Image that marks what is not judged; ``exclude`` where there is one and none is named."""
    transforms: dict[str, dict[str, ModalityTransform]] = {}
    """By the name of a scene, then of a modality; ``blemish register`` writes them."""


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key.value}' is given twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


def description_of(source: Path) -> Path | None:
    if source.suffix.lower() in {".yaml", ".yml"} and not source.is_dir():
        return source
    path = source / MODALITIES_FILE
    return path if path.is_file() else None


def read_description(path: Path) -> SceneDescription:
    remedy = "correct the file"
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_OnceLoader)
    except FileNotFoundError:
        raise FileError(path, "does not exist", "check the path") from None
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror})", "check its permissions") from None
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: not UTF-8, or a date that is none
        raise FileError(path, f"is not valid YAML ({' '.join(str(error).split())})", remedy) from None
    if not isinstance(data, dict):
        raise FileError(path, "holds no keys and values", "list the sensors under 'modalities:'")
    try:
        described = SceneDescription.model_validate(data)
    except ValidationError as error:
        # A key that is not known is often the one that is missing, misspelt.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise FileError(path, _explained(first), remedy) from None
    names = [entry.name for entry in described.modalities]
    files = [f"{PurePosixPath(entry.file)} {entry.dataset}".rstrip() for entry in described.modalities]
    for key, values in (("name", names), ("file", files)):
        again = next((value for index, value in enumerate(values) if value in values[:index]), None)
        if again is not None:
            raise FileError(path, f"gives the {key} '{again}' twice", f"give each modality its own {key}")
    if described.grid is not None and described.grid not in names:
        known = nearest(described.grid, names)
        raise FileError(path, f"has the grid '{described.grid}', which is no modality; {known}", remedy)
    for scene, transforms in described.transforms.items():
        for name in transforms:
            if name not in names:
                problem = f"has a transform of '{name}' in '{scene}', which is no modality"
                raise FileError(path, f"{problem}; {nearest(name, names)}", remedy)
    return described


def _explained(error: Any) -> str:
    *before, last = location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        known = (ModalityEntry if before else SceneDescription).model_fields
        return f"unknown key '{key}'; {nearest(last, known)}"
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"'{key}' is {error['input']!r}: {message[0].lower()}{message[1:]}"
