"""Every recipe's speed in training and inspection, beside the plain autoencoder as 1.00.

    python benchmarks/recipes.py --out benchmarks/results/recipes.json

All work on the same images. Training is a step of the training loop (forward, backward, Adam, in the precision
and layout that it has here) on one batch that stays in memory. Inspection is what a detector does with one
image of twice the patch's side, from its pixels to score and map: float32, nine tiles, on the processor, which is
where it works unless it is configured otherwise. All cores, unless --threads says otherwise. Networks that begin with
ImageNet weights are drawn instead, which costs the same. Every round times all contenders one after the other, so
that a ratio within a round holds when the machine's speed drifts.
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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blemish.data.image import LoadedImage
from blemish.detectors.ensemble import for_inspection
from blemish.detectors.factory import build_model
from blemish.inspection.detector import Detector
from blemish.inspection.document import ModelFile
from blemish.models import build
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes import Recipe, load_recipe, override, recipe_names
from blemish.training.device import choose_machine
from blemish.training.fabric import make_fabric

CHANNELS = 3
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


def make_recipe(recipe: str, settings: list[str], patch: int) -> Recipe:
    size = [f"patch.size={patch}", f"patch.stride={patch // 2}", f"image.size={2 * patch}"]
    return override(load_recipe(recipe), [*size, *settings])


def make_step(recipe: Recipe, batch: int) -> Callable[[], Tensor]:
    """One step of the training loop."""
    machine = choose_machine()
    fabric = make_fabric(machine)
    torch.manual_seed(0)
    model = build(recipe, CHANNELS, pretrained=False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=recipe.training.learning_rate,
        weight_decay=recipe.training.weight_decay,
        fused=machine.device != "mps",
    )
    wrapped, optimizer = fabric.setup(model, optimizer)
    wrapped.mark_forward_method("loss")
    images = fabric.to_device(torch.rand(batch, CHANNELS, recipe.patch.size, recipe.patch.size))
    model.train()

    def step() -> Tensor:
        with fabric.autocast():
            loss = wrapped.loss(images.to(memory_format=torch.channels_last))
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss.total)
        optimizer.step()
        total: Tensor = loss.total
        return total.detach()

    return step


def make_inspection(recipe: Recipe, batch: int) -> Callable[[], float]:
    """Inspection of one image by a detector; of its file only the parts needed for it."""
    torch.manual_seed(0)
    side = 2 * recipe.patch.size
    preprocessing = Preprocessing(channels=CHANNELS, convert=False, kind="uint8", size=side)
    known: dict[str, Any] = {"recipe": recipe, "preprocessing": preprocessing}
    model = for_inspection(build_model(recipe, CHANNELS, pretrained=False))
    detector = Detector(model, ModelFile.model_construct(**known))
    pixels = np.random.default_rng(0).integers(0, 256, (CHANNELS, side, side))
    image = LoadedImage(Path("noise"), pixels.astype(np.uint8))
    return lambda: detector.measure(image).score


Work = dict[str, Callable[[], float | Tensor]]


def time_once(work: Work, seconds: Timed, repeats: int) -> None:
    """One round: every contender one after the other."""
    for name, call in work.items():
        begun = time.perf_counter()
        for _ in range(repeats):
            last = call()
        float(last)  # waits for the device
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
    names = [
        PLAIN,
        *(
            options.recipes.split(",")
            if options.recipes
            else (name for name in recipe_names() if name != "other-pixels")
        ),
    ]
    contenders: dict[str, tuple[str, list[str]]] = {name: (name, []) for name in names} | {
        name: other for name, other in OTHERS.items() if other[0] in names
    }
    recipes = {
        name: make_recipe(recipe, settings, options.patch) for name, (recipe, settings) in contenders.items()
    }
    seconds: dict[str, Timed] = {}
    # One phase after the other, so that the models of one alone are in memory.
    for phase, make in (("training", make_step), ("inspection", make_inspection)):
        work: Work = {name: make(recipe, options.batch) for name, recipe in recipes.items()}
        seconds[phase] = {name: [] for name in work}
        for call in work.values():
            call()
        for turn in range(options.rounds):
            print(f"{phase}, round {turn + 1} of {options.rounds}", file=sys.stderr)
            time_once(work, seconds[phase], options.repeats)
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": str(choose_machine()),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "batch": options.batch,
        "patch": options.patch,
        "image": 2 * options.patch,
        "recipes": {
            name: {
                "images_per_second": summary([options.batch / one for one in seconds["training"][name]]),
                "training_time_beside_plain": against(seconds["training"], name, PLAIN),
                "milliseconds_per_image": summary([1000 * one for one in seconds["inspection"][name]]),
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
            f"{row['milliseconds_per_image']['median']:>11.1f} ms"
            f"{ratio(row['inspection_time_beside_plain']):>24}"
        )
    lines += [f"{name}: {ratio(row)}, at most {row['at_most']}" for name, row in ratios.items()]
    return "\n".join(lines)


def ratio(row: dict[str, float]) -> str:
    return f"{row['median']:.2f} ({row['min']:.2f} to {row['max']:.2f})"


if __name__ == "__main__":
    main()
