from __future__ import annotations

import json
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blemish.data.items import Item
from blemish.errors import ImageError, ModelError, Stopped
from blemish.models import Autoencoder, Loss, build
from blemish.models.contracts import Aligned, Alignment
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes import load_recipe, override
from blemish.recipes.schema import TrainingSettings
from blemish.storage.training_record import Machine, TrainingLook
from blemish.training import schedule
from blemish.training import trainer as loop
from blemish.training.checkpoint import TrainingState
from blemish.training.contracts import Progress, Trimming
from blemish.training.patches import PreprocessedImages, RandomPatches, make_loader, raising
from blemish.training.schedule import learning_rate
from blemish.training.trainer import DivergedError, Trainer, make_optimizer, train


def cpu(precision: str = "float32") -> Machine:
    return Machine(device="cpu", processor="test", precision=precision, native_bfloat16=False, torch="test")


CPU = cpu()
SMALL = [
    "patch.size=32",
    "patch.stride=16",
    "training.batch=4",
    "training.steps=20",
    "training.validate_every=6",
    "training.learning_rate=0.001",
]
# Much narrower than the encoder and decoder of the recipe, for quick steps.
NARROW = [f"{part}={{name: kumar, widths: [4, 8, 8, 8]}}" for part in ("encoder", "decoder")]
IDENTITY: dict[str, Any] = {"name": "l2-ae"}


@pytest.fixture(autouse=True)
def few_held_out_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "VALIDATION_PATCHES", 10)  # two batches of 4 and a partial one


class Run:
    """One training of a small network on the test's images, with random draws in its bottleneck."""

    def __init__(self, items: list[Item], preparation: Preprocessing) -> None:
        self.items = items
        self.preparation = preparation

    def images(self, limit: int = 2**30) -> PreprocessedImages:
        return PreprocessedImages(self.items, self.preparation, memory_limit=limit, disk_limit=0)

    def __call__(
        self,
        *settings: str,
        recipe: str = "l2-ae",
        machine: Machine = CPU,
        limit: int = 2**30,
        checkpoint: Path | None = None,
        prepare: Callable[[Autoencoder], None] = lambda model: None,
        **options: Any,
    ) -> tuple[Autoencoder, TrainingState]:
        network = NARROW if recipe == "l2-ae" else ["encoder.latent=8"]
        chosen = override(load_recipe(recipe), [*SMALL, *network, *settings])
        torch.manual_seed(chosen.training.seed)
        model = build(chosen, 1)
        assert isinstance(model.encoder.layers, nn.Sequential)
        model.encoder.layers.append(nn.Dropout(0.1))
        prepare(model)
        images = self.images(limit)
        state = train(
            model,
            images,
            images,
            chosen.training,
            patch=32,
            machine=machine,
            checkpoint=checkpoint,
            identity=IDENTITY,
            **options,
        )
        return model, state

    def held_out_loss(self, model: Autoencoder, seed: int = 0) -> float:
        patches = RandomPatches(self.images(), 32, seed=seed + 1, start=0, stop=10)
        with torch.no_grad():
            return model.loss(torch.cat(list(raising(make_loader(patches, 10))))).total.item()


@pytest.fixture
def run(items: list[Item], preparation: Preprocessing) -> Run:
    return Run(items, preparation)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return model.state_dict()


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_time(state: TrainingState) -> dict[str, Any]:
    return {key: value for key, value in asdict(state).items() if key != "seconds"}


def stop_at(step: int) -> Callable[[], bool]:
    """Yes when asked for the ``step``-th time; it is asked once a step."""
    asked = iter(range(1, 10_000))
    return lambda: next(asked) >= step


