from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from blemish.errors import UsageError
from blemish.training import device as room
from blemish.training.device import choose_machine


def equip(
    monkeypatch: pytest.MonkeyPatch,
    *,
    cuda: bool = False,
    mps: bool = False,
    gpu_bfloat16: bool = True,
    cpu_bfloat16: bool = False,
) -> None:
    """Pretend that this machine has just that."""

    def gpu_supports(including_emulation: bool = True) -> bool:
        return including_emulation or gpu_bfloat16

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Test GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", gpu_supports)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(room, "cpu_has_bfloat16", lambda: cpu_bfloat16)


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_fastest_device(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, device: str
) -> None:
    equip(monkeypatch, cuda=cuda, mps=mps)
    assert choose_machine().device == device
    assert choose_machine("cpu").device == "cpu"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_absent_is_refused(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    equip(monkeypatch)
    with pytest.raises(UsageError, match=f"^training.device={device}: .* use auto or cpu$"):
        choose_machine(device)


@pytest.mark.parametrize(("native", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_auto_takes_bfloat16_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str
) -> None:
    equip(monkeypatch, cuda=True, gpu_bfloat16=native, cpu_bfloat16=native)
    assert choose_machine("cuda").precision == precision
    assert choose_machine("cpu").precision == precision


def test_the_precision_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        equip(monkeypatch, cpu_bfloat16=native)
        for precision in ("float32", "bfloat16"):
            assert choose_machine("cpu", precision).precision == precision


@pytest.mark.parametrize(
    ("native", "asked", "why"),
    [
        (True, "auto", "bfloat16 (native here)"),
        (True, "float32", "float32 (as asked)"),
        (False, "auto", "float32 (no native bfloat16)"),
        (False, "bfloat16", "bfloat16 (emulated here, slow)"),
    ],
)
def test_one_line_says_what_was_chosen_and_why(
    monkeypatch: pytest.MonkeyPatch, native: bool, asked: str, why: str
) -> None:
    equip(monkeypatch, cpu_bfloat16=native)
    assert str(choose_machine("cpu", asked)) == (
        f"CPU, {torch.get_num_threads()} of {os.cpu_count()} cores; {why}; "
        f"channels_last; torch {torch.__version__}"
    )
    equip(monkeypatch, cuda=True, mps=True, gpu_bfloat16=native)
    assert str(choose_machine("cuda", asked)).startswith(f"Test GPU; {why}; ")
    assert str(choose_machine("mps")).startswith("Apple GPU; float32 (no native bfloat16); ")


def test_the_machine_is_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    equip(monkeypatch, cuda=True, cpu_bfloat16=False)
    machine = choose_machine("cpu")
    assert (machine.device, machine.processor, machine.precision) == ("cpu", "CPU", "float32")
    assert (machine.threads, machine.cores) == (torch.get_num_threads(), os.cpu_count())
    assert (machine.native_bfloat16, machine.torch) == (False, torch.__version__)
    gpu = choose_machine("cuda")
    assert (gpu.device, gpu.processor, gpu.precision, gpu.threads) == ("cuda", "Test GPU", "bfloat16", None)
    assert gpu.native_bfloat16


def test_the_processor_and_torch_itself_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for may in (True, False):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda may=may: may)
        for answers in [(False, False), (True, False), (False, True)]:
            for probe, answer in zip(probes, answers, strict=True):
                monkeypatch.setattr(torch.cpu, probe, lambda answer=answer: answer, raising=False)
            assert room.cpu_has_bfloat16() is (may and any(answers))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the setting is for x86 processors")
def test_a_limit_on_the_instruction_set_is_respected() -> None:
    chosen = subprocess.run(
        [
            sys.executable,
            "-c",
            "from blemish.training.device import choose_machine; print(choose_machine('cpu'))",
        ],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "float32 (no native bfloat16)" in chosen.stdout
