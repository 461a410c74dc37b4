"""Trainer of networks, on Lightning Fabric: device placement, precision and scaling are its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from blemish.errors import BlemishError, Stopped
from blemish.layers.shared_batch import shared_batch, shared_batch_norm
from blemish.models import Loss
from blemish.recipes.schema import TrainingSettings
from blemish.storage.training_record import Machine, TrainingLook
from blemish.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from blemish.training.contracts import Grouped, Progress, Trainable, Trimming
from blemish.training.divergence import DivergedError as DivergedError
from blemish.training.divergence import diverged, refuse_nan
from blemish.training.fabric import lay_out
from blemish.training.held_out import draws_held_out, mean_loss, mean_measures
from blemish.training.kept_memory import kept_memory
from blemish.training.loss_report import LossReport
from blemish.training.patches import PatchSource, RandomPatches, make_loader, raising
from blemish.training.plateau import PlateauWatch
from blemish.training.processes import Processes
from blemish.training.schedule import TrainingClock

VALIDATION_PATCHES = 256
VALIDATION_BYTES = 64 * 2**20
CHECKPOINT_SECONDS = 60.0
REPORT_STEPS = 10


def make_optimizer(model: nn.Module, settings: TrainingSettings, machine: Machine) -> torch.optim.Optimizer:
    """Adam over the parameter groups of ``model`` (:class:`Grouped`), or over all its parameters."""
    return torch.optim.Adam(
        model.parameter_groups() if isinstance(model, Grouped) else model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=machine.device != "mps",
    )


class Trainer:
    """Trains a module in place; it ends with the weights of the lowest held-out loss.

    A model with ``pretraining`` first makes so many steps of its ``pretraining_loss``; they count as steps, but
    neither for early stopping nor for the best weights. Each look at the held-out images adds an entry to the
    history: step, training and validation loss, and the held-out mean of every term of the loss.

    With ``settings.budget`` the clock takes the place of the steps: training ends, and a cosine reaches 0, when
    so many seconds are spent, those before an interruption included; the last step and the last look end after
    them. Pretraining ends at half of the budget at the latest.

    With ``trimming`` the images that the model at half time scores worst are left out of the second half, and
    the best weights are those of the second half. Patch i depends on (seed, i) and the list of those left out
    alone; the random draws of step k depend on (seed, k) alone. A resumed run therefore repeats an uninterrupted one
    bit for bit.

    The parts are arguments, or methods for a subclass to override:

    ========================================= =================================================================
    ``optimizer``                             :func:`make_optimizer`: module, settings and machine to optimizer
    ``clock``                                 :class:`TrainingClock`: length, phases and learning rate
    :meth:`batches`                           patches of the steps to come
    :meth:`objective`, :meth:`step`           loss of a batch; one update of the weights
    :meth:`look`, :meth:`keep_best`           held-out loss; choice of the best weights
    :attr:`is_finished`                       early stopping
    :meth:`restore`, :meth:`write`            reading and writing of checkpoints
    ``on_step``, ``on_look``, ``on_progress`` callbacks
    ========================================= =================================================================

    Parameters
    ----------
    model: a module; where it has ``parameter_groups`` (:class:`Grouped`), these are optimised.
    images, validation: sources of training and of held-out patches.
    patch: side of the patches in pixels.
    checkpoint: folder for checkpoints, written every minute and at the end; None writes none.
    identity: facts that a checkpoint must share with this run to be resumed; compared key by key.
    resume: continue from ``checkpoint``; one that has all its steps, or spent its budget, is only finished.
    pretrained: whether the model comes with its pretraining done.
    trimming: finds the worst of ``images`` and leaves them out; None leaves out none.
    plateau: compares modalities at each look, and helps those that stay at a constant.
    processes: that train together, each on its rows of every batch; by default there is one. The length, the rate and
        interruptions follow the first of them, which alone reads and writes checkpoints.
    stop: asked once after every step, by the first process before it; when it returns True a checkpoint is written and training ends.
    on_step: called after every update with the number of steps made and the loss of the batch.
    on_look: called with every look at the held-out images.
    on_progress: called after some steps, and after every look.
    """

    fabric: Fabric
    wrapped: Any
    """The model as Fabric wraps it."""
    optimizer: Any
    """The optimizer as Fabric wraps it."""
    state: TrainingState
    best: dict[str, Tensor]
    """Weights of the lowest held-out loss so far."""
    clock: TrainingClock
    held_out: list[Tensor]
    """Batches (N, C, P, P), the same at every look: a curve shows the progress and not the draw."""

    def __init__(
        self,
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
        plateau: PlateauWatch | None = None,
        optimizer: Callable[[nn.Module, TrainingSettings, Machine], torch.optim.Optimizer] = make_optimizer,
        clock: Callable[[TrainingSettings, TrainingState, int], TrainingClock] = TrainingClock,
        stop: Callable[[], bool] = lambda: False,
        on_step: Callable[[int, Loss], None] = lambda step, loss: None,
        on_look: Callable[[TrainingLook], None] = lambda look: None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        processes: Processes | None = None,
    ) -> None:
        self._pretraining = model.pretraining
        assert isinstance(model, nn.Module)
        self.model, self.images, self.validation = model, images, validation
        self.settings, self.patch, self.machine = settings, patch, machine
        self.checkpoint, self.identity, self.resume = checkpoint, identity, resume
        self.pretrained, self.trimming, self.plateau = pretrained, trimming, plateau
        self.stop, self.on_step, self.on_look, self.on_progress = stop, on_step, on_look, on_progress
        self._make_optimizer, self._make_clock = optimizer, clock
        self.processes = processes or Processes()

    def run(self) -> TrainingState:
        """Train until the steps are made, the budget is spent, or patience ends.

        Raises
        ------
        Stopped
            When ``stop`` returned True.
        DivergedError
            When a loss term is not finite; names the term and the step, the last checkpoint stays.
        ImageError, ModelError
            When an image can no longer be read, or the checkpoint cannot be resumed.
        """
        with kept_memory(), shared_batch_norm(self.model) if self.processes.count > 1 else nullcontext():
            return self._run()

    def _run(self) -> TrainingState:
        self._begin()
        for batch in self.batches():
            loss = self.step(batch)
            self._report.add(loss)
            self.on_step(self.state.step, loss)
            if self._after_step():
                break
        if not self.state.history or self.state.history[-1].step != self.state.step:
            self.look()  # resumed with fewer steps than were already made, or a budget that ran out since the last look
        self.write()
        if self.plateau is not None:
            self.plateau.pause()
        self.model.load_state_dict(self.best)
        lay_out(self.model.eval().to("cpu"), torch.contiguous_format)
        return self.state

    def _begin(self) -> None:
        self.fabric = self.processes.fabric(self.machine)
        lay_out(self.model, torch.channels_last)
        optimizer = self._make_optimizer(self.model, self.settings, self.machine)
        self.wrapped, self.optimizer = self.fabric.setup(self.model, optimizer)
        self.wrapped.mark_forward_method("loss")
        self.wrapped.mark_forward_method("pretraining_loss")
        self.restore()
        self.processes.agree()
        if self.plateau is not None:
            self.plateau.restore(self.state.history)
        self.clock = self._make_clock(self.settings, self.state, self._pretraining)
        if self.processes.count > 1:
            self.clock.follow(self.processes.now)
        self.held_out = _held_out(self.validation, self.patch, self.settings)
        self._saved = self.processes.now()
        self._report = LossReport(self._saved)
        self._loss_since_look = torch.tensor(self.state.loss_since_look, device=self.fabric.device)
        self.model.train()

    # -- batches and steps -------------------------------------------------------------------------

    def batches(self) -> Iterator[Tensor]:
        """Batches (N, C, P, P) of the steps to come; a new loader where the images change."""
        while not self.is_finished:
            if self._trims_now():
                self._leave_out_the_worst()
            left_out = self.state.left_out
            drawn = self.trimming.without(left_out) if self.trimming and left_out else self.images
            for batch in self._agreed(self._loader(drawn)):
                yield batch
                if self._trims_now():
                    break
            else:
                return

    def _agreed(self, loader: Any) -> Iterator[Tensor]:
        """Batches of ``loader`` on the device; with several processes, after all of them have theirs."""
        batches = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        if self.processes.count == 1:
            yield from raising(batches)
            return
        for batch in batches:
            problem = batch if isinstance(batch, BlemishError) else None
            self._stopping = self.processes.agree(problem, stop=self.processes.is_first and self.stop())
            yield batch

    def _loader(self, drawn: PatchSource) -> Any:
        batch = self.settings.batch
        patches = RandomPatches(
            drawn,
            self.patch,
            seed=self.settings.seed,
            start=self.state.step * batch,
            stop=self.clock.steps * batch,
        )
        # Images that are kept are cheaper to cut than to send between processes.
        workers = 0 if drawn.at_hand else 2
        rank, processes = self.processes.rank, self.processes.count
        return make_loader(patches, batch, workers=workers, rank=rank, processes=processes)

    def objective(self, batch: Tensor) -> Loss:
        """Loss of ``batch``: that of the pretraining until its end, then the model's own."""
        in_pretraining = self.state.pretraining is None
        loss: Loss = self.wrapped.pretraining_loss(batch) if in_pretraining else self.wrapped.loss(batch)
        return loss

    def step(self, batch: Tensor) -> Loss:
        """Update the weights by one batch."""
        # A step's draws (noise, latents) depend on (seed, step) alone, so a resumed run repeats them.
        torch.manual_seed(_step_seed(self.settings.seed, self.state.step))
        rate = self.clock.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("pace", 1.0)
        together = shared_batch(self.processes.rank, self.processes.count)
        with together, self.fabric.autocast():  # which Fabric itself opens around forward alone
            loss = self.objective(batch.to(memory_format=torch.channels_last))
        self.optimizer.zero_grad(set_to_none=True)
        with shared_batch(self.processes.rank, self.processes.count):
            self.fabric.backward(loss.total)
        self.optimizer.step()
        self.state.step += 1
        if self.state.pretraining is not None:
            self._loss_since_look += loss.total.detach()
        return loss

    def _after_step(self) -> bool:
        """Look, report and write a checkpoint where they are due; whether training is finished.

        Raises
        ------
        Stopped
            When ``stop`` returned True before the last step.
        """
        pretraining_ended = self.clock.ends_pretraining()
        stopping = self.stop() if self.processes.count == 1 else self._stopping
        look_due = self.clock.is_look_due
        # A report never mixes the terms of two phases.
        if not (look_due or stopping or self._report.count >= REPORT_STEPS or pretraining_ended):
            return False
        terms = self._report.means(self.processes)
        refuse_nan(terms, self.state.step, self.checkpoint)
        if look_due:
            self.look()
        now = self.processes.now()
        self.on_progress(self._progress(terms, now))
        self._report = LossReport(now)
        if self.is_finished:
            return True
        if stopping:
            self.write()
            raise Stopped(f"stopped at step {self.state.step}{self.clock.of_all}")
        if now - self._saved >= CHECKPOINT_SECONDS:
            self.write()
            self._saved = now
        return False

    def _progress(self, terms: dict[str, float], now: float) -> Progress:
        state = self.state
        steps, seconds_left = self.clock.remaining()
        return Progress(
            step=state.step,
            steps=steps,
            terms=terms,
            images_per_second=self._report.count * self.settings.batch / max(now - self._report.begun, 1e-9),
            seconds_left=seconds_left,
            validation=state.history[-1].validation if state.history else None,
            best=state.best_loss,
        )

    # -- held-out loss and early stopping ----------------------------------------------------------

    @property
    def is_finished(self) -> bool:
        """True if the length is reached, or as many looks as ``patience`` brought no gain.

        Patience does not end a training whose worst images have yet to be left out.
        """
        if self.clock.is_over:
            return True
        return self.state.looks_without_gain >= self.settings.patience and not self._trims

    def look(self) -> TrainingLook:
        """Compute the held-out loss, add it to the history, and keep the best weights."""
        state = self.state
        # The same draws (noise, latents) at every look; the next step seeds its own.
        torch.manual_seed(_step_seed(self.settings.seed + 1, 0))
        if self.plateau is not None:
            self.plateau.pause()
        shared = None if draws_held_out(self.model) else self.processes
        loss, terms = mean_loss(self.wrapped, self.held_out, self.fabric, shared)
        refuse_nan({"validation": loss}, state.step, self.checkpoint)
        since = max(state.history[-1].step if state.history else 0, state.pretraining or 0)
        training = float(self.processes.mean(self._loss_since_look)) / (state.step - since)
        measures = mean_measures(self.model, self.wrapped, self.held_out, self.fabric, shared)
        if self.plateau is not None:
            measures |= self.processes.first(partial(self.plateau.look, state.step))
        look = TrainingLook(
            step=state.step, training=training, validation=loss, terms=terms, measures=measures
        )
        state.history.append(look)
        if self.plateau is not None:
            self.plateau.restore(state.history)
        self._loss_since_look.zero_()
        self.keep_best(loss)
        self.on_look(look)
        return look

    def keep_best(self, loss: float) -> None:
        """Keep the weights if ``loss`` is the lowest held-out loss so far; else count a look without gain."""
        state = self.state
        if state.best_loss is None or loss < state.best_loss:
            state.best_loss, state.best_step, state.looks_without_gain = loss, state.step, 0
            self.best = _copy(self.model)
        else:
            state.looks_without_gain += 1

    # -- the worst images left out -----------------------------------------------------------------

    @property
    def _trims(self) -> bool:
        """True if the worst images have yet to be left out."""
        return self.trimming is not None and self.state.left_out is None

    def _trims_now(self) -> bool:
        return self._trims and self.clock.is_half_time

    def _leave_out_the_worst(self) -> None:
        assert self.trimming is not None
        try:
            self.state.left_out = sorted(self.trimming.worst())
        except Stopped:
            self.write()
            raise
        finally:
            self.wrapped.train()
        self.state.best_loss, self.state.looks_without_gain = None, 0

    # -- checkpoints -------------------------------------------------------------------------------

    def restore(self) -> None:
        """Set state and best weights to those of the checkpoint, if this run resumes one; else to the first."""
        self.state = TrainingState(pretraining=0 if self.pretrained else None)
        self.best = _copy(self.model)
        found = self.processes.first(self._restored)
        if found is not None:
            self.state, self.best, tensors = found
            if tensors is not None and not self.processes.is_first:
                self.model.load_state_dict(tensors[0])
                self.optimizer.load_state_dict(tensors[1])

    def _restored(self) -> tuple[TrainingState, dict[str, Tensor], Any] | None:
        """State and best weights of the checkpoint; for other processes, those of the model and the optimizer too."""
        if not self.resume or self.checkpoint is None:
            return None
        state, best = load_checkpoint(self.checkpoint, self.identity, self.model, self.optimizer)
        if self.processes.count == 1:
            return state, best, None
        return state, best, (_copy(self.model), self.optimizer.state_dict())

    def write(self) -> None:
        """Bring the state up to date, and write a checkpoint if there is a folder for it.

        Raises
        ------
        DivergedError
            When a weight is not finite; nothing is written.
        """
        state = self.state
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise diverged("the weights are no longer numbers after", state.step, self.checkpoint)
        state.seconds = self.clock.spent
        self._loss_since_look = self.processes.mean(self._loss_since_look)
        state.loss_since_look = float(self._loss_since_look)
        if self.checkpoint:
            save_checkpoint(self.checkpoint, self.identity, state, self.model, self.best, self.optimizer)


def train(
    model: Trainable,
    images: PatchSource,
    validation: PatchSource,
    settings: TrainingSettings,
    **options: Any,
) -> TrainingState:
    """Train ``model`` in place by a :class:`Trainer` of the same arguments."""
    return Trainer(model, images, validation, settings, **options).run()


def _held_out(validation: PatchSource, patch: int, settings: TrainingSettings) -> list[Tensor]:
    """Batches (N, C, P, P) of the held-out images, as many as ``VALIDATION_BYTES`` hold but at least one."""
    patches = RandomPatches(validation, patch, seed=settings.seed + 1, start=0, stop=VALIDATION_PATCHES)
    batches: list[Tensor] = []
    for batch in raising(make_loader(patches, settings.batch)):
        batches.append(batch)
        if sum(kept.nbytes for kept in batches) + batch.nbytes > VALIDATION_BYTES:
            break
    return batches


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


def _copy(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
