from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.processes import StopAt
from blemish.detectors.feature_extractors import Structure
from blemish.detectors.patch_bank import PatchBank
from blemish.errors import BlemishError, ImageError, Stopped, UsageError
from blemish.inspection.detector import Detector, load
from blemish.layers.shared_batch import (
    SharedBatchNorm2d,
    mean_count,
    moments_by_channel,
    normal_like,
    on_whole_batch,
    own_rows,
    shared_batch,
    shared_batch_norm,
    whole_batch,
)
from blemish.observer import Observer
from blemish.storage.training_record import Machine
from blemish.training.fit import fit
from blemish.training.launch import launched, place_of_this
from blemish.training.patches import RowsOfBatches
from blemish.training.processes import OtherProcessError, Place, Processes
from tests.conftest import QUICK, RATE, TINY

CPU = Machine(device="cpu", processor="test", precision="float32", native_bfloat16=False, torch="test")
CLOSE = {"rel": 2e-5, "abs": 1e-7}
"""Tolerance of a loss in single precision, of sums in another order."""


def together(work: Callable[[Processes, Observer], Any], observer: Observer | None = None) -> Any:
    """Result in the first process of ``work``, which two processes do."""
    with launched(place_of_this(2, 1), work) as processes:
        return work(processes, observer or Observer())


def curve(detector: Detector) -> list[float]:
    return [value for look in detector.file.training.history for value in (look.training, look.validation)]


# -- primitives ----------------------------------------------------------------------------------------


def batch(seed: int = 0) -> Tensor:
    return torch.rand(6, 3, 5, 4, generator=torch.Generator().manual_seed(seed))


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(x).square())
        return y.square().mean()


def network() -> Both:
    torch.manual_seed(0)
    return Both()


def bank(images: list[Tensor], *, by_place: bool, sharing: Processes | None = None) -> PatchBank:
    made = PatchBank(Structure(patch=8), dimensions=6, capacity=100, images=4, nearest_images=3, reach=1)
    generator = torch.Generator().manual_seed(3)
    made.fit(images, generator, by_place=by_place, groups=[0, 0, 1, 2, 3], sharing=sharing)
    return made


def bank_images() -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    images = [torch.rand(1, side, 30, generator=draw) for side in (24, 28, 24, 33, 28)]
    images[3][:, :9, :12] = torch.nan  # places outside the image
    return images


def primitives(processes: Processes, observer: Observer) -> dict[str, Any]:
    processes.connect(CPU)
    found: dict[str, Any] = {}
    with shared_batch(processes.rank, 2):
        own = own_rows(batch())
        found["own"] = own
        found["whole"] = whole_batch(own)
        found["marks"] = whole_batch(own > 0.5)
        found["draw"] = on_whole_batch(lambda x: x + torch.rand(len(x), 1, 1, 1), seeded(own))
        found["normal"] = normal_like(seeded(own))
        found["count"] = mean_count(torch.tensor(3 + processes.rank))
        found["moments"] = moments_by_channel(own)
        model = network()
        with shared_batch_norm(model):
            assert type(model.norm) is SharedBatchNorm2d
            wrapped = processes.fabric(CPU).setup(model)
            loss = wrapped(own)
            loss.backward()
        found["gradients"] = [parameter.grad for parameter in model.parameters()]
        found["running"] = dict(model.norm.named_buffers())
    found["mean"] = processes.mean(torch.tensor([1.0, 2.0]) * (1 + processes.rank))
    found["banks"] = [
        bank(bank_images(), by_place=by_place, sharing=processes).state_dict() for by_place in (False, True)
    ]
    assert processes.together(lambda: processes.rank) == processes.rank
    found["first"] = processes.first(lambda: processes.rank)
    assert processes.agree(stop=processes.is_first)
    problem = ImageError(Path("b.png"), "is damaged", "replace it")
    with pytest.raises(
        ImageError if processes.rank else OtherProcessError, match=r"^b.png: is damaged; replace it$"
    ):
        processes.agree(problem if processes.rank else None)
    with pytest.raises(
        ImageError if processes.is_first else OtherProcessError, match=r"^b.png: is damaged; replace it$"
    ):
        processes.first(partial(refuse, problem))
    with pytest.raises(Stopped, match="stopped here"):
        processes.first(partial(refuse, Stopped("stopped here")))
    return found


def refuse(problem: BlemishError) -> None:
    raise problem


def seeded(x: Tensor) -> Tensor:
    torch.manual_seed(5)
    return x


def test_two_processes_have_the_draws_sums_statistics_and_banks_of_one() -> None:
    found = together(primitives)
    whole = batch()
    assert torch.equal(found["own"], whole[:3])
    assert torch.equal(found["whole"], whole)
    assert torch.equal(found["marks"], whole > 0.5)
    assert torch.equal(found["draw"], (seeded(whole) + torch.rand(6, 1, 1, 1))[:3])
    assert torch.equal(found["normal"], torch.randn_like(seeded(whole))[:3])
    assert float(found["count"]) == 3.5
    for ours, theirs in zip(found["moments"], torch.var_mean(whole, (0, 2, 3), correction=0), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5)
    alone = network()
    alone(whole).backward()
    for ours, parameter in zip(found["gradients"], alone.parameters(), strict=True):
        assert parameter.grad is not None
        assert torch.allclose(ours, parameter.grad, rtol=1e-4, atol=1e-7)
    for name, value in alone.norm.named_buffers():
        assert torch.allclose(found["running"][name], value, rtol=1e-5), name
    assert found["mean"].tolist() == [1.5, 3.0]
    for by_place, state in zip((False, True), found["banks"], strict=True):
        expected = bank(bank_images(), by_place=by_place).state_dict()
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(state[name], value), name  # the same rows in the same order, bit for bit
    assert found["first"] == 0


