"""Processes that fit one model together, by the strategy DDP of Lightning Fabric.

Every process runs the whole fit on the same images: it trains on its rows of each batch, and takes its share of the images
of a memory bank. Whatever depends on the clock or on a request to stop is decided by the first process alone, and so is
what is written. An error in one process ends the others with the same line.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies import DDPStrategy
from torch import Tensor

from blemish.detectors.factory import is_for_modalities
from blemish.errors import BlemishError, Stopped, UsageError
from blemish.recipes import Recipe
from blemish.storage.training_record import Machine
from blemish.training.fabric import make_fabric, without_notices

T = TypeVar("T")

LONGEST_WAIT = timedelta(hours=12)
"""For the first process, which calibrates alone. A process that ends is noticed at once, whatever this limit."""
LOST = ("onnection closed", "onnection reset", "onnection refused", "roken pipe", "gloo/transport", "NCCL")
"""Words in the errors of torch that say that another process is gone."""


class LostProcessError(BlemishError):
    """Another process of the fit has ended."""


class OtherProcessError(BlemishError):
    """An error that another process of the fit met; its message is that of the error."""


@dataclass(frozen=True)
class Place:
    """Place of one process among those of a fit."""

    local: int = 0
    """Number of the process on its machine."""
    on_machine: int = 1
    """Processes on each machine."""
    node: int = 0
    """Number of the machine."""
    nodes: int = 1
    """Machines."""
    address: str = "127.0.0.1"
    """Of the first machine."""
    port: int = 0
    """On the first machine, where the processes meet."""

    @property
    def rank(self) -> int:
        return self.node * self.on_machine + self.local

    @property
    def count(self) -> int:
        return self.nodes * self.on_machine


class Processes:
    """The processes of a fit, as one of them sees them; of one process alone all methods are trivial.

    All methods but :meth:`now` and :meth:`is_own` are collective: each process calls them, in the same order.

    Parameters
    ----------
    place: of this process.
    before: called before the processes connect.
    """

    def __init__(self, place: Place | None = None, before: Callable[[], None] = lambda: None) -> None:
        place = place or Place()
        self._before = before
        self.rank, self.count = place.rank, place.count
        self.place = place
        self._fabric: Fabric | None = None
        self._control: Any = None
        self._now = 0.0

    @property
    def is_first(self) -> bool:
        """True for the process that decides, reports and writes."""
        return self.rank == 0

    @property
    def words(self) -> str:
        """The processes as a stage names them."""
        return "" if self.count == 1 else f", {self.count} processes"

    def fabric(self, machine: Machine) -> Fabric:
        """Fabric on ``machine``, connected to the other processes."""
        if self.count == 1:
            return make_fabric(machine)
        if self._fabric is None:
            self.connect(machine)
        assert self._fabric is not None
        return self._fabric

    def connect(self, machine: Machine, *, some_unused: bool = True) -> None:
        """Meet the other processes.

        Parameters
        ----------
        machine: that each process trains on.
        some_unused: whether there are steps whose loss does not depend on all weights, as those of a pretraining.

        Raises
        ------
        LostProcessError
            When they do not come.
        """
        if self.count == 1:
            return
        if machine.device == "mps":
            raise UsageError("an Apple GPU trains in one process; leave out --processes, or train on the CPU")
        if machine.device == "cuda" and self.place.on_machine > torch.cuda.device_count():
            raise UsageError(
                f"{self.place.on_machine} processes need a GPU each, and this machine has {torch.cuda.device_count()}; "
                "give fewer processes"
            )
        self._before()
        # Weights with one channel have strides that mean nothing; nobody can act upon the warning.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        strategy = DDPStrategy(
            cluster_environment=_PlacedEnvironment(self.place),
            find_unused_parameters=some_unused,
            forward_sync_buffers=False,  # they are equal already
        )
        with lost_is_one_line(), without_notices():
            self._fabric = make_fabric(
                machine, devices=self.place.on_machine, nodes=self.place.nodes, strategy=strategy
            )
            self._fabric.launch()
            # On the CPU, so that what is agreed upon needs no synchronisation of a GPU.
            self._control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)

    def disconnect(self) -> None:
        """Leave the other processes."""
        if self._fabric is not None and dist.is_initialized():
            dist.destroy_process_group()
        self._fabric = None

    # -- decisions ---------------------------------------------------------------------------------

    def agree(self, problem: BlemishError | None = None, *, stop: bool = False) -> bool:
        """Whether the first process wants to ``stop``; after it :meth:`now` is the time of the first process.

        Raises
        ------
        BlemishError
            The ``problem``, or that of another process.
        """
        if self.count == 1:
            if problem is not None:
                raise problem
            return stop
        now = [float(stop), time.perf_counter()] if self.is_first else [0.0, 0.0]
        said = torch.tensor([float(problem is not None), *now], dtype=torch.float64)
        with lost_is_one_line():
            dist.all_reduce(said, group=self._control)
        failed, stopping, self._now = said.tolist()
        if failed:
            self._raise_first(problem)
        return bool(stopping)

    def now(self) -> float:
        """Seconds of a clock; with other processes those of the first, when they last agreed."""
        return time.perf_counter() if self.count == 1 else self._now

    def together(self, work: Callable[[], T]) -> T:
        """``work`` of each process, where all succeed.

        Raises
        ------
        BlemishError
            That of ``work``, or of another process.
        """
        if self.count == 1:
            return work()
        try:
            result = work()
        except BlemishError as error:
            self.agree(error)
            raise
        self.agree()
        return result

    def first(self, work: Callable[[], T]) -> T:
        """The result of ``work`` in the first process, for all; it is pickled.

        Raises
        ------
        BlemishError
            When ``work`` raises one.
        """
        if self.count == 1:
            return work()
        found: list[Any] = [None]
        problem: BlemishError | None = None
        if self.is_first:
            try:
                found[0] = work()
            except BlemishError as error:
                problem = error
        self.agree(problem)
        with lost_is_one_line():
            dist.broadcast_object_list(found, 0, group=self._control)
        value: T = found[0]
        return value

    def check_equal(self, value: object, problem: str) -> None:
        """Refuse values that differ between the processes.

        Raises
        ------
        UsageError
            With the text ``problem``.
        """
        expected = self.first(lambda: value)
        self.agree(UsageError(problem) if value != expected else None)

    def _raise_first(self, problem: BlemishError | None) -> None:
        """Raise the own ``problem``, or that of the first process with one."""
        lines: list[Any] = [None] * self.count
        with lost_is_one_line():
            own = problem and (str(problem), problem.exit_code, isinstance(problem, Stopped))
            dist.all_gather_object(lines, own, group=self._control)
        if problem is not None:
            raise problem
        line, exit_code, is_stop = next(line for line in lines if line is not None)
        if is_stop:
            raise Stopped(line)
        error = OtherProcessError(line)
        error.exit_code = exit_code
        raise error

    # -- figures and shares ------------------------------------------------------------------------

    def mean(self, values: Tensor) -> Tensor:
        """Mean of ``values`` over the processes."""
        if self.count == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.count

    def is_own(self, number: int) -> bool:
        """True if the image of this number is in the share of this process."""
        return number % self.count == self.rank

    def collected(self, own: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Tensors of all processes by the number of their image, on the CPU where there are others."""
        if self.count == 1:
            return dict(own)
        shapes: list[Any] = [None] * self.count
        described = [(number, tuple(value.shape), value.dtype) for number, value in own.items()]
        found: dict[int, Tensor] = {}
        with lost_is_one_line():
            dist.all_gather_object(shapes, described, group=self._control)
            for rank, parts in enumerate(shapes):
                for number, shape, dtype in parts:
                    value = (
                        own[number].cpu().contiguous()
                        if rank == self.rank
                        else torch.empty(shape, dtype=dtype)
                    )
                    dist.broadcast(value, rank, group=self._control)
                    found[number] = value
        return found