@pytest.mark.parametrize("recipe", ["l2-ae", "ssim-ae"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_loss_goes_down(run: Run, recipe: str, precision: str) -> None:
    _, state = run("training.steps=40", recipe=recipe, machine=cpu(precision))
    first, last = state.history[0], state.history[-1]
    assert last.training < first.training
    assert last.validation < first.validation
    assert [look.step for look in state.history] == [6, 12, 18, 24, 30, 36, 40]
    assert state.step == 40
    assert state.seconds > 0


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_network_computes_in_the_precision_of_the_machine(
    run: Run, precision: str, dtype: torch.dtype
) -> None:
    seen: set[tuple[bool, torch.dtype]] = set()

    def watch(model: Autoencoder) -> None:
        model.encoder.register_forward_hook(lambda module, _, y: seen.add((module.training, y.dtype)))

    run(prepare=watch, machine=cpu(precision))
    assert seen == {(True, dtype), (False, dtype)}, "in training and at the looks"


def test_the_model_ends_in_evaluation_on_the_cpu_in_full_precision(run: Run) -> None:
    model, _ = run(machine=cpu("bfloat16"))
    assert not model.training
    for value in model.parameters():
        assert (value.device.type, value.dtype, value.is_contiguous()) == ("cpu", torch.float32, True)


def test_the_same_seed_gives_the_same_weights(run: Run) -> None:
    (first, state), (again, state_again), (other, _) = run(), run(), run("training.seed=1")
    assert same(first, again)
    assert without_time(state) == without_time(state_again)
    assert not same(first, other)


def test_images_from_disk_give_the_same_weights(run: Run) -> None:
    assert same(run(limit=0)[0], run()[0])


@pytest.mark.parametrize("step", [1, 6, 13, 19])
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    run: Run, tmp_path: Path, step: int
) -> None:
    whole, state = run()
    with pytest.raises(Stopped, match=f"^stopped at step {step} of 20$"):
        run(checkpoint=tmp_path / "c", stop=stop_at(step))
    resumed, resumed_state = run(checkpoint=tmp_path / "c", resume=True)
    assert same(resumed, whole)
    assert without_time(resumed_state) == without_time(state)


def test_a_run_interrupted_repeatedly_equals_an_uninterrupted_one(run: Run, tmp_path: Path) -> None:
    whole, state = run("training.steps=10")
    for done in (3, 6, 9):
        with pytest.raises(Stopped, match=f"step {done} of"):
            run("training.steps=10", checkpoint=tmp_path / "c", resume=done > 3, stop=stop_at(3))
    resumed, resumed_state = run("training.steps=10", checkpoint=tmp_path / "c", resume=True)
    assert same(resumed, whole)
    assert without_time(resumed_state) == without_time(state)


def script(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let the looks see ``losses``, one after the other."""
    remaining: Iterator[float] = iter(losses)
    monkeypatch.setattr(loop, "mean_loss", lambda *arguments: (next(remaining), {}))


EARLY = ["training.steps=50", "training.validate_every=2", "training.patience=3"]
LOSSES = [3.0, 2.0, 2.5, 1.0, 1.5, 1.0, 1.2, 0.1]


def test_training_stops_after_looks_without_gain(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, LOSSES)
    _, state = run(*EARLY)
    assert [look.validation for look in state.history] == LOSSES[:7]
    assert (state.step, state.best_step, state.best_loss, state.looks_without_gain) == (14, 8, 1.0, 3)


@pytest.mark.parametrize("step", [7, 9, 12])
def test_patience_goes_on_counting_after_an_interruption(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    script(monkeypatch, LOSSES)
    whole, state = run(*EARLY)
    script(monkeypatch, LOSSES)
    with pytest.raises(Stopped):
        run(*EARLY, checkpoint=tmp_path / "c", stop=stop_at(step))
    resumed, resumed_state = run(*EARLY, checkpoint=tmp_path / "c", resume=True)
    assert same(resumed, whole)
    assert without_time(resumed_state) == without_time(state)


def test_resuming_after_an_early_stop_trains_no_further(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, LOSSES)
    model, state = run(*EARLY, checkpoint=tmp_path / "c")
    again, state_again = run(*EARLY, checkpoint=tmp_path / "c", resume=True)
    assert same(again, model)
    assert without_time(state_again) == without_time(state)


def test_more_patience_goes_on_after_an_early_stop(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, LOSSES)
    run(*EARLY, checkpoint=tmp_path / "c")
    _, state = run(*EARLY, "training.patience=4", "training.steps=16", checkpoint=tmp_path / "c", resume=True)
    assert (state.step, state.best_step, state.best_loss) == (16, 16, 0.1)


def test_the_best_weights_are_restored(run: Run) -> None:
    trained: list[Autoencoder] = []

    def corrupt(progress: Progress) -> None:
        if progress.step == 12:
            with torch.no_grad():
                for parameter in trained[0].parameters():
                    parameter.mul_(3)

    model, state = run(prepare=trained.append, on_progress=corrupt)
    assert state.best_loss is not None
    assert state.best_step == 12
    assert state.best_loss == min(look.validation for look in state.history)
    assert run.held_out_loss(model) == pytest.approx(state.best_loss, rel=1e-6)
    assert state.history[-1].validation > 1.1 * state.best_loss


def test_the_history_holds_the_mean_training_loss_between_looks(run: Run) -> None:
    seen: list[Progress] = []
    _, state = run("training.validate_every=5", "training.steps=12", on_progress=seen.append)
    assert [(p.step, look.step) for p, look in zip(seen, state.history, strict=True)] == [
        (5, 5),
        (10, 10),
        (12, 12),
    ]
    for progress, look in zip(seen, state.history, strict=True):
        assert look.training == pytest.approx(sum(progress.terms.values()), rel=1e-5)


def test_the_history_holds_the_held_out_mean_of_every_term(run: Run) -> None:
    model, state = run(recipe="vae")
    for look in state.history:
        assert look.terms.keys() == model.loss(torch.zeros(1, 1, 32, 32)).terms.keys()
        assert sum(look.terms.values()) == pytest.approx(look.validation, rel=1e-5)
    assert state.history[0].terms != state.history[-1].terms


class Line(nn.Module):
    """A loss with a slope of 1 for two numbers, of which the second is to move at a ``pace`` of its own."""

    pretraining = 0

    def __init__(self, pace: float) -> None:
        super().__init__()
        self.usual, self.paced = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.pace = pace

    def loss(self, batch: Tensor) -> Loss:
        terms = {"usual": self.usual, "paced": self.paced, "images": batch.mean()}
        return Loss(torch.stack(list(terms.values())).sum(), terms)

    def pretraining_loss(self, batch: Tensor) -> Loss:
        raise AssertionError("there is none")

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.usual]}, {"params": [self.paced], "pace": self.pace}]


@pytest.mark.parametrize("pace", [0.0, 0.25, 3.0])
def test_a_group_moves_at_its_pace_beside_the_schedule(run: Run, tmp_path: Path, pace: float) -> None:
    settings = TrainingSettings(
        steps=8, batch=2, learning_rate=0.01, schedule="cosine", weight_decay=0, validate_every=8
    )

    def trained(steps: int = 8, **options: Any) -> Line:
        line = Line(pace)
        chosen = settings.model_copy(update={"steps": steps})
        images = run.images()
        train(
            line, images, images, chosen, patch=32, machine=CPU, checkpoint=tmp_path / "c", identity={}, **options
        )  # fmt: skip
        return line

    # The slope never changes, so each step of Adam is as long as its learning rate.
    line = trained()
    way = sum(learning_rate(settings, step) for step in range(8))
    assert line.usual.item() == pytest.approx(-way, rel=1e-4)
    assert line.paced.item() == pytest.approx(-pace * way, rel=1e-4)
    with pytest.raises(Stopped):
        trained(stop=stop_at(3))
    assert same(trained(resume=True), line)


def test_progress_is_reported(run: Run) -> None:
    seen: list[Progress] = []
    _, state = run("training.steps=35", "training.validate_every=15", on_progress=seen.append)
    assert [progress.step for progress in seen] == [10, 15, 25, 30, 35]
    assert all(progress.steps == 35 for progress in seen)
    assert all(progress.terms.keys() == {"mse"} for progress in seen)
    assert all(progress.images_per_second > 0 for progress in seen)
    assert all(progress.seconds_left > 0 for progress in seen[:-1])
    assert seen[-1].seconds_left == 0
    assert (seen[0].validation, seen[0].best) == (None, None)
    assert [seen[index].validation for index in (1, 3, 4)] == [look.validation for look in state.history]
    assert seen[-1].best == state.best_loss


def test_a_stop_in_the_last_step_finishes(run: Run, tmp_path: Path) -> None:
    model, state = run(checkpoint=tmp_path / "c", stop=stop_at(20))
    whole, whole_state = run()
    assert same(model, whole)
    assert without_time(state) == without_time(whole_state)


def test_resuming_a_complete_training_gives_the_same_model(run: Run, tmp_path: Path) -> None:
    model, state = run(checkpoint=tmp_path / "c")
    again, state_again = run(checkpoint=tmp_path / "c", resume=True)
    assert same(again, model)
    assert without_time(state_again) == without_time(state)
    assert state_again.seconds >= state.seconds


@pytest.mark.parametrize("step", [3, 13])
def test_resuming_with_fewer_steps_than_made_finishes(run: Run, tmp_path: Path, step: int) -> None:
    with pytest.raises(Stopped):
        run(checkpoint=tmp_path / "c", stop=stop_at(step))
    model, state = run("training.steps=2", checkpoint=tmp_path / "c", resume=True)
    assert state.step == state.history[-1].step == step
    assert state.best_loss == min(look.validation for look in state.history)
    assert run.held_out_loss(model) == pytest.approx(state.best_loss, rel=1e-6)


def test_more_steps_than_planned_go_on(run: Run, tmp_path: Path) -> None:
    run("training.steps=12", checkpoint=tmp_path / "c")
    longer, _ = run("training.steps=18", checkpoint=tmp_path / "c", resume=True)
    assert same(longer, run("training.steps=18")[0])


def test_a_checkpoint_of_another_recipe_is_refused(run: Run, tmp_path: Path) -> None:
    run("training.steps=1", checkpoint=tmp_path / "c")
    text = (tmp_path / "c" / "state.json").read_text()
    (tmp_path / "c" / "state.json").write_text(text.replace('"l2-ae"', '"ssim-ae"'))
    with pytest.raises(ModelError, match="made with another name"):
        run("training.steps=1", checkpoint=tmp_path / "c", resume=True)


def test_checkpoints_are_written_while_training(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    written: list[str] = []

    def look(progress: Progress) -> None:
        written.extend(path.name for path in (tmp_path / "c").glob("*.safetensors"))

    run("training.steps=30", "training.validate_every=30", checkpoint=tmp_path / "c", on_progress=look)
    assert written == ["state-10.safetensors", "state-20.safetensors"]


def test_without_a_folder_nothing_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Stopped):
        run(stop=stop_at(3))
    assert sorted(tmp_path.rglob("*")) == before


def test_divergence_names_the_term_and_keeps_the_checkpoint(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with pytest.raises(Stopped):
        run(checkpoint=folder, stop=stop_at(3))
    kept = {path: path.read_bytes() for path in folder.iterdir()}

    def break_term(model: Autoencoder) -> None:
        model.loss_terms["mse"].register_forward_hook(lambda module, pair, value: value * float("nan"))

    with pytest.raises(DivergedError, match=r"^loss term 'mse' became nan by step") as caught:
        run(checkpoint=folder, resume=True, prepare=break_term)
    assert str(folder) in str(caught.value)
    assert "training.learning_rate" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in folder.iterdir()} == kept


def test_weights_that_are_no_numbers_never_replace_a_good_checkpoint(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with pytest.raises(Stopped):
        run(checkpoint=folder, stop=stop_at(3))
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    models: list[Autoencoder] = []

    def corrupt_and_stop() -> bool:  # asked after the step, so every loss was still finite
        with torch.no_grad():
            next(models[0].parameters()).fill_(float("nan"))
        return True

    with pytest.raises(DivergedError, match="the weights are no longer numbers after step 4"):
        run(checkpoint=folder, resume=True, prepare=models.append, stop=corrupt_and_stop)
    assert {path: path.read_bytes() for path in folder.iterdir()} == kept


class Shift(Alignment):
    """Learns in pretraining to add what brings images to mid-grey; takes no part in the loss itself."""

    pretraining = 9

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Aligned:
        return Aligned(x + self.shift.detach(), x.new_zeros(len(x)))

    def restore(self, y: Tensor, aligned: Aligned) -> Tensor:
        return y - self.shift.detach()

    def pretraining_loss(self, x: Tensor) -> dict[str, Tensor]:
        return {"grey": ((x + self.shift).mean() - 0.5).square()}


def with_shift(model: Autoencoder) -> None:
    model.alignment = Shift()


def test_pretraining_comes_first_and_is_not_counted_for_looks(run: Run) -> None:
    seen: list[Progress] = []
    shifts: list[float] = []
    models: list[Autoencoder] = []

    def remember(model: Autoencoder) -> None:
        with_shift(model)
        models.append(model)

    def watch(progress: Progress) -> None:
        seen.append(progress)
        assert isinstance(models[0].alignment, Shift)
        shifts.append(models[0].alignment.shift.item())

    _, state = run(prepare=remember, on_progress=watch)
    assert [(p.step, p.steps, list(p.terms)) for p in seen] == [
        (9, 29, ["grey"]),
        (15, 29, ["mse"]),
        (21, 29, ["mse"]),
        (27, 29, ["mse"]),
        (29, 29, ["mse"]),
    ]
    assert [look.step for look in state.history] == [15, 21, 27, 29]
    assert shifts[0] != 0
    assert set(shifts) == {shifts[0]}
    # Their autoencoder then learns what one that had no pretraining learns in as many steps.
    for progress, look in zip(seen[1:], state.history, strict=True):
        assert look.training > 0
        assert progress.validation == look.validation
    assert state.history[0].training == pytest.approx(seen[1].terms["mse"], rel=1e-5)


@pytest.mark.parametrize("step", [4, 9, 13])
def test_a_run_interrupted_in_or_after_pretraining_equals_an_uninterrupted_one(
    run: Run, tmp_path: Path, step: int
) -> None:
    whole, uninterrupted = run(prepare=with_shift)
    with pytest.raises(Stopped, match=f"stopped at step {step} of 29"):
        run(prepare=with_shift, checkpoint=tmp_path / "c", stop=stop_at(step))
    resumed, state = run(prepare=with_shift, checkpoint=tmp_path / "c", resume=True)
    assert same(whole, resumed)
    assert without_time(state) == without_time(uninterrupted)


@pytest.mark.parametrize("steps", [1, 20])
def test_a_learning_rate_that_explodes_is_refused(run: Run, tmp_path: Path, steps: int) -> None:
    # After a single step the training loss is still a number; the look at the held-out images tells.
    with pytest.raises(DivergedError, match=r"lower training\.learning_rate"):
        run("training.learning_rate=1e30", f"training.steps={steps}", checkpoint=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_an_image_lost_while_training_from_disk_is_named(run: Run) -> None:
    def lose(progress: Progress) -> None:
        run.items[1].path.unlink(missing_ok=True)

    with pytest.raises(ImageError) as caught:
        run("training.steps=200", limit=0, on_progress=lose)
    assert caught.value.path == run.items[1].path
    assert "\n" not in str(caught.value)


def test_an_interrupt_leaves_the_loader_its_workers(run: Run) -> None:
    interrupted: list[int] = []

    def interrupt(progress: Progress) -> None:
        for child in active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGINT)
            interrupted.append(child.pid)

    _, state = run("training.steps=40", limit=0, on_progress=interrupt)
    assert state.step == 40
    assert len(set(interrupted)) == 2


def test_the_framework_prints_nothing_and_leaves_logging_and_threads_unchanged(run: Run) -> None:
    from lightning_utilities.core import rank_zero

    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    rank_zero.log.addHandler(handler)
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run("training.steps=1", machine=cpu("bfloat16"))
        assert records == []
        rank_zero.log.info("heard")
        assert records == ["heard"]
    finally:
        rank_zero.log.removeHandler(handler)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("limit", "batches"), [(0, [4]), (3 * 4 * 32 * 32, [4]), (2**26, [4, 4, 2])])
def test_held_out_patches_fit_the_memory_limit_but_fill_one_batch_at_least(
    run: Run, monkeypatch: pytest.MonkeyPatch, limit: int, batches: list[int]
) -> None:
    monkeypatch.setattr(loop, "VALIDATION_BYTES", limit)
    settings = override(load_recipe("l2-ae"), SMALL).training
    held_out = loop._held_out(run.images(), 32, settings)
    assert [len(batch) for batch in held_out] == batches


# -- a budget of time ----------------------------------------------------------------------------------


class Clock:
    """A second for each step: the loop asks once a step whether to stop."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def ticking(self, stop: Callable[[], bool] = lambda: False) -> Callable[[], bool]:
        def tick() -> bool:
            self.now += 1
            return stop()

        return tick


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(schedule.time, "perf_counter", clock)
    return clock


BUDGET = ["training.budget=12s", "training.schedule=cosine", "training.steps=1"]


def test_a_budget_holds_the_steps_that_fit_in_it_and_anneals_over_them(run: Run, clock: Clock) -> None:
    rates: list[float] = []

    def watch(model: Autoencoder) -> None:
        original = schedule.learning_rate

        def spy(*arguments: Any) -> float:
            rates.append(original(*arguments))
            return rates[-1]

        monkeypatch.setattr(schedule, "learning_rate", spy)

    with pytest.MonkeyPatch.context() as monkeypatch:
        model, state = run(*BUDGET, stop=clock.ticking(), prepare=watch)
    assert (state.step, state.seconds) == (12, 12.0)
    assert [look.step for look in state.history] == [6, 12]
    settings = TrainingSettings(steps=12, learning_rate=0.001, schedule="cosine")
    assert rates == pytest.approx([learning_rate(settings, step) for step in range(12)])
    counted, _ = run("training.steps=12", "training.schedule=cosine", stop=clock.ticking())
    for name, value in weights(counted).items():
        torch.testing.assert_close(weights(model)[name], value)


@pytest.mark.parametrize("step", [1, 6, 11])
def test_a_resumed_run_has_the_rest_of_the_budget(run: Run, clock: Clock, tmp_path: Path, step: int) -> None:
    whole, state = run(*BUDGET, stop=clock.ticking())
    with pytest.raises(Stopped, match=f"^stopped at step {step}$"):
        run(*BUDGET, checkpoint=tmp_path / "c", stop=clock.ticking(stop_at(step)))
    clock.now += 1000  # away from work
    resumed, resumed_state = run(*BUDGET, checkpoint=tmp_path / "c", resume=True, stop=clock.ticking())
    assert same(resumed, whole)
    assert asdict(resumed_state) == asdict(state)
    again, state_again = run(*BUDGET, checkpoint=tmp_path / "c", resume=True, stop=clock.ticking())
    assert same(again, whole)
    assert state_again.step == 12


def test_a_spent_budget_is_only_evaluated_and_finished(run: Run, clock: Clock, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(*BUDGET, checkpoint=tmp_path / "c", stop=clock.ticking(stop_at(8)))
    shorter = [*BUDGET, "training.budget=3s"]
    _, state = run(*shorter, checkpoint=tmp_path / "c", resume=True, stop=clock.ticking())
    assert (state.step, state.history[-1].step) == (8, 8)


def test_the_smallest_budget_still_makes_a_step(run: Run, clock: Clock) -> None:
    _, state = run(*BUDGET, "training.budget=0.001", prepare=with_shift, stop=clock.ticking())
    # The clock of this test moves between two steps, so the pretraining, of nine, ends with its second.
    assert (state.step, state.best_step, state.pretraining) == (3, 3, 2)


def test_progress_reports_the_seconds_left_of_a_budget(run: Run, clock: Clock) -> None:
    seen: list[Progress] = []
    run(*BUDGET, "training.budget=24s", stop=clock.ticking(), on_progress=seen.append)
    assert [(p.step, p.steps, p.seconds_left) for p in seen] == [
        (step, 24, 24.0 - step) for step in (6, 12, 18, 24)
    ]


def test_pretraining_takes_half_of_a_budget_at_most(run: Run, clock: Clock, tmp_path: Path) -> None:
    def trained(budget: int, **options: Any) -> TrainingState:
        stop = clock.ticking(options.pop("stop", lambda: False))
        return run(*BUDGET, f"training.budget={budget}s", prepare=with_shift, stop=stop, **options)[1]

    whole = trained(30)  # of nine steps of pretraining, all are made
    assert (whole.step, whole.pretraining, whole.history[0].step) == (30, 9, 15)
    short = trained(10)
    assert short.pretraining == 6  # the clock moves after the step
    assert short.step == short.history[-1].step == 10
    for step in (3, 8):
        with pytest.raises(Stopped):
            trained(10, checkpoint=tmp_path / "c", stop=stop_at(step))
        assert asdict(trained(10, checkpoint=tmp_path / "c", resume=True)) == asdict(short)


def test_a_pretrained_model_is_not_pretrained_again(run: Run) -> None:
    models: list[Autoencoder] = []

    def remember(model: Autoencoder) -> None:
        with_shift(model)
        models.append(model)

    _, state = run(prepare=remember, pretrained=True)
    assert (state.step, state.pretraining) == (20, 0)
    assert isinstance(models[0].alignment, Shift)
    assert models[0].alignment.shift == 0


# -- the worst left out --------------------------------------------------------------------------------


class Judging:
    """Finds image 1 worst; remembers when it was asked, and what was left out."""

    def __init__(self, run: Run, *, limit: int = 2**30, worst: tuple[int, ...] = (1,)) -> None:
        self.asked = 0
        self.left_out: list[list[int]] = []
        self._images = run.images(limit)
        self._worst = worst

    def options(self) -> dict[str, Any]:
        return {"trimming": Trimming(self.worst, self.without)}

    def worst(self) -> tuple[int, ...]:
        self.asked += 1
        return self._worst

    def without(self, numbers: Any) -> PreprocessedImages:
        self.left_out.append(list(numbers))
        return self._images.without(numbers)


def test_the_second_half_of_training_leaves_out_the_worst_images(run: Run) -> None:
    seen: list[tuple[int, int]] = []
    judging = Judging(run)
    drawn: list[int] = []

    class Spied(PreprocessedImages):
        def __getitem__(self, index: int) -> Any:
            drawn.append(index)
            return super().__getitem__(index)

    judging._images = Spied(run.items, run.preparation)
    model, state = run(on_progress=lambda p: seen.append((p.step, judging.asked)), **judging.options())
    assert state.left_out == [1]
    assert judging.left_out == [[1]]
    assert dict(seen)[6] == 0
    assert dict(seen)[12] == judging.asked == 1
    assert set(drawn) == {0, 1}  # numbers among the two that stayed
    assert len(drawn) == 10 * 4
    assert state.best_step > 10
    assert not same(model, run()[0])


@pytest.mark.parametrize("step", [4, 9, 10, 11, 17])
@pytest.mark.parametrize("limit", [2**30, 0])
def test_trimming_and_resuming_equals_an_uninterrupted_run(
    run: Run, tmp_path: Path, step: int, limit: int
) -> None:
    whole, state = run(**Judging(run).options())
    with pytest.raises(Stopped):
        run(checkpoint=tmp_path / "c", stop=stop_at(step), **Judging(run).options())
    # The list is in the checkpoint: a second opinion is not asked for.
    again = Judging(run, limit=limit, worst=(0,)) if step > 10 else Judging(run, limit=limit)
    resumed, resumed_state = run(checkpoint=tmp_path / "c", resume=True, limit=limit, **again.options())
    assert same(resumed, whole)
    assert without_time(resumed_state) == without_time(state)
    assert again.asked == (step <= 10)


def test_scoring_the_training_images_changes_no_weights(run: Run) -> None:
    judging = Judging(run, worst=())
    model, state = run(**judging.options())
    assert (state.left_out, judging.left_out) == ([], [])
    plain, _ = run()
    assert same(model, plain)


def test_a_stop_while_scoring_the_training_images_keeps_the_checkpoint(run: Run, tmp_path: Path) -> None:
    def refuse() -> tuple[int, ...]:
        raise Stopped("stopped while judging")

    judging = Judging(run)
    with pytest.raises(Stopped, match="while judging"):
        run(checkpoint=tmp_path / "c", trimming=Trimming(refuse, judging.without))
    resumed, state = run(checkpoint=tmp_path / "c", resume=True, **judging.options())
    whole, whole_state = run(**Judging(run).options())
    assert same(resumed, whole)
    assert without_time(state) == without_time(whole_state)


def test_patience_counts_only_after_trimming(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [1.0] * 20)
    _, state = run(*EARLY, "training.steps=20", **Judging(run).options())
    # Half time is at 10; then the first look is the best, and three without gain follow.
    assert (state.step, state.best_step, state.left_out) == (18, 12, [1])


def test_half_of_a_budget_is_half_time(run: Run, clock: Clock) -> None:
    asked: list[float] = []
    judging = Judging(run)

    def worst() -> tuple[int, ...]:
        asked.append(clock.now)
        return judging.worst()

    _, state = run(*BUDGET, stop=clock.ticking(), trimming=Trimming(worst, judging.without))
    assert (asked, state.left_out, state.step) == ([6.0], [1], 12)


def test_a_budget_serves_images_from_disk_too(run: Run, clock: Clock) -> None:
    whole, _ = run(*BUDGET, stop=clock.ticking())
    read, state = run(*BUDGET, stop=clock.ticking(), limit=0)
    assert state.step == 12
    assert same(read, whole)
    assert active_children() == []


@pytest.mark.parametrize("step", [4, 13])
def test_a_checkpoint_of_before_there_were_budgets_goes_on(run: Run, tmp_path: Path, step: int) -> None:
    whole, whole_state = run(prepare=with_shift)
    with pytest.raises(Stopped):
        run(prepare=with_shift, checkpoint=tmp_path / "c", stop=stop_at(step))
    path = tmp_path / "c" / "state.json"
    document = json.loads(path.read_text())
    for key in ("pretraining", "pretraining_seconds", "left_out"):
        del document["state"][key]
    document["state"]["history"] = [
        {
            **{key: look[key] for key in ("step", "training", "validation")},
            **{f"validation {term}": value for term, value in look["terms"].items()},
        }
        for look in document["state"]["history"]
    ]
    path.write_text(json.dumps(document))
    resumed, state = run(prepare=with_shift, checkpoint=tmp_path / "c", resume=True)
    assert same(resumed, whole)
    assert state.history == whole_state.history


# -- parts that a person can replace -------------------------------------------------------------------


def test_callbacks_are_called_at_every_step_and_look(run: Run) -> None:
    steps: list[tuple[int, float]] = []
    looks: list[TrainingLook] = []
    _, state = run(on_step=lambda step, loss: steps.append((step, loss.total.item())), on_look=looks.append)
    assert [step for step, _ in steps] == list(range(1, 21))
    assert looks == state.history
    assert looks[0].training == pytest.approx(sum(loss for _, loss in steps[:6]) / 6, rel=1e-5)


def test_another_optimizer_and_clock_can_be_given(run: Run) -> None:
    def still(model: nn.Module, settings: TrainingSettings, machine: Machine) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=settings.learning_rate)

    class Still(schedule.TrainingClock):
        def learning_rate(self) -> float:
            return 0.0

    before: list[dict[str, Tensor]] = []

    def keep(model: Autoencoder) -> None:
        before.append({name: value.clone() for name, value in model.named_parameters()})

    model, state = run(prepare=keep, optimizer=still, clock=Still)
    assert state.step == 20
    assert all(torch.equal(value, before[0][name]) for name, value in model.named_parameters())


def test_a_subclass_replaces_a_part(run: Run) -> None:
    """Weights that are averaged over the steps (an exponential moving average) take the place of the last ones."""

    class Averaging(Trainer):
        def step(self, batch: Tensor) -> Loss:
            loss = super().step(batch)
            if not hasattr(self, "average"):
                self.average = {
                    name: torch.zeros_like(value) for name, value in self.model.named_parameters()
                }
            for name, value in self.model.named_parameters():
                self.average[name] += 0.5 * (value.detach() - self.average[name])
            return loss

        def keep_best(self, loss: float) -> None:
            super().keep_best(loss)
            self.best = {**self.best, **{name: value.clone() for name, value in self.average.items()}}

    images = run.images()
    chosen = override(load_recipe("l2-ae"), SMALL)
    torch.manual_seed(0)
    model = build(chosen, 1)
    trainer = Averaging(
        model,
        images,
        images,
        chosen.training,
        patch=32,
        machine=CPU,
        checkpoint=None,
        identity=IDENTITY,
        optimizer=make_optimizer,
    )
    trainer.run()
    assert all(torch.equal(value, trainer.average[name]) for name, value in model.named_parameters())
