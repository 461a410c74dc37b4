"""Record of a training run, as the model folders of detectors and of JPEG encoders keep it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TERM = "validation "
"""Prefix of the held-out means of loss terms in the histories of checkpoints and of format 1."""


class _TrainingFact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(_TrainingFact):
    """Device, precision and threads of a training.

    Examples
    --------
    >>> machine = Machine(device="cpu", processor="CPU", threads=1, cores=2, precision="float32",
    ...     native_bfloat16=False, torch="2.13.0")
    >>> print(machine)
    CPU, 1 of 2 cores; float32 (no native bfloat16); channels_last; torch 2.13.0
    >>> Machine.parse(str(machine)) == machine
    True
    """

    device: Literal["cpu", "cuda", "mps"]
    processor: str
    """``CPU``, or the name of the GPU."""
    threads: int | None = None
    """Threads of torch on a CPU."""
    cores: int | None = None
    """Cores of a CPU."""
    precision: str
    """Precision of the arithmetic: ``float32`` or ``bfloat16``."""
    native_bfloat16: bool
    """Whether the device multiplies bfloat16 without emulation."""
    memory_format: str = "channels_last"
    torch: str
    """Version."""

    def __str__(self) -> str:
        processor = self.processor
        if self.threads is not None:
            processor += f", {self.threads} of {self.cores} cores"
        return f"{processor}; {self.precision} ({self._why}); {self.memory_format}; torch {self.torch}"

    @property
    def _why(self) -> str:
        """Why training runs in this precision."""
        if self.precision == "bfloat16":
            return "native here" if self.native_bfloat16 else "emulated here, slow"
        return "as asked" if self.native_bfloat16 else "no native bfloat16"

    @classmethod
    def parse(cls, text: str) -> Machine | None:
        """The machine that format 1 describes in ``text``; None where it describes none."""
        found = re.fullmatch(
            r"(?P<name>.*?)(, (?P<threads>\d+) of (?P<cores>\d+) cores)?; (?P<precision>\w+) \((?P<why>[^)]*)\); "
            r"(?P<layout>\w+); torch (?P<torch>.+)",
            text,
        )
        if found is None:
            return None
        name, why, threads, cores = found["name"], found["why"], found["threads"], found["cores"]
        return cls(
            device="cpu" if threads else "mps" if name == "Apple GPU" else "cuda",
            processor=name,
            threads=threads and int(threads),
            cores=cores and int(cores),
            precision=found["precision"],
            native_bfloat16=why in ("native here", "as asked"),
            memory_format=found["layout"],
            torch=found["torch"],
        )


class TrainingLook(_TrainingFact):
    """Losses at one validation of a training run."""

    step: int
    training: float
    """Mean training loss since the look before."""
    validation: float
    """Held-out loss."""
    terms: dict[str, float] = Field(default_factory=dict)
    """Held-out mean of each weighted term of the loss."""
    measures: dict[str, float] = Field(default_factory=dict)
    """Held-out means of further figures."""

    @classmethod
    def from_history(cls, entry: Mapping[str, float]) -> TrainingLook:
        """The look of a flat ``entry``, in which the term ``mse`` has the key ``validation mse``.

        >>> TrainingLook.from_history({"step": 2.0, "training": 0.5, "validation": 0.4, "validation mse": 0.1})
        TrainingLook(step=2, training=0.5, validation=0.4, terms={'mse': 0.1}, measures={})
        """
        return cls(
            step=int(entry["step"]),
            training=entry["training"],
            validation=entry["validation"],
            terms={key.removeprefix(TERM): entry[key] for key in entry if key.startswith(TERM)},
        )


class ModalityFigures(_TrainingFact):
    """Mean SSIM of one modality on held-out patches, beside two baselines; None where it cannot be compared."""

    name: str
    similarity: float | None
    """Of its reconstruction."""
    constant: float | None
    """Of the mean of each patch."""
    from_others: float | None
    """Of its prediction from the other modalities."""
    linear: float | None
    """Of linear regression on the pixels of the other modalities."""


class Training(_TrainingFact):
    """Record of a training: its length, history and machine."""

    steps: int
    best_step: int
    best_loss: float | None
    seconds: float
    machine: Machine | None
    """None where format 1 named none."""
    history: tuple[TrainingLook, ...]
    budget: float | None = None
    """Seconds that were set instead of steps."""
    left_out: tuple[str, ...] = ()
    """Training images that the second half went without (``training.trim``)."""
    modalities: tuple[ModalityFigures, ...] = ()
    """Of a model of scenes, each modality on the held-out patches."""
    not_learned: tuple[str, ...] = ()
    """Modalities that are left out of score and maps, because their reconstruction is no better than a constant."""
    notes: tuple[str, ...] = ()
    """Facts about these images and this method that a user should know, a sentence each."""

    @property
    def machine_words(self) -> str:
        """The machine in one line."""
        return "an unknown machine" if self.machine is None else str(self.machine)


def upgrade_training_v1(training: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`Training`, of those in format 1, where machine and loss terms were text.

    Raises
    ------
    KeyError, TypeError
        When ``training`` is no such record.
    """
    machine = training["machine"]
    found = Machine.parse(machine) if isinstance(machine, str) else None
    return {
        **{key: value for key, value in training.items() if key != "candidates"},
        "machine": found.model_dump(mode="json") if found else None,
        "history": [
            TrainingLook.from_history(entry).model_dump(mode="json") for entry in training["history"]
        ],
    }
