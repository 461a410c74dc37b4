"""Device and precision, chosen by looking at the machine."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from blemish.errors import UsageError


@dataclass(frozen=True)
class Machine:
    """Where and how training runs."""

    device: str
    precision: str
    description: str

    def __str__(self) -> str:
        return self.description


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 natively (AVX-512 BF16 or AMX), not by emulation."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe)() for probe in probes if hasattr(torch.cpu, probe))


def choose_machine(device: str = "auto", precision: str = "auto") -> Machine:
    """The fastest device here that ``device`` and ``precision`` allow, described in one line.

    Raises
    ------
    UsageError
        When a device is asked for that this machine or this build of torch does not have.
    """
    has = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, available in has.items() if available)
    elif not has.get(device, False):
        raise UsageError(
            f"training.device={device}: torch {torch.__version__} finds none here; use auto or cpu"
        )
    native = {
        "cuda": device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False),
        "mps": False,
        "cpu": cpu_has_bfloat16(),
    }[device]
    if precision == "auto":
        precision = "bfloat16" if native else "float32"
    if precision == "bfloat16":
        why = "native here" if native else "emulated here, slow"
    else:
        why = "as asked" if native else "no native bfloat16"
    return Machine(
        device, precision, f"{_name(device)}; {precision} ({why}); channels_last; torch {torch.__version__}"
    )


def _name(device: str) -> str:
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return "Apple GPU" if device == "mps" else f"CPU, {torch.get_num_threads()} of {os.cpu_count()} cores"
