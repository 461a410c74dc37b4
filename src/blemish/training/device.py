"""Device and precision, chosen by what the machine can do."""

from __future__ import annotations

import os
from typing import Literal, cast

import torch

from blemish.errors import UsageError
from blemish.storage.training_record import Machine

Device = Literal["cpu", "cuda", "mps"]


def cpu_has_bfloat16() -> bool:
    """True if torch multiplies bfloat16 natively here (AVX-512 BF16 or AMX), not by emulation.

    A processor that could is not enough: ``ONEDNN_MAX_CPU_ISA`` or a hypervisor may keep oneDNN, which does torch's
    convolutions, from these instructions.
    """
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    could = any(getattr(torch.cpu, probe)() for probe in probes if hasattr(torch.cpu, probe))
    return could and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def choose_machine(device: str = "auto", precision: str = "auto") -> Machine:
    """The fastest device here that ``device`` and ``precision`` allow, as a record that prints as one line.

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
    on_cpu = device == "cpu"
    return Machine(
        device=cast(Device, device),
        processor=_processor(device),
        threads=torch.get_num_threads() if on_cpu else None,
        cores=os.cpu_count() if on_cpu else None,
        precision=precision,
        native_bfloat16=native,
        torch=torch.__version__,
    )


def _processor(device: str) -> str:
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return "Apple GPU" if device == "mps" else "CPU"
