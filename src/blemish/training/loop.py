"""The one training loop, on Lightning Fabric: device placement, precision and scaling are its work."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from blemish.errors import BlemishError, Stopped
from blemish.models import Loss
from blemish.recipes.schema import TrainingSettings
from blemish.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from blemish.training.machine import Machine
from blemish.training.patches import PatchSource, RandomPatches, make_loader, raising

VALIDATION_PATCHES = 256
VALIDATION_BYTES = 64 * 2**20
CHECKPOINT_SECONDS = 60.0
REPORT_STEPS = 10


class Trainable(Protocol):
    """What :func:`train` asks of a module."""

    @property
    def pretraining(self) -> int:
        """Steps of :meth:`pretraining_loss` that come before :meth:`loss`."""

    def pretraining_loss(self, batch: Tensor) -> Loss:
        """As :meth:`loss`; only where ``pretraining`` is not 0."""

    def loss(self, batch: Tensor) -> Loss:
        """Named, weighted terms of the training loss for ``batch`` (N, C, H, W) in [0, 1]."""


@runtime_checkable
class Grouped(Protocol):
    """A module whose parameters are not all optimised alike; of others all are one group."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimizer; a group's "pace" multiplies the learning rate of the schedule."""


@dataclass(frozen=True)
class Progress:
    """Where training stands; ``terms`` are the means of the loss terms since the last report."""

    step: int
    steps: int
    terms: dict[str, float]
    images_per_second: float
    seconds_left: float
    validation: float | None
    best: float | None


class DivergedError(BlemishError):
    """A loss term is no longer a number."""


def train(
    model: Trainable,
    pictures: PatchSource,
    validation: PatchSource,
    settings: TrainingSettings,
    *,
    patch: int,
    machine: Machine,
    checkpoint: Path | None,
    identity: dict[str, Any],
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> TrainingState:
    """Train ``model`` in place; it ends with the weights that served the held-out pictures best.

    A model that wants it is first given ``model.pretraining`` steps of its ``pretraining_loss``; they count
    as steps, but neither for early stopping nor for the best weights. Each look at the held-out pictures adds
    an entry to the history: ``step``, ``training`` and ``validation`` loss, and the held-out mean of every
    term of the loss under :func:`term_key` of its name.

    Parameters
    ----------
    model: a module; where it has ``parameter_groups`` (:class:`Grouped`), these are what is optimised.
    checkpoint: folder for checkpoints, written every minute and at the end; None writes none.
    identity: what a checkpoint must share with this run to be resumed; compared key by key.
    resume: go on from ``checkpoint``; one that has all its steps is only finished.
    stop: asked once after every step; when it says yes a checkpoint is written and training ends.

    Raises
    ------
    Stopped
        When ``stop`` said yes.
    DivergedError
        When a loss term is not finite; names the term and the step, the last checkpoint stays.
    PictureError, ModelError
        When a picture can no longer be read, or the checkpoint cannot be resumed.
    """
    assert isinstance(model, nn.Module)
    fabric = _make_fabric(machine)
    _lay_out(model, torch.channels_last)
    optimizer = torch.optim.Adam(
        model.parameter_groups() if isinstance(model, Grouped) else model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=machine.device != "mps",
    )
    wrapped, optimizer = fabric.setup(model, optimizer)
    wrapped.mark_forward_method("loss")
    wrapped.mark_forward_method("pretraining_loss")
    state = TrainingState()
    best = _copy(model)
    if resume and checkpoint:
        state, best = load_checkpoint(checkpoint, identity, model, optimizer)

    steps = model.pretraining + settings.steps

    def finished() -> bool:
        return state.step >= steps or state.looks_without_gain >= settings.patience

    def objective(batch: Tensor) -> Loss:
        loss: Loss = (
            wrapped.pretraining_loss(batch) if state.step < model.pretraining else wrapped.loss(batch)
        )
        return loss

    # The same patches at every look, or the curve would show the draw and not the progress.
    held_out = _held_out(validation, patch, settings)
    loader = fabric.setup_dataloaders(
        make_loader(
            RandomPatches(
                pictures,
                patch,
                seed=settings.seed,
                start=state.step * settings.batch,
                stop=(state.step if finished() else steps) * settings.batch,
            ),
            settings.batch,
            # Pictures in memory are cheaper to cut than to send between processes.
            workers=0 if pictures.in_memory else 2,
        )
    )
    begun = saved = reported = time.perf_counter()
    seconds_before, first = state.seconds, state.step
    sums: dict[str, Tensor] = {}
    since_report = 0
    since_look = torch.tensor(state.loss_since_look, device=fabric.device)

    def write() -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            raise _diverged("the weights are no longer numbers after", state.step, checkpoint)
        state.seconds = seconds_before + time.perf_counter() - begun
        state.loss_since_look = float(since_look)
        if checkpoint:
            save_checkpoint(checkpoint, identity, state, model, best, optimizer)

    def look() -> None:
        nonlocal best
        # The same draws (noise, latents) at every look; the next step seeds its own.
        torch.manual_seed(_step_seed(settings.seed + 1, 0))
        current, terms = _mean_loss(wrapped, held_out, fabric)
        _refuse_nan({"validation": current}, state.step, checkpoint)
        since = max(state.history[-1]["step"] if state.history else 0, model.pretraining)
        state.history.append(
            {
                "step": state.step,
                "training": float(since_look) / (state.step - since),
                "validation": current,
                **{term_key(name): value for name, value in terms.items()},
            }
        )
        since_look.zero_()
        if state.best_loss is None or current < state.best_loss:
            state.best_loss, state.best_step, state.looks_without_gain = current, state.step, 0
            best = _copy(model)
        else:
            state.looks_without_gain += 1

    model.train()
    for batch in raising(loader):
        # A step's draws (noise, latents) depend on (seed, step) alone, so a resumed run repeats them.
        torch.manual_seed(_step_seed(settings.seed, state.step))
        for group in optimizer.param_groups:
            rate = learning_rate(settings, max(0, state.step - model.pretraining))
            group["lr"] = rate * group.get("pace", 1.0)
        with fabric.autocast():  # which Fabric itself opens around forward alone
            loss = objective(batch.to(memory_format=torch.channels_last))
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss.total)
        optimizer.step()
        state.step += 1
        since_report += 1
        if state.step > model.pretraining:
            since_look += loss.total.detach()
        for name, term in loss.terms.items():
            sums[name] = sums.get(name, torch.zeros_like(term)) + term.detach()
        stopping = stop()
        past = state.step - model.pretraining
        due = past > 0 and (state.step == steps or past % settings.validate_every == 0)
        # A report never mixes the terms of two phases.
        if not (due or stopping or since_report >= REPORT_STEPS or past == 0):
            continue
        terms = {name: float(total) / since_report for name, total in sums.items()}
        _refuse_nan(terms, state.step, checkpoint)
        if due:
            look()
        now = time.perf_counter()
        speed = since_report * settings.batch / (now - reported)
        on_progress(
            Progress(
                step=state.step,
                steps=steps,
                terms=terms,
                images_per_second=speed,
                # From the whole run, so that looks and checkpoints are in it.
                seconds_left=(now - begun) / (state.step - first) * (steps - state.step),
                validation=state.history[-1]["validation"] if state.history else None,
                best=state.best_loss,
            )
        )
        sums, since_report, reported = {}, 0, now
        if finished():
            break
        if stopping:
            write()
            raise Stopped(f"stopped at step {state.step} of {steps}")
        if now - saved >= CHECKPOINT_SECONDS:
            write()
            saved = now
    if not state.history or state.history[-1]["step"] != state.step:
        look()  # resumed with fewer steps than were already made
    write()
    model.load_state_dict(best)
    _lay_out(model.eval().to("cpu"), torch.contiguous_format)
    return state


