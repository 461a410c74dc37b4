"""Training speed of the Bergmann autoencoder: SSIM against L2, and bfloat16 against float32.

    python benchmarks/training.py --out benchmarks/results/training.json

Every round times all contenders one after the other, so that a ratio within a round holds when the machine's
speed drifts. One step is forward, backward and Adam on one batch that stays in memory.
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

from blemish.layers import ConvTranspose2d
from blemish.models import build
from blemish.recipes import load_recipe
from blemish.training.device import choose_machine

BATCH, CHANNELS, PATCH = 32, 3, 128
# Name: recipe, bfloat16, channels_last, torch's own transposed convolution in place of ours.
CONTENDERS = {
    "L2, float32, channels_first": ("l2-ae", False, False, False),
    "L2, bfloat16, channels_last": ("l2-ae", True, True, False),
    "L2, bfloat16, channels_last, torch's transposed convolution": ("l2-ae", True, True, True),
    "SSIM, float32, channels_first": ("ssim-ae", False, False, False),
    "SSIM, bfloat16, channels_last": ("ssim-ae", True, True, False),
}
RATIOS = {
    "SSIM / L2, both bfloat16 channels_last": (
        "SSIM, bfloat16, channels_last",
        "L2, bfloat16, channels_last",
    ),
    "bfloat16 channels_last / float32 channels_first, L2": (
        "L2, bfloat16, channels_last",
        "L2, float32, channels_first",
    ),
    "bfloat16 channels_last / float32 channels_first, SSIM": (
        "SSIM, bfloat16, channels_last",
        "SSIM, float32, channels_first",
    ),
    "our transposed convolution / torch's, L2 bfloat16": (
        "L2, bfloat16, channels_last",
        "L2, bfloat16, channels_last, torch's transposed convolution",
    ),
}


def make_step(recipe: str, bfloat16: bool, channels_last: bool, plain: bool) -> Callable[[], None]:
    """One training step of ``recipe``; ``plain`` puts torch's own transposed convolution in place."""
    torch.manual_seed(0)
    model = build(load_recipe(recipe), CHANNELS)
    if plain:
        for module in model.modules():
            if isinstance(module, ConvTranspose2d):
                module.__class__ = torch.nn.ConvTranspose2d
    batch = torch.rand(BATCH, CHANNELS, PATCH, PATCH)
    if channels_last:
        model.to(memory_format=torch.channels_last)
        batch = batch.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            total = model.loss(batch).total
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="steps a contender and round")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    steps = {name: make_step(*settings) for name, settings in CONTENDERS.items()}
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(options.rounds):
        for name, step in steps.items():
            begun = time.perf_counter()
            for _ in range(options.steps):
                step()
            speeds[name].append(BATCH * options.steps / (time.perf_counter() - begun))
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": str(choose_machine()),
        "processor": platform.processor() or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "threads": torch.get_num_threads(),
        "patches_per_second": {name: _summary(values) for name, values in speeds.items()},
        "ratios": {
            name: _summary([x / y for x, y in zip(speeds[a], speeds[b], strict=True)])
            for name, (a, b) in RATIOS.items()
        },
    }
    text = json.dumps(result, indent=2, ensure_ascii=False)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


def _summary(values: list[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
    }


if __name__ == "__main__":
    main()