def has_unused_weights(recipe: Recipe) -> bool:
    """True if the loss of ``recipe`` does not depend on all weights of its network in every step.

    The weights of an alignment are trained before or with the others, and those of a modality only where it is present.
    """
    return recipe.alignment is not None or is_for_modalities(recipe)


def refuse_uneven_batches(recipes: Mapping[str, Recipe], processes: int) -> None:
    """Refuse batches that ``processes`` cannot divide evenly.

    Raises
    ------
    UsageError
        Naming the recipe and the nearest batch.
    """
    for recipe in recipes.values():
        batch = recipe.training.batch
        if batch % processes:
            even = max(1, round(batch / processes)) * processes
            raise UsageError(
                f"{recipe.name}: {processes} processes cannot share batches of {batch} evenly; set "
                f"training.batch={even}, or fit with another number of processes"
            )


class _PlacedEnvironment(LightningEnvironment):  # type: ignore[misc]  # untyped where lightning is not installed
    """Environment of a process that this program has started."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self._place.address

    @property
    def main_port(self) -> int:
        return self._place.port

    def local_rank(self) -> int:
        return self._place.local

    def node_rank(self) -> int:
        return self._place.node


@contextmanager
def lost_is_one_line() -> Iterator[None]:
    """Turn torch's error that another process is gone into a LostProcessError."""
    try:
        yield
    except RuntimeError as error:  # DistError among them
        if isinstance(error, dist.DistError) or any(words in str(error) for words in LOST):
            raise LostProcessError(
                "another process of this fit has ended, or cannot be reached; its own message says why"
            ) from None
        raise
