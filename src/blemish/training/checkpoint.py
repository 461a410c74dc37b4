"""Interrupted training on disk: tensors as safetensors, the rest as JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from blemish.errors import ModelError
from blemish.storage.atomic import write_bytes, write_json
from blemish.storage.training_record import TrainingLook

STATE_FILE = "state.json"


@dataclass
class TrainingState:
    """State of a training, without its tensors; with them a resumed run equals an uninterrupted one."""

    step: NonNegativeInt = 0
    best_step: NonNegativeInt = 0
    best_loss: FiniteFloat | None = None
    looks_without_gain: NonNegativeInt = 0
    loss_since_look: FiniteFloat = 0.0
    """Sum of the training loss over the steps since the last look."""
    seconds: FiniteFloat = 0.0
    pretraining: NonNegativeInt | None = None
    """Steps of pretraining that were made; None until they are done."""
    pretraining_seconds: FiniteFloat = 0.0
    left_out: list[NonNegativeInt] | None = None
    """Training images that the rest of the training goes without, by number; None until that is decided."""
    history: list[TrainingLook] = field(default_factory=list)


_STATE = TypeAdapter(TrainingState)


def save_checkpoint(
    folder: Path,
    identity: dict[str, Any],
    state: TrainingState,
    model: nn.Module,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write a checkpoint; the previous one stays valid until the new one is whole.

    The JSON names its tensor file, and is replaced last: it points at a complete pair whenever a run is killed.

    Raises
    ------
    FileError
        When the folder cannot be written.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in slots.items()}
    name = f"state-{state.step}.safetensors"
    write_bytes(
        folder / name, save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    )
    document = {"tensors": name, "identity": identity, "state": _STATE.dump_python(state, mode="json")}
    write_json(folder / STATE_FILE, document)
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                raise ModelError(
                    old, f"cannot be removed ({error.strerror})", "change the permissions of its folder"
                ) from None


def load_checkpoint(
    folder: Path,
    identity: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> tuple[TrainingState, dict[str, Tensor]]:
    """Restore ``model`` and ``optimizer`` in place; return the state and the best weights so far.

    Raises
    ------
    ModelError
        When there is no checkpoint, it is damaged, or it belongs to another recipe or other images
        (``identity`` differs: the first differing key is named).
    """
    path = folder / STATE_FILE
    if not path.exists():
        raise ModelError(folder, "holds no checkpoint to resume from", "fit without --resume")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        tensors = load_file(folder / document["tensors"])
        state = _STATE.validate_python(_upgraded_state(document["state"]))
        stored = _upgraded_identity(document["identity"])
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        SafetensorError,
    ) as error:
        raise _damaged(folder, error) from None
    for key in [*identity, *stored]:
        if identity.get(key) != stored.get(key):
            raise ModelError(
                folder,
                f"the checkpoint was made with another {key}",
                "resume with the settings and images it was started with, or fit again with --overwrite",
            )
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    slots: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        for name, value in tensors.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = value
        model.load_state_dict(groups["model"])
        for name, value in groups["optimizer"].items():
            index, _, slot = name.partition("/")
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                # Files hold contiguous tensors; the fused optimizer walks memory in the parameter's order.
                value = torch.empty_like(parameter).copy_(value)
            slots.setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    except (RuntimeError, ValueError, LookupError) as error:
        raise _damaged(folder, error) from None
    return state, groups["best"]


def _upgraded_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` with the looks of its history as records, which were flat before."""
    looks = [
        look if "terms" in look else TrainingLook.from_history(look)
        for look in dict(state).get("history", [])
    ]
    return {**state, "history": looks}


def _upgraded_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """``identity`` under the present names of its keys."""
    former = "picture."
    return {
        "set of images"
        if key == "set of pictures"
        else f"image.{key.removeprefix(former)}"
        if key.startswith(former)
        else key: value
        for key, value in dict(identity).items()
    }


def _damaged(folder: Path, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())
    return ModelError(folder, f"the checkpoint is damaged ({reason})", "fit again with --overwrite")
