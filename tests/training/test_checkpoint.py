from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from blemish.errors import FileError, ModelError
from blemish.storage.training_record import TrainingLook
from blemish.training import checkpoint as room
from blemish.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint

IDENTITY: dict[str, Any] = {"name": "l2-ae", "training.batch": 4, "set of images": "abc"}
LOOK = TrainingLook(step=1, training=0.7, validation=0.1 + 0.2, terms={"mse": 1 / 3, "a-first": 0.1})


def make(seed: int = 0, steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A layer in channels_last and its optimizer after some steps."""
    torch.manual_seed(seed)
    model = nn.Conv2d(4, 8, 3)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=True)
    step(model, optimizer, steps)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
    x = torch.rand(2, 4, 5, 5, generator=torch.Generator().manual_seed(5))
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def saved(folder: Path) -> tuple[nn.Module, torch.optim.Optimizer, dict[str, Tensor]]:
    best = copy(make(seed=7)[0])
    model, optimizer = make()
    state = TrainingState(
        step=2,
        best_step=1,
        best_loss=0.1 + 0.2,
        looks_without_gain=3,
        loss_since_look=1 / 3,
        seconds=4.5,
        history=[LOOK],
    )
    save_checkpoint(folder, IDENTITY, state, model, best, optimizer)
    return model, optimizer, best


def test_a_checkpoint_restores_everything_saved(tmp_path: Path) -> None:
    model, _, best = saved(tmp_path)
    other, optimizer = make(seed=1, steps=0)
    state, best_again = load_checkpoint(tmp_path, IDENTITY, other, optimizer)
    assert same(copy(other), copy(model))
    assert same(best_again, best)
    assert (state.step, state.best_step, state.best_loss) == (2, 1, 0.1 + 0.2)
    assert (state.looks_without_gain, state.loss_since_look, state.seconds) == (3, 1 / 3, 4.5)
    assert state.history == [LOOK]


def test_a_checkpoint_under_former_names_is_read(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "state.json"
    document = json.loads(path.read_text())
    document["identity"] = {
        "name": "l2-ae",
        "training.batch": 4,
        "set of pictures": "abc",
        "picture.size": 64,
    }
    document["state"]["history"] = [
        {
            "step": 1,
            "training": 0.7,
            "validation": 0.1 + 0.2,
            "validation mse": 1 / 3,
            "validation a-first": 0.1,
        }
    ]
    path.write_text(json.dumps(document))
    model, optimizer = make(seed=1, steps=0)
    state, _ = load_checkpoint(tmp_path, {**IDENTITY, "image.size": 64}, model, optimizer)
    assert state.history == [LOOK]
    with pytest.raises(ModelError, match=r"made with another image\.size"):
        load_checkpoint(tmp_path, {**IDENTITY, "image.size": 32}, model, optimizer)


def test_steps_after_loading_are_the_steps_without_it(tmp_path: Path) -> None:
    model, optimizer, _ = saved(tmp_path)
    other, other_optimizer = make(seed=1, steps=0)
    load_checkpoint(tmp_path, IDENTITY, other, other_optimizer)
    step(model, optimizer, 3)
    step(other, other_optimizer, 3)
    assert same(copy(other), copy(model))


def test_files_are_safetensors_and_json(tmp_path: Path) -> None:
    saved(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-2.safetensors", "state.json"]
    data = (tmp_path / "state-2.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert {name.split("/")[0] for name in header} == {"model", "best", "optimizer"}
    assert json.loads((tmp_path / "state.json").read_text())["identity"] == IDENTITY


def test_an_older_checkpoint_is_replaced(tmp_path: Path) -> None:
    model, optimizer, best = saved(tmp_path)
    save_checkpoint(tmp_path, IDENTITY, TrainingState(step=9), model, best, optimizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-9.safetensors", "state.json"]


def test_a_kill_between_the_two_files_leaves_the_older_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer, best = saved(tmp_path)
    before = copy(model)
    step(model, optimizer)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(room, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, IDENTITY, TrainingState(step=3), model, best, optimizer)
    assert (tmp_path / "state-3.safetensors").exists()
    other, other_optimizer = make(seed=1, steps=0)
    state, _ = load_checkpoint(tmp_path, IDENTITY, other, other_optimizer)
    assert state.step == 2
    assert same(copy(other), before)
    save_checkpoint(tmp_path, IDENTITY, TrainingState(step=4), model, best, optimizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-4.safetensors", "state.json"]


@pytest.mark.parametrize(
    ("identity", "key"),
    [
        ({**IDENTITY, "training.batch": 8}, "training.batch"),
        ({**IDENTITY, "set of images": "xyz"}, "set of images"),
        ({**IDENTITY, "name": "ssim-ae", "set of images": "xyz"}, "name"),
        ({**IDENTITY, "new": 1}, "new"),
        ({"name": "l2-ae", "set of images": "abc"}, "training.batch"),
    ],
)
def test_another_recipe_or_other_images_are_refused_by_name(
    tmp_path: Path, identity: dict[str, Any], key: str
) -> None:
    saved(tmp_path)
    model, optimizer = make(seed=1)
    before = copy(model)
    with pytest.raises(ModelError, match=f"made with another {key}; resume with .* --overwrite$"):
        load_checkpoint(tmp_path, identity, model, optimizer)
    assert same(copy(model), before)


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_without_a_checkpoint_the_remedy_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"holds no checkpoint to resume from; fit without --resume$"):
        load_checkpoint(tmp_path / folder, IDENTITY, *make())


def truncate(folder: Path) -> None:
    path = folder / "state-2.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def lose_tensors(folder: Path) -> None:
    (folder / "state-2.safetensors").unlink()


def truncate_json(folder: Path) -> None:
    path = folder / "state.json"
    path.write_text(path.read_text()[:-10])


def garble_json(folder: Path) -> None:
    (folder / "state.json").write_bytes(b"\xff\xfe\x00")


def make_list(folder: Path) -> None:
    (folder / "state.json").write_text("[]")


def edit(folder: Path, key: str, value: object) -> None:
    path = folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def edit_state(folder: Path) -> None:
    edit(folder, "state", {"step": "soon"})


def edit_identity(folder: Path) -> None:
    edit(folder, "identity", 3)


def swap_tensors(folder: Path) -> None:
    model = nn.Conv2d(1, 1, 1)
    save_checkpoint(folder / "x", {}, TrainingState(step=2), model, {}, torch.optim.Adam(model.parameters()))
    (folder / "x" / "state-2.safetensors").replace(folder / "state-2.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        lose_tensors,
        truncate_json,
        garble_json,
        make_list,
        edit_state,
        edit_identity,
        swap_tensors,
    ],
)
def test_damage_is_named_in_one_line(tmp_path: Path, damage: Any) -> None:
    saved(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError) as caught:
        load_checkpoint(tmp_path, IDENTITY, *make())
    assert str(caught.value).startswith(f"{tmp_path}: the checkpoint is damaged (")
    assert str(caught.value).endswith("fit again with --overwrite")
    assert "\n" not in str(caught.value)


def test_tensors_on_disk_are_those_of_the_model(tmp_path: Path) -> None:
    model, _, best = saved(tmp_path)
    tensors = load_file(tmp_path / "state-2.safetensors")
    assert torch.equal(tensors["model/weight"], model.state_dict()["weight"])
    assert torch.equal(tensors["best/bias"], best["bias"])


def test_a_full_disk_is_reported_and_keeps_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, best = saved(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model, optimizer = make(steps=3)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError, match="the disk is full; free some space"):
        save_checkpoint(tmp_path, IDENTITY, TrainingState(step=3), model, best, optimizer)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_unwritable_folder_and_an_unremovable_file_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="is a file, not a folder"):
        saved(tmp_path / "file" / "checkpoint")
    _, _, best = saved(tmp_path / "checkpoint")
    model, optimizer = make(steps=3)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(FileError, match=r"state-2\.safetensors: cannot be removed \(Permission denied\)"):
        save_checkpoint(tmp_path / "checkpoint", IDENTITY, TrainingState(step=3), model, best, optimizer)