def term_key(name: str) -> str:
    """The key of a training history under which the held-out mean of the loss term ``name`` stands.

    >>> term_key("mse")
    'validation mse'
    """
    return f"validation {name}"


def _held_out(validation: PatchSource, patch: int, settings: TrainingSettings) -> list[Tensor]:
    """Batches (N, C, P, P) of the held-out pictures, as many as ``VALIDATION_BYTES`` hold but at least one."""
    patches = RandomPatches(validation, patch, seed=settings.seed + 1, start=0, stop=VALIDATION_PATCHES)
    batches: list[Tensor] = []
    for batch in raising(make_loader(patches, settings.batch)):
        batches.append(batch)
        if sum(kept.nbytes for kept in batches) + batch.nbytes > VALIDATION_BYTES:
            break
    return batches


def _make_fabric(machine: Machine) -> Fabric:
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


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """The rate of step ``step`` of ``settings.steps``: constant, along a cosine to 0, or by 1 / (1 + decay · step)."""
    if settings.schedule == "constant":
        return settings.learning_rate
    if settings.schedule == "inverse":
        return settings.learning_rate / (1 + settings.decay * step)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def _lay_out(model: torch.nn.Module, memory_format: torch.memory_format) -> None:
    # torch's own annotations leave out the one-argument form that its documentation gives.
    model.to(memory_format=memory_format)  # type: ignore[call-overload]


def _copy(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _mean_loss(wrapped: Any, batches: list[Tensor], fabric: Fabric) -> tuple[float, dict[str, float]]:
    """Means over the patches of ``batches``: of the loss, and of each of its terms."""
    total, terms = 0.0, dict[str, float]()
    wrapped.eval()
    with torch.no_grad(), fabric.autocast():
        for batch in batches:
            loss: Loss = wrapped.loss(fabric.to_device(batch))
            total += float(loss.total) * len(batch)
            for name, term in loss.terms.items():
                terms[name] = terms.get(name, 0.0) + float(term) * len(batch)
    wrapped.train()
    count = sum(len(batch) for batch in batches)
    return total / count, {name: value / count for name, value in terms.items()}


def _refuse_nan(terms: dict[str, float], step: int, checkpoint: Path | None) -> None:
    for name, value in terms.items():
        if not math.isfinite(value):
            raise _diverged(f"loss term '{name}' became {value} by", step, checkpoint)


def _diverged(what: str, step: int, checkpoint: Path | None) -> DivergedError:
    again = (
        f" with --overwrite; or keep what was good until then, the checkpoint in {checkpoint}, with --resume "
        "and a smaller training.steps"
        if checkpoint and checkpoint.exists()
        else ""
    )
    return DivergedError(
        f"{what} step {step}; lower training.learning_rate "
        f"or set training.precision=float32, and fit again{again}"
    )
