"""Lightning Fabric on a chosen machine, and the memory layout of networks."""

from __future__ import annotations

import logging
import warnings

import torch
from lightning.fabric import Fabric

from blemish.storage.training_record import Machine


def make_fabric(machine: Machine) -> Fabric:
    """Fabric on the device and in the precision of ``machine``, without its notices."""
    if machine.device == "cuda":
        torch.backends.cudnn.deterministic = True  # same seed, same machine: same weights
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        # Fabric notes the precision and advises on Tensor Cores; both are decided here, on purpose.
        warnings.simplefilter("ignore")
        logging.disable(logging.INFO)
        try:
            return Fabric(
                accelerator=machine.device,
                devices=1,
                precision="bf16-mixed" if machine.precision == "bfloat16" else "32-true",
            )
        finally:
            logging.disable(disabled)


def lay_out(model: torch.nn.Module, memory_format: torch.memory_format) -> None:
    """Bring the weights of ``model`` into ``memory_format``, in place."""
    # torch's own annotations leave out the one-argument form that its documentation gives.
    model.to(memory_format=memory_format)  # type: ignore[call-overload]
