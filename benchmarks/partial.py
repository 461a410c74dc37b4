"""Cost of partial convolutions in training: each layer against the plain one, and the six networks.

    python benchmarks/partial.py --out benchmarks/results/partial.json

Every round times all contenders one after the other, so that a ratio within a round holds when the machine's
speed drifts. Times are of the processor on one thread, in bfloat16 and channels_last as training has it, for
batches that stay in memory: a layer's forward and backward pass, a network's whole step with Adam.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from blemish.data.modality import Modality
from blemish.layers import PartialConv2d, PartialConvTranspose2d
from blemish.models import build
from blemish.models.xie import DECODER, ENCODER, LATENT
from blemish.recipes import load_recipe, override
from blemish.training.device import choose_machine

BATCH, PATCH = 64, 32
MODALITIES = [
    Modality(name=name, channels=channels) for name, channels in zip("abcde", (3, 3, 1, 1, 3), strict=True)
]
CHANNELS = sum(modality.channels for modality in MODALITIES)
RECIPES = ("stacked-ae", "pen-nde", "pen-upde", "fp-cae", "fp-cae-concat", "fp-cae-add")
Run = Callable[[], None]


def layer_steps() -> dict[str, dict[str, Run]]:
    """Forward and backward of each layer of fp-cae: plain, partial, and partial with a hole in each image."""
    found: dict[str, dict[str, Run]] = {}
    side, c_in = PATCH, CHANNELS
    for kernel, stride, padding, c_out in ENCODER:
        pair = [kind(c_in, c_out, kernel, stride, padding) for kind in (nn.Conv2d, PartialConv2d)]
        name = f"convolution {kernel}, {c_in} to {c_out}, {side} × {side}"
        found[name] = contenders(*pair, c_in, side, first=side == PATCH)
        side, c_in = (side + 2 * padding - kernel) // stride + 1, c_out
    assert c_in == LATENT
    for kernel, stride, padding, extra, width in DECODER:
        c_out = width or CHANNELS
        settings = (c_in, c_out, kernel, stride, padding, extra)
        pair = [kind(*settings) for kind in (nn.ConvTranspose2d, PartialConvTranspose2d)]
        name = f"deconvolution {kernel}, {c_in} to {c_out}, {side} × {side}"
        found[name] = contenders(*pair, c_in, side, first=False)
        side, c_in = (side - 1) * stride - 2 * padding + kernel + extra, c_out
    assert side == PATCH
    return found


def contenders(
    plain: nn.Module, partial: nn.Module, channels: int, side: int, *, first: bool
) -> dict[str, Run]:
    x = torch.rand(BATCH, channels, side, side).to(memory_format=torch.channels_last)
    x.requires_grad_(not first)  # the images themselves want no gradient
    mask = torch.ones(BATCH, 1, side, side, dtype=torch.bool)
    mask[..., : side // 2, : side // 2] = False
    for layer in (plain, partial):
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(layer: nn.Module, **masked: torch.Tensor) -> Run:
        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                y = layer(x, **masked)
            y = y[0] if masked else y
            y.backward(torch.ones_like(y))
            layer.zero_grad()
            x.grad = None

        return step

    return {"plain": run(plain), "partial": run(partial), "partial, masked": run(partial, mask=mask)}


def network_steps() -> dict[str, Run]:
    """One step of each recipe; those that drop modalities also without, and of normal convolutions."""
    steps: dict[str, Run] = {}
    for name in RECIPES:
        recipe = load_recipe(name)
        if recipe.corruption:
            steps[f"{name}, without dropout"] = network_step(name, ["corruption=[]"])
            normal = ["corruption=[]", "encoder.convolution=normal", "decoder.deconvolution=normal"]
            steps[f"{name}, normal convolutions"] = network_step(name, normal)
        steps[name] = network_step(name, [])
    return steps


def network_step(name: str, settings: list[str]) -> Run:
    torch.manual_seed(0)
    model = build(override(load_recipe(name), settings), CHANNELS, modalities=MODALITIES).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = torch.rand(BATCH, CHANNELS, PATCH, PATCH).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            total = model.loss(batch).total
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()

    return step


def race(steps: dict[str, Run], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round."""
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            begun = time.process_time()
            for _ in range(repeats):
                step()
            times[name].append(1000 * (time.process_time() - begun) / repeats)
    return times


def ratios(times: dict[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    return {
        name: summary([x / y for x, y in zip(values, times[base], strict=True)])
        for name, values in times.items()
        if name != base
    }


def summary(values: list[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--repeats", type=int, default=5, help="passes of a layer a round")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    layers = {name: race(steps, options.rounds, options.repeats) for name, steps in layer_steps().items()}
    networks = race(network_steps(), options.rounds, 1)
    # All layers of fp-cae, one after the other: what its convolutions alone cost.
    together = {
        kind: [sum(times) for times in zip(*(layer[kind] for layer in layers.values()), strict=True)]
        for kind in ("plain", "partial", "partial, masked")
    }
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": str(choose_machine()),
        "processor": platform.processor() or platform.machine(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "threads": 1,
        "batch": BATCH,
        "layers": {
            name: {
                "ms": {kind: summary(values) for kind, values in times.items()},
                "ratio": ratios(times, "plain"),
            }
            for name, times in layers.items()
        },
        "all layers": {"ratio": ratios(together, "plain")},
        "networks": {
            name: {"ms": summary(values), "patches_per_second": summary([1000 * BATCH / ms for ms in values])}
            for name, values in networks.items()
        },
        "ratio to stacked-ae": ratios(networks, "stacked-ae"),
    }
    text = json.dumps(result, indent=2, ensure_ascii=False)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