def test_alone_the_functions_are_torchs_own() -> None:
    x = batch()
    assert whole_batch(x) is x
    assert own_rows(x) is x
    assert torch.equal(normal_like(seeded(x)), torch.randn_like(seeded(x)))
    assert int(mean_count(torch.tensor(0))) == 1
    with shared_batch(0, 1):
        assert whole_batch(x) is x
    model = network()
    with shared_batch_norm(model):
        assert type(model.norm) is SharedBatchNorm2d
    assert type(model.norm) is nn.BatchNorm2d


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_no_patch_is_in_two_rows_of_a_step(processes: int) -> None:
    rows = [list(RowsOfBatches(18, 6, rank=rank, processes=processes)) for rank in range(processes)]
    for step in range(3):
        assert [number for own in rows for number in own[step]] == list(range(6 * step, 6 * step + 6))


# -- places --------------------------------------------------------------------------------------------


def test_a_place_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_of_this(1, 1) == Place()
    for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="with NODE_RANK, MASTER_ADDR, MASTER_PORT set"):
        place_of_this(2, 3)
    monkeypatch.setenv("NODE_RANK", "2")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    place = place_of_this(2, 3)
    assert (place.rank, place.count, place.address, place.port) == (4, 6, "10.0.0.1", 29500)
    monkeypatch.setenv("NODE_RANK", "3")
    with pytest.raises(UsageError, match="numbers from 0 to 2"):
        place_of_this(2, 3)
    monkeypatch.setenv("MASTER_PORT", "http")
    with pytest.raises(UsageError, match="whole numbers"):
        place_of_this(2, 3)
    with pytest.raises(UsageError, match="processes is 0"):
        place_of_this(0, 1)


def test_batches_that_cannot_be_shared_are_refused_before_anything_starts(good: Path) -> None:
    with pytest.raises(
        UsageError, match=r"3 processes cannot share batches of 16 evenly; set training.batch=15"
    ):
        fit(good, "ssim-ae", settings=TINY, false_reject_rate=RATE, processes=3)


# -- fits ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        (
            "cae-ssim",
            [
                *TINY[:2],
                *TINY[3:],
                "loss=[{name: ssim}, {name: adversarial}, {name: contractive, images: 3}]",
            ],
        ),
        ("blemish", QUICK),
    ],
)
def test_two_processes_have_the_loss_curve_of_one(
    good: Path, tmp_path: Path, recipe: str, settings: list[str]
) -> None:
    made = [*settings, "training.steps=4", "training.validate_every=2"]
    one = fit(good, recipe, settings=made, false_reject_rate=RATE)
    two = fit(good, recipe, settings=made, false_reject_rate=RATE, processes=2, out=tmp_path / "model")
    assert len(one.file.training.history) == 2
    assert curve(two) == pytest.approx(curve(one), **CLOSE)
    assert two.threshold == pytest.approx(one.threshold, rel=1e-3)
    assert sorted(path.name for path in (tmp_path / "model").iterdir() if path.is_dir()) == []
    assert load(tmp_path / "model").threshold == two.threshold


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_a_checkpoint_is_resumed_by_another_number_of_processes(
    good: Path, tmp_path: Path, first: int, second: int
) -> None:
    settings = [*TINY, "training.steps=6", "training.validate_every=2"]
    given: dict[str, Any] = {"settings": settings, "false_reject_rate": RATE}
    whole = fit(good, "ssim-ae", **given)
    out = tmp_path / "stopped"
    with pytest.raises(Stopped, match=r"at step [23] of 6"):
        fit(good, "ssim-ae", **given, out=out, processes=first, observer=StopAt(2))
    state = json.loads((out / "checkpoint" / "state.json").read_text(encoding="utf-8"))
    assert 2 <= state["state"]["step"] <= 3
    resumed = fit(good, "ssim-ae", **given, out=out, resume=True, processes=second)
    assert curve(resumed) == pytest.approx(curve(whole), **CLOSE)


def fail(processes: Processes, observer: Observer, *, how: str) -> None:
    processes.connect(CPU)
    if processes.rank and how == "raised":
        raise ImageError(Path("b.png"), "is damaged", "replace it")
    if processes.rank:
        if (
            how == "killed, slowly"
        ):  # the system closes the files of a killed process before it has an exit code
            os.closerange(3, 1024)
            time.sleep(1)  # a thread of torch may abort meanwhile
        os.kill(os.getpid(), signal.SIGKILL)
    processes.mean(torch.zeros(2))
    processes.first(lambda: 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("raised", "^b.png: is damaged; replace it$"),
        ("killed", "signal 9"),
        ("killed, slowly", "signal [69]"),
    ],
)
def test_an_error_of_one_process_ends_all_with_its_line(how: str, line: str) -> None:
    with pytest.raises(BlemishError, match=line):
        together(partial(fail, how=how))


@pytest.mark.slow
def test_two_machines_fit_together_and_the_first_writes(good: Path, tmp_path: Path) -> None:
    port = place_of_this(2, 1).port
    words = [sys.executable, "-m", "blemish", "fit", str(good), "--recipe", "ssim-ae", "--nodes", "2"]
    words += [word for setting in TINY for word in ("--set", setting)]
    words += ["--false-reject-rate", str(RATE), "--json"]
    machines = [
        subprocess.Popen(
            [*words, "--out", str(tmp_path / str(node))],
            env={**os.environ, "NODE_RANK": str(node), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]
    ended = [machine.communicate(timeout=300) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], ended
    thresholds = [json.loads(out)["threshold"] for out, _ in ended]
    assert thresholds[0] == thresholds[1]
    assert (tmp_path / "0" / "model.json").exists()
    assert not (tmp_path / "1").exists()
