"""Every recipe's speed in training and inspection, beside the plain autoencoder as 1.00.

    python benchmarks/recipes.py --out benchmarks/results/recipes.json

All work on the same pictures: a training step (forward, backward, Adam, in the precision that training chooses
here) on one batch that stays in memory; an inspection (float32) of one picture, cut into as many tiles as an
inspector cuts from 256 × 256 pixels, from the tiles to their maps. All cores, unless --threads says otherwise.
Networks that begin with ImageNet weights are drawn instead, which costs the same. Every round times all
contenders one after the other, so that a ratio within a round holds when the machine's speed drifts.
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

from blemish.models import Autoencoder, build
from blemish.recipes import load_recipe, override, recipe_names
from blemish.training import choose_machine

CHANNELS, TILES = 3, 9
PLAIN = "l2-ae"
# Name: recipe and settings of what a ratio needs beside the recipes themselves.
OTHERS = {
    **{
        f"{recipe}, no penalty": (recipe, [f"loss=[{{name: {recipe.rsplit('-', 1)[1]}}}]"])
        for recipe in ("cae-mse", "cae-vgg16-mse", "cae-resnet50-mse")
    },
    "stn-ae-unaligned, no canvas": ("stn-ae-unaligned", ["alignment=null"]),
}
# Name: what is timed, which contender, beside which, and the most that is aimed at.
RATIOS = {
    **{
        f"contractive penalty, {recipe}": ("training", recipe, f"{recipe}, no penalty", 2.0)
        for recipe in ("cae-mse", "cae-vgg16-mse", "cae-resnet50-mse")
    },
    "aligned / unaligned, both with the canvas": ("inspection", "stn-ae-frozen", "stn-ae-unaligned", 1.25),
    "aligned / plain": ("inspection", "stn-ae-frozen", "stn-ae-unaligned, no canvas", 1.25),
}
Timed = dict[str, list[float]]


def make_model(recipe: str, settings: list[str], patch: int) -> Autoencoder:
    size = [f"patch.size={patch}", f"patch.stride={patch // 2}", f"picture.size={2 * patch}"]
    torch.manual_seed(0)
    return build(override(load_recipe(recipe), [*size, *settings]), CHANNELS, pretrained=False)


def make_step(model: Autoencoder, batch: int, patch: int) -> Callable[[], None]:
    machine = choose_machine()
    model.to(machine.device, memory_format=torch.channels_last)
    pictures = torch.rand(batch, CHANNELS, patch, patch, device=machine.device)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        model.train()
        with torch.autocast(machine.device, torch.bfloat16, enabled=machine.precision == "bfloat16"):
            total = model.loss(pictures).total
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        total.detach().item()  # waits for the device

    return step


def make_inspection(model: Autoencoder, patch: int) -> Callable[[], None]:
    tiles = torch.rand(TILES, CHANNELS, patch, patch)

    def inspection() -> None:
        model.eval()
        with torch.inference_mode():
            model.examine(tiles.to(next(model.parameters()).device)).map.cpu()

    return inspection


def time_once(work: dict[str, Callable[[], None]], seconds: Timed, repeats: int) -> None:
    """One round: every contender one after the other."""
    for name, call in work.items():
        begun = time.perf_counter()
        for _ in range(repeats):
            call()
        seconds[name].append((time.perf_counter() - begun) / repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1, help="of a step or an inspection, in each round")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--threads", type=int, help="instead of all cores")
    parser.add_argument("--recipes", help="names separated by commas, instead of all")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    names = [PLAIN, *(options.recipes.split(",") if options.recipes else recipe_names())]
    contenders = {name: (name, []) for name in names} | {
        name: other for name, other in OTHERS.items() if other[0] in names
    }
    models = {
        name: make_model(recipe, settings, options.patch) for name, (recipe, settings) in contenders.items()
    }
    work = {
        "training": {name: make_step(model, options.batch, options.patch) for name, model in models.items()},
        "inspection": {name: make_inspection(model, options.patch) for name, model in models.items()},
    }
    seconds: dict[str, Timed] = {phase: {name: [] for name in calls} for phase, calls in work.items()}
    for calls in work.values():
        for call in calls.values():
            call()
    for turn in range(options.rounds):
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
        for phase, calls in work.items():
            time_once(calls, seconds[phase], options.repeats)
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": str(choose_machine()),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "batch": options.batch,
        "patch": options.patch,
        "tiles": TILES,
        "recipes": {
            name: {
                "images_per_second": summary([options.batch / one for one in seconds["training"][name]]),
                "training_time_beside_plain": against(seconds["training"], name, PLAIN),
                "milliseconds_per_picture": summary([1000 * one for one in seconds["inspection"][name]]),
                "inspection_time_beside_plain": against(seconds["inspection"], name, PLAIN),
            }
            for name in contenders
        },
        "ratios": {
            name: {"at_most": aim, **against(seconds[phase], one, other)}
            for name, (phase, one, other, aim) in RATIOS.items()
            if one in contenders and other in contenders
        },
    }
    print(in_words(result))
    if options.out:
        text = json.dumps(result, indent=2, ensure_ascii=False)
        options.out.write_text(text + "\n", encoding="utf-8")


def against(seconds: Timed, one: str, other: str) -> dict[str, float]:
    """Time of ``one`` over that of ``other``, round by round."""
    return summary([x / y for x, y in zip(seconds[one], seconds[other], strict=True)])


def summary(values: list[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
    }


def in_words(result: dict[str, object]) -> str:
    """Medians, with the range of ratios in brackets; times beside the plain autoencoder's."""
    recipes: dict[str, dict[str, dict[str, float]]] = result["recipes"]  # type: ignore[assignment]
    ratios: dict[str, dict[str, float]] = result["ratios"]  # type: ignore[assignment]
    head = (
        f"{'':<30}{'training':>12}{'time beside ' + PLAIN:>24}{'inspection':>14}{'time beside ' + PLAIN:>24}"
    )
    lines = [f"{result['machine']}; {result['threads']} threads", head]
    for name, row in recipes.items():
        lines.append(
            f"{name:<30}{row['images_per_second']['median']:>8.1f} i/s"
            f"{ratio(row['training_time_beside_plain']):>24}"
            f"{row['milliseconds_per_picture']['median']:>11.1f} ms"
            f"{ratio(row['inspection_time_beside_plain']):>24}"
        )
    lines += [f"{name}: {ratio(row)}, at most {row['at_most']}" for name, row in ratios.items()]
    return "\n".join(lines)


def ratio(row: dict[str, float]) -> str:
    return f"{row['median']:.2f} ({row['min']:.2f} to {row['max']:.2f})"


if __name__ == "__main__":
    main()
