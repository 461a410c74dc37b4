"""The papers' JPEG networks: time of an encode beside Pillow's, and of a training step beside VGG19's.

    python benchmarks/deep_jpeg.py --out benchmarks/results/deep_jpeg.json

An encode is from the pixels of one image of 768 × 512 to the bytes of its file, at the middle λ. A step is one of
the training loop (forward, backward, Adam, in the precision and layout that it has here) on one batch that stays in
memory, without LPIPS, whose network would cost all the same. Attention that begins with ImageNet weights is drawn
instead, which costs as much. All cores, unless --threads says otherwise. Every round times all contenders one after
the other, so that a ratio within a round holds when the machine's speed drifts. The paper (Liu, Liu, Mantravadi
2022): 0.126 s an encode, 7.667 s one of an end-to-end codec; ResNet-152 trains 57 % faster than VGG19.
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

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from blemish.jpeg.benchmark.baselines import PILLOW_420
from blemish.jpeg.deep.network import DeepJpeg
from blemish.jpeg.deep.recipe import DeepRecipe, deep_recipe_names, load_deep_recipe
from blemish.jpeg.deep.speed import make_step
from blemish.jpeg.encoder import encoded
from blemish.recipes import override
from blemish.training.device import choose_machine

HEIGHT, WIDTH = 512, 768
TRAINED = ("jpeg-tables", "jpeg-vgg19", "jpeg-resnet152-block1", "jpeg-resnet152-block7", "jpeg-lstm")
PLAIN, SLOW = "Pillow 4:2:0", "jpeg-vgg19"
Timed = dict[str, list[float]]
Work = dict[str, Callable[[], object]]


def make_recipe(name: str, patch: int) -> DeepRecipe:
    recipe = load_deep_recipe(name)
    drawn = ["attention.weights=none"] if "weights" in recipe.attention.settings else []
    return override(recipe, ["loss.gamma=0", "tables.initial=annex-k", f"patch.size={patch}", *drawn])


def make_image() -> NDArray[np.uint8]:
    """(H, W, 3): noise at every scale, fainter the finer, so that files are about as large as those of photographs."""
    rng = np.random.default_rng(0)
    layers = [
        32 / 1.25**octave * ndimage.zoom(rng.normal(size=(2 ** (octave + 1), 3 * 2**octave, 3)), (2 ** (8 - octave),) * 2 + (1,), order=1)
        for octave in range(9)
    ]  # fmt: skip
    image: NDArray[np.uint8] = np.clip(128 + np.sum(layers, axis=0), 0, 255).astype(np.uint8)
    return image


def make_encode(recipe: DeepRecipe, image: NDArray[np.uint8]) -> Callable[[], object]:
    torch.manual_seed(0)
    model = DeepJpeg(recipe, pretrained=False).eval()
    place = (len(model.lambdas) - 1) / 2
    return lambda: encoded(model.coefficients(image, place), 50.0, b"").data


def time_rounds(work: Work, rounds: int, title: str) -> Timed:
    for call in work.values():
        call()
    seconds: Timed = {name: [] for name in work}
    for turn in range(rounds):
        print(f"{title}, round {turn + 1} of {rounds}", file=sys.stderr)
        for name, call in work.items():
            begun = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--patch", type=int, default=224)
    parser.add_argument("--threads", type=int, help="instead of all cores")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    image = make_image()
    recipes = {name: make_recipe(name, options.patch) for name in deep_recipe_names()}
    encodes: Work = {PLAIN: lambda: PILLOW_420.encode(image, 50)}
    encodes |= {name: make_encode(recipe, image) for name, recipe in recipes.items()}
    encoding = time_rounds(encodes, options.rounds, "encoding")
    # One phase after the other, so that the models of one alone are in memory.
    encodes.clear()
    training = time_rounds(
        {name: make_step(recipes[name], options.batch) for name in TRAINED}, options.rounds, "training"
    )
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": str(choose_machine()),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "image": [WIDTH, HEIGHT],
        "batch": options.batch,
        "patch": options.patch,
        "encode": {
            name: {
                "milliseconds": summary([1000 * one for one in seconds]),
                "times_pillow": against(encoding, name, PLAIN),
            }
            for name, seconds in encoding.items()
        },
        "training": {
            name: {
                "steps_per_second": summary([1 / one for one in seconds]),
                "speed_beside_vgg19": against(training, SLOW, name),
            }
            for name, seconds in training.items()
        },
        "published": {"encode_s": 0.126, "end_to_end_s": 7.667, "resnet152_speed_beside_vgg19": 1.57},
    }
    text = json.dumps(result, indent=2, ensure_ascii=False)
    print(text)
    if options.out:
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


if __name__ == "__main__":
    main()
