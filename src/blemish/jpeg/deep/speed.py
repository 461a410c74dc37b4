"""Speed of training: steps of several recipes in turn, so that a ratio within a round holds when the machine's speed drifts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from blemish.jpeg.deep.network import DeepJpeg
from blemish.jpeg.deep.recipe import DeepRecipe
from blemish.observer import Observer
from blemish.training.device import choose_machine
from blemish.training.fabric import make_fabric


def make_step(recipe: DeepRecipe, batch: int) -> Callable[[], object]:
    """One step of the training loop, on noise."""
    machine = choose_machine()
    fabric = make_fabric(machine)
    torch.manual_seed(0)
    model = DeepJpeg(recipe, pretrained=False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(
        model.parameter_groups(), lr=recipe.training.learning_rate, fused=machine.device != "mps"
    )
    wrapped, optimizer = fabric.setup(model, optimizer)
    wrapped.mark_forward_method("loss")
    images = fabric.to_device(torch.rand(batch, 3, recipe.patch.size, recipe.patch.size))
    model.train()

    def step() -> float:
        with fabric.autocast():
            loss = wrapped.loss(images.to(memory_format=torch.channels_last))
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss.total)
        optimizer.step()
        return float(loss.total.detach())  # waits for the device

    return step


def time_steps(recipes: Mapping[str, DeepRecipe], rounds: int, observer: Observer) -> dict[str, list[float]]:
    """Seconds of a training step by recipe, one a round, after a first step that does not count."""
    steps = {name: make_step(recipe, recipe.training.batch) for name, recipe in recipes.items()}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    observer.stage(f"Timing {rounds} training steps of each recipe, in turn")
    for _ in range(rounds):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - begun)
    return seconds
