"""The one training loop, on Lightning Fabric: device placement, precision and scaling are its work."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from blemish.storage.training_record import Machine
from blemish.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from blemish.training.patches import PatchSource, RandomPatches, make_loader, raising

VALIDATION_PATCHES = 256
VALIDATION_BYTES = 64 * 2**20
CHECKPOINT_SECONDS = 60.0
REPORT_STEPS = 10
ENDLESS = 2**40
"""Steps; more than any budget holds."""


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
    """In all; with a budget, as many as it will hold at the present pace."""
    terms: dict[str, float]
    images_per_second: float
    seconds_left: float
    validation: float | None
    best: float | None


@dataclass(frozen=True)
class Trimming:
    """How the training images that a half-trained model finds worst are found and left out."""

    worst: Callable[[], Sequence[int]]
    """The images, by number, that the model as it is now finds worst; it may leave the model in evaluation."""
    without: Callable[[Sequence[int]], PatchSource]
    """The images but those of the numbers given."""


class DivergedError(BlemishError):
    """A loss term is no longer a number."""


def train(
    model: Trainable,
    images: PatchSource,
    validation: PatchSource,
    settings: TrainingSettings,
    *,
    patch: int,
    machine: Machine,
    checkpoint: Path | None,
    identity: dict[str, Any],
    resume: bool = False,
    pretrained: bool = False,
    trimming: Trimming | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> TrainingState:
    """Train ``model`` in place; it ends with the weights that served the held-out images best.

    A model that wants it is first given ``model.pretraining`` steps of its ``pretraining_loss``; they count
    as steps, but neither for early stopping nor for the best weights. Each look at the held-out images adds
    an entry to the history: ``step``, ``training`` and ``validation`` loss, and the held-out mean of every
    term of the loss under :func:`term_key` of its name.

    With ``settings.budget`` the clock takes the place of the steps: training ends, and a cosine reaches 0, when
    so many seconds are spent, those before an interruption included; the last step and the last look end after
    them. Pretraining ends at half of the budget at the latest.

    With ``trimming`` the images that the model at half time finds worst are left out of the second half, and
    the best weights are those of the second half. Patch i depends on (seed, i) and the list of those left out
    alone.

    Parameters
    ----------
    model: a module; where it has ``parameter_groups`` (:class:`Grouped`), these are what is optimised.
    checkpoint: folder for checkpoints, written every minute and at the end; None writes none.
    identity: what a checkpoint must share with this run to be resumed; compared key by key.
    resume: go on from ``checkpoint``; one that has all its steps, or spent its budget, is only finished.
    pretrained: whether the model comes with its pretraining done.
    trimming: finds the worst of ``images`` and leaves them out; None leaves out none.
    stop: asked once after every step; when it says yes a checkpoint is written and training ends.

    Raises
    ------
    Stopped
        When ``stop`` said yes.
    DivergedError
        When a loss term is not finite; names the term and the step, the last checkpoint stays.
    ImageError, ModelError
        When an image can no longer be read, or the checkpoint cannot be resumed.
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
    state = TrainingState(pretraining=0 if pretrained else None)
    best = _copy(model)
    if resume and checkpoint:
        state, best = load_checkpoint(checkpoint, identity, model, optimizer)
    course = _Course(settings, state, model.pretraining)

    def trims() -> bool:
        """Whether the worst images have yet to be left out."""
        return trimming is not None and state.left_out is None

    def finished() -> bool:
        return course.over() or (state.looks_without_gain >= settings.patience and not trims())

    def objective(batch: Tensor) -> Loss:
        loss: Loss = wrapped.pretraining_loss(batch) if state.pretraining is None else wrapped.loss(batch)
        return loss

    # The same patches at every look, or the curve would show the draw and not the progress.
    held_out = _held_out(validation, patch, settings)

    def leave_out_the_worst() -> None:
        assert trimming is not None
        try:
            state.left_out = sorted(trimming.worst())
        except Stopped:
            write()
            raise
        finally:
            wrapped.train()
        state.best_loss, state.looks_without_gain = None, 0

    def batches() -> Iterator[Tensor]:
        """Those of the steps to come; a new loader where the images change."""
        while not finished():
            if trims() and course.half():
                leave_out_the_worst()
            drawn = trimming.without(state.left_out) if trimming and state.left_out else images
            loader = make_loader(
                RandomPatches(
                    drawn,
                    patch,
                    seed=settings.seed,
                    start=state.step * settings.batch,
                    stop=course.steps() * settings.batch,
                ),
                settings.batch,
                # Images that are kept are cheaper to cut than to send between processes.
                workers=0 if drawn.at_hand else 2,
            )
            for batch in raising(fabric.setup_dataloaders(loader)):
                yield batch
                if trims() and course.half():
                    break
            else:
                return

    saved = reported = time.perf_counter()
    sums: dict[str, Tensor] = {}
    since_report = 0
    since_look = torch.tensor(state.loss_since_look, device=fabric.device)

    def write() -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            raise _diverged("the weights are no longer numbers after", state.step, checkpoint)
        state.seconds = course.spent()
        state.loss_since_look = float(since_look)
        if checkpoint:
            save_checkpoint(checkpoint, identity, state, model, best, optimizer)

    def look() -> None:
        nonlocal best
        # The same draws (noise, latents) at every look; the next step seeds its own.
        torch.manual_seed(_step_seed(settings.seed + 1, 0))
        current, terms = _mean_loss(wrapped, held_out, fabric)
        _refuse_nan({"validation": current}, state.step, checkpoint)
        since = max(state.history[-1]["step"] if state.history else 0, state.pretraining or 0)
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
    for batch in batches():
        # A step's draws (noise, latents) depend on (seed, step) alone, so a resumed run repeats them.
        torch.manual_seed(_step_seed(settings.seed, state.step))
        rate = learning_rate(settings, course.past(), course.share() if settings.budget else None)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("pace", 1.0)
        with fabric.autocast():  # which Fabric itself opens around forward alone
            loss = objective(batch.to(memory_format=torch.channels_last))
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss.total)
        optimizer.step()
        state.step += 1
        since_report += 1
        if state.pretraining is not None:
            since_look += loss.total.detach()
        for name, term in loss.terms.items():
            sums[name] = sums.get(name, torch.zeros_like(term)) + term.detach()
        turned = course.turned()
        stopping = stop()
        due = course.past() > 0 and (course.over() or course.past() % settings.validate_every == 0)
        # A report never mixes the terms of two phases.
        if not (due or stopping or since_report >= REPORT_STEPS or turned):
            continue
        terms = {name: float(total) / since_report for name, total in sums.items()}
        _refuse_nan(terms, state.step, checkpoint)
        if due:
            look()
        now = time.perf_counter()
        steps, seconds_left = course.left()
        on_progress(
            Progress(
                step=state.step,
                steps=steps,
                terms=terms,
                images_per_second=since_report * settings.batch / (now - reported),
                seconds_left=seconds_left,
                validation=state.history[-1]["validation"] if state.history else None,
                best=state.best_loss,
            )
        )
        sums, since_report, reported = {}, 0, now
        if finished():
            break
        if stopping:
            write()
            raise Stopped(f"stopped at step {state.step}{course.of_how_many()}")
        if now - saved >= CHECKPOINT_SECONDS:
            write()
            saved = now
    if not state.history or state.history[-1]["step"] != state.step:
        look()  # resumed with fewer steps than were already made, or a budget that ran out since the last look
    write()
    model.load_state_dict(best)
    _lay_out(model.eval().to("cpu"), torch.contiguous_format)
    return state


