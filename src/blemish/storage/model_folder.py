"""Folder of a fitted model: its weights, ``model.json`` with their digest, and a card.

Detectors and JPEG encoders have the same folder. Torch is imported only where weights are written or read.

``model.json`` carries the number of its format. Documents of format 1 are verified by their digest as they are stored,
then brought to the newest format (:meth:`Document.upgraded`), then checked against the schema.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blemish._version import __version__
from blemish.errors import ModelError, RecipeError, UsageError
from blemish.storage.atomic import write_bytes, write_json, write_text

if TYPE_CHECKING:
    from torch import Tensor, nn

MODEL_FILE, WEIGHTS_FILE, CARD_FILE = "model.json", "model.safetensors", "card.md"
CHECKPOINT = "checkpoint"
"""Folder of an unfinished training, beside or in place of a finished model."""


class ModelKind(NamedTuple):
    """Names of one kind of model, and the format of its folders."""

    name: str
    """In ``model.json``."""
    words: str
    command: str
    """Makes such a folder with its ``--out``."""
    format: int
    """Newest format of ``model.json`` that is read."""
    edited: str = "was edited after it was written"
    instead: str = ""
    """To do rather than edit."""

    @property
    def give(self) -> str:
        return f"give the folder that {self.command} --out made"


DETECTOR = ModelKind(
    "detector",
    "a detector",
    "blemish fit",
    format=2,
    edited="was edited after it was written, so what it promises may no longer hold",
    instead="; to change the decision alone, pass --threshold or --false-reject-rate",
)
JPEG_ENCODER = ModelKind("jpeg encoder", "a JPEG encoder", "blemish jpeg fit", format=2)


class Document(BaseModel):
    """Fields of ``model.json`` that every kind of model has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    format: int
    blemish: str
    versions: dict[str, str]
    weights_sha256: str
    content_sha256: str | None = None
    """SHA-256 of all other fields, so that an edit by hand is noticed; None until it is saved."""
    stored_format: int = Field(0, exclude=True)
    """Format of the folder that was read, where it is older; 0 otherwise. Not kept on disk."""

    @classmethod
    def upgraded(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the newest format, of ``content`` in format 1.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            When ``content`` is no document of format 1.
        """
        return {**content, "format": 2}


DocumentT = TypeVar("DocumentT", bound=Document)
ModuleT = TypeVar("ModuleT", bound="nn.Module")


def weights_of(model: nn.Module) -> bytes:
    """The weights as the safetensors file of a model folder; equal weights, equal bytes."""
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in model.state_dict().items()})


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of :func:`weights_of`."""
    return hashlib.sha256(weights_of(model)).hexdigest()


# -- writing -------------------------------------------------------------------------------------------


def write_model(
    folder: str | Path,
    document: Document,
    weights: bytes,
    card: str,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write ``model.safetensors``, ``card.md``, further ``files``, and ``model.json``; the JSON last, so that it vouches.

    Parameters
    ----------
    weights: as :func:`weights_of` gives them.
    files: content of each further file, by its name.

    Raises
    ------
    FileError
        When they cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(folder, f"cannot be made ({error.strerror})", "choose another --out") from None
    content = {
        **document.model_dump(mode="json", exclude={"content_sha256"}),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    for name, further in (files or {}).items():
        write_bytes(folder / name, further)
    write_bytes(folder / WEIGHTS_FILE, weights)
    write_text(folder / CARD_FILE, card)
    write_json(folder / MODEL_FILE, {**content, "content_sha256": _content_sha256(content)})
    return folder


def _content_sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def refuse_finished_model(folder: Path) -> None:
    """Refuse an output folder that holds a finished model.

    Raises
    ------
    UsageError
        Naming the folder and the options.
    """
    if os.path.exists(folder / MODEL_FILE):
        raise UsageError(
            f"{folder}: already holds a finished model; choose another --out or pass --overwrite"
        )


# -- reading -------------------------------------------------------------------------------------------


def read_document(folder: Path, kind: ModelKind, schema: type[DocumentT]) -> DocumentT:
    """``model.json`` of the model in ``folder``, without its weights.

    Raises
    ------
    ModelError
        When the folder is no model of this kind, or its JSON is incomplete, edited, or from a newer version of
        Blemish.
    """
    path = folder / MODEL_FILE
    content = _read_json(folder, kind)
    # Detectors of before there were JPEG encoders do not say what they are.
    name = content.get("kind", DETECTOR.name if "calibration" in content else kind.name)
    other = next((other for other in (DETECTOR, JPEG_ENCODER) if other.name == name), kind)
    if other is not kind:
        raise ModelError(folder, f"is {other.words}, not {kind.words}", kind.give)
    made_by, written_in = content.get("blemish", "?"), content.get("format")
    if isinstance(written_in, int) and written_in > kind.format:
        raise ModelError(
            path,
            f"was written by Blemish {made_by} in format {written_in}, this is {__version__} "
            f"and reads up to format {kind.format}",
            f"upgrade Blemish to {made_by} or newer",
        )
    remedy = "undo the edit, copy the whole model folder again, or fit again"
    edited = ModelError(path, kind.edited, f"{remedy}{kind.instead}")
    if written_in == 1:
        if not _is_unedited(content):
            raise edited
        try:
            content = {**schema.upgraded(content), "stored_format": 1}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ModelError(path, "is no complete document of format 1", remedy) from None
    try:
        document = schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelError(path, f"was edited or is incomplete: '{key}': {first['msg']}", remedy) from None
    if written_in != 1 and not _is_unedited(content):
        raise edited
    return document


def _is_unedited(content: Mapping[str, Any]) -> bool:
    others = {key: value for key, value in content.items() if key != "content_sha256"}
    return content.get("content_sha256") == _content_sha256(others)


def _read_json(folder: Path, kind: ModelKind) -> dict[str, Any]:
    path = folder / MODEL_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.isdir(folder):
            problem = "is a file, not a model folder" if os.path.exists(folder) else "does not exist"
            raise ModelError(folder, problem, kind.give) from None
        raise ModelError(
            folder,
            f"holds no {MODEL_FILE}, so it is no finished model",
            f"{kind.give}, or finish an interrupted fit with --resume",
        ) from None
    except OSError as error:
        raise ModelError(
            path, f"cannot be read ({error.strerror})", "check the path and its permissions, or fit again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ModelError(path, f"is not readable JSON ({error})", "restore the file, or fit again") from None
    if not isinstance(content, dict):
        raise ModelError(path, "is no model's JSON", "restore the file, or fit again")
    return content


def load_weights(
    folder: Path,
    document: Document,
    build: Callable[[], ModuleT],
    upgrade: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> ModuleT:
    """The module that ``build`` makes, with the weights in ``folder`` that ``document`` vouches for.

    Parameters
    ----------
    upgrade: gives weights of format 1 their present names.

    Raises
    ------
    ModelError
        When they are missing, damaged, of another model, or do not fit the module.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / WEIGHTS_FILE
    weights = vouched(path, document.weights_sha256)
    try:
        model = build()
        tensors = load(weights)
        if upgrade is not None and document.stored_format == 1:
            tensors = upgrade(tensors)
        model.load_state_dict(tensors)
        _refuse_nan(path, tensors)
    except (SafetensorError, RuntimeError, RecipeError) as error:
        raise ModelError(
            path,
            f"does not fit the recipe in {MODEL_FILE} ({str(error).splitlines()[0]})",
            f"upgrade to the Blemish that made it ({document.blemish}; this is {__version__}), or fit again",
        ) from None
    return model


def vouched(path: Path, sha256: str) -> bytes:
    """Content of a file of a model folder, whose digest is ``sha256``.

    Raises
    ------
    ModelError
        When it is missing, damaged or another one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            path, f"cannot be read ({error.strerror})", "copy the whole model folder, or fit again"
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(
            path,
            f"is damaged, or not the one that {MODEL_FILE} was written for",
            "finish the interrupted fit with --resume"
            if (path.parent / CHECKPOINT).is_dir()
            else "copy the whole model folder again, or fit again",
        )
    return content


def _refuse_nan(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.isnan().any():
            raise ModelError(
                path, f"holds NaN in '{name}'", "copy the whole model folder again, or fit again"
            )
