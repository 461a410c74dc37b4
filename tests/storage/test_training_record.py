from __future__ import annotations

import pytest

from blemish.storage.training_record import Machine, Training, TrainingLook, upgrade_training_v1

MACHINES = [
    "CPU, 1 of 2 cores; float32 (as asked); channels_last; torch 2.13.0+cpu",
    "CPU, 16 of 32 cores; float32 (no native bfloat16); channels_last; torch 2.13.0",
    "CPU, 8 of 8 cores; bfloat16 (native here); channels_last; torch 2.13.0+cpu",
    "CPU, 8 of 8 cores; bfloat16 (emulated here, slow); channels_last; torch 2.13.0+cpu",
    "NVIDIA H200; bfloat16 (native here); channels_last; torch 2.13.0+cu130",
    "Apple GPU; float32 (no native bfloat16); channels_last; torch 2.13.0",
]


@pytest.mark.parametrize("text", MACHINES)
def test_a_machine_prints_as_the_text_that_it_is_parsed_of(text: str) -> None:
    machine = Machine.parse(text)
    assert machine is not None
    assert str(machine) == text
    assert Machine.model_validate_json(machine.model_dump_json()) == machine


def test_devices_are_known_by_their_processor() -> None:
    machines = [Machine.parse(text) for text in MACHINES]
    assert [one.device for one in machines if one] == ["cpu"] * 4 + ["cuda", "mps"]


@pytest.mark.parametrize("text", ["", "none", "a laptop; float32"])
def test_text_of_no_machine(text: str) -> None:
    assert Machine.parse(text) is None


def test_training_of_format_1() -> None:
    old = {
        "steps": 4,
        "best_step": 2,
        "best_loss": 0.5,
        "seconds": 1.5,
        "machine": MACHINES[0],
        "history": [{"step": 2.0, "training": 0.7, "validation": 0.5, "validation mse": 0.25}],
        "candidates": [{"share": 1.0}],
    }
    training = Training.model_validate(upgrade_training_v1(old))
    assert training.machine_words == MACHINES[0]
    assert training.history == (TrainingLook(step=2, training=0.7, validation=0.5, terms={"mse": 0.25}),)
    unknown = Training.model_validate(upgrade_training_v1({**old, "machine": "none"}))
    assert (unknown.machine, unknown.machine_words) == (None, "an unknown machine")