class _Course:
    """How far training has come: by its steps or, where there is a budget, by the clock.

    ``state`` is what is trained; its step count moves on outside, the end of its pretraining is set here.
    """

    def __init__(self, settings: TrainingSettings, state: TrainingState, pretraining: int) -> None:
        self._settings = settings
        self._state = state
        self._pretraining = pretraining
        self._begun = time.perf_counter()
        self._seconds, self._step = state.seconds, state.step
        self.turned()

    def spent(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self._seconds + time.perf_counter() - self._begun

    def turned(self) -> bool:
        """Whether the pretraining has just ended: all of it is done, or half of a budget spent."""
        state, budget = self._state, self._settings.budget
        if state.pretraining is not None or (
            state.step < self._pretraining and (budget is None or self.spent() < budget / 2)
        ):
            return False
        state.pretraining = min(state.step, self._pretraining)
        if budget and state.pretraining:
            state.pretraining_seconds = self.spent()
        return True

    def past(self) -> int:
        """Steps after the pretraining."""
        return 0 if self._state.pretraining is None else self._state.step - self._state.pretraining

    def share(self) -> float:
        """How much of the training after the pretraining is done, 0 to 1 and more."""
        if self._state.pretraining is None:
            return 0.0
        if self._settings.budget is None:
            return self.past() / self._settings.steps
        before = self._state.pretraining_seconds
        left = self._settings.budget - before
        return (self.spent() - before) / left if left > 0 else 1.0

    def half(self) -> bool:
        return self.past() > 0 and self.share() >= 0.5

    def over(self) -> bool:
        return self.past() > 0 and self.share() >= 1

    def steps(self) -> int:
        """Where the last step ends; with a budget, beyond reach."""
        made = self._state.pretraining
        return (
            ENDLESS
            if self._settings.budget
            else self._settings.steps + (self._pretraining if made is None else made)
        )

    def left(self) -> tuple[int, float]:
        """How many steps it will be in all, and how many seconds from now."""
        state, budget = self._state, self._settings.budget
        # From the whole run, so that looks and checkpoints are in it.
        pace = (time.perf_counter() - self._begun) / (state.step - self._step)
        if budget is None:
            return self.steps(), pace * (self.steps() - state.step)
        seconds = max(0.0, budget - self.spent())
        return state.step + round(seconds / pace), seconds

    def of_how_many(self) -> str:
        return "" if self._settings.budget else f" of {self.steps()}"


def term_key(name: str) -> str:
    """The key of a training history under which the held-out mean of the loss term ``name`` stands.

    >>> term_key("mse")
    'validation mse'
    """
    return f"validation {name}"


def _held_out(validation: PatchSource, patch: int, settings: TrainingSettings) -> list[Tensor]:
    """Batches (N, C, P, P) of the held-out images, as many as ``VALIDATION_BYTES`` hold but at least one."""
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


def learning_rate(settings: TrainingSettings, step: int, share: float | None = None) -> float:
    """The rate of step ``step`` of ``settings.steps``: constant, along a cosine to 0, or by 1 / (1 + decay · step).

    With a budget the cosine follows the ``share`` of it that is spent.
    """
    if settings.schedule == "constant":
        return settings.learning_rate
    if settings.schedule == "inverse":
        return settings.learning_rate / (1 + settings.decay * step)
    angle = math.pi * step / settings.steps if share is None else math.pi * min(share, 1.0)
    return settings.learning_rate * 0.5 * (1 + math.cos(angle))


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
