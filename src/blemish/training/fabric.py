"""Lightning Fabric on a chosen machine, and the memory layout of networks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import Strategy

from blemish.storage.training_record import Machine


def make_fabric(
    machine: Machine, *, devices: int = 1, nodes: int = 1, strategy: Strategy | str = "auto"
) -> Fabric:
    """Fabric on ``devices`` of each of ``nodes`` machines, in the precision of ``machine``, without its notices."""
    if machine.device == "cuda":
        torch.backends.cudnn.deterministic = True  # same seed, same machine: same weights
    with without_notices():
        return Fabric(
            accelerator=machine.device,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision="bf16-mixed" if machine.precision == "bfloat16" else "32-true",
        )


@contextmanager
def without_notices() -> Iterator[None]:
    """Keep Fabric from notes on the precision and the processes, and from advice on Tensor Cores.

    Both are decided here, on purpose.
    """
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.INFO)
        try:
            yield
        finally:
            logging.disable(disabled)


def lay_out(model: torch.nn.Module, memory_format: torch.memory_format) -> None:
    """Bring the weights of ``model`` into ``memory_format``, in place."""
    # torch's own annotations leave out the one-argument form that its documentation gives.
    model.to(memory_format=memory_format)  # type: ignore[call-overload]
