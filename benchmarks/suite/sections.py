"""Sections of the suite: each gives rows, and the peers that it lacks with the reason."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.jpeg import photograph
from benchmarks.pixel_metrics import make_images, streaming
from benchmarks.recipes import make_recipe, make_step
from benchmarks.suite.images import fitted, folder, image, noise, tensors
from benchmarks.suite.peers import anomalib_models, pixel_functions, ssim_functions
from benchmarks.suite.profiles import profiled
from benchmarks.suite.turns import Call, Plan, beside, slope, spread, take_turns
from benchmarks.suite.utilisation import counted_operations, flops_of, peak_call
from blemish.decision import aupro
from blemish.detectors.feature_extractors import Structure
from blemish.detectors.memory_bank import StructureMemoryBank
from blemish.jpeg.benchmark.baselines import find_baselines
from blemish.jpeg.encoder import Encoder
from blemish.similarity import ssim
from blemish.training.device import choose_machine
from blemish.training.fit import fit
from blemish.training.kept_memory import kept_memory

Section = dict[str, Any]
OURS = "blemish"


def similarity(plan: Plan) -> Section:
    """SSIM of two batches: value, and value with its gradient."""
    side = 128 if plan.quick else 256
    x = noise(8, 3, side, side)
    y = (x + 0.1 * torch.from_numpy(np.random.default_rng(1).normal(size=x.shape).astype(np.float32))).clamp(
        0, 1
    )
    found, missing = ssim_functions()
    functions = {OURS: lambda x, y: ssim(x, y, data_range=1.0, padding="valid").mean(), **found}
    expected = float(functions[OURS](x, y))
    rows = []
    for way in ("value", "value and gradient"):
        calls: dict[str, Call] = {}
        for name, function in functions.items():
            if way == "value":
                calls[name] = _without_gradients(function, x, y)
            elif name != "scikit-image":  # which has none
                calls[name] = _with_gradients(function, x, y)
        for row in beside(take_turns(calls, plan), OURS):
            other = float(functions[row["name"]](x, y))
            rows.append({"task": f"SSIM, {way}", **row, "difference of the value": abs(other - expected)})
    return {"images": list(x.shape), "rows": rows, "missing": missing}


def _without_gradients(function: Callable[..., Any], x: Tensor, y: Tensor) -> Call:
    def call() -> object:
        with torch.no_grad():
            return function(x, y)

    return call


def _with_gradients(function: Callable[..., Any], x: Tensor, y: Tensor) -> Call:
    def call() -> object:
        free = y.detach().requires_grad_()
        function(x, free).backward()
        return free.grad

    return call


def pixels(plan: Plan) -> Section:
    """Pixel metrics of a test set: ours image by image, six figures at once; those of others one figure."""
    masks, maps = make_images(20 if plan.quick else 100, 256)
    found, missing = pixel_functions(masks, maps)
    ours = streaming(masks, maps, 0).result()
    calls: dict[str, Call] = {
        OURS: lambda: streaming(masks, maps, 0).result(),
        "blemish, exact AUPRO": lambda: aupro(masks, maps),
        **found,
    }
    rows = beside(take_turns(calls, plan), OURS)
    for row in rows:
        name = row["name"]
        if name != OURS:
            exact = calls[name]()
            near = ours.aupro_30 if "AUPRO" in name else ours.auroc
            assert isinstance(exact, float)
            assert near is not None
            row["difference of the value"] = abs(exact - near)
    return {
        "maps": list(maps.shape),
        "rows": [{"task": "pixel metrics", **row} for row in rows],
        "missing": missing,
    }


def recipes(plan: Plan) -> Section:
    """Fit and inspection of whole detectors beside those of anomalib, on the same images of 256 × 256 in RGB."""
    names = ("blemish", "blemish-small", "filter-bank", "ssim-ae", "l2-ae")
    count = 12 if plan.quick else 40
    good = tensors(count)
    found, missing = anomalib_models(good)
    with folder(count) as images:
        detectors = {name: fitted(images, name) for name in names}
        fits: dict[str, Call] = {name: _fit(images, name) for name in names}
        fits |= {name: one["fit"] for name, one in found.items() if "PaDiM" in name or "PatchCore" in name}
        few = plan._replace(rounds=3, turn=0)
        rows = [
            {"task": f"fit of {count} images, one step where there is a network", **row}
            for row in beside(take_turns(fits, few), OURS)
        ]
    steps = {name: _step(name) for name in ("l2-ae", "ssim-ae", "vae", "cae-ssim")}
    with kept_memory():  # as the training loop does
        seconds = take_turns(steps, plan)
    rows += [{"task": "training step of 32 patches of 128 × 128", **row} for row in beside(seconds, "l2-ae")]
    networks = {name: one["fit"] for name, one in found.items() if "DRAEM" in name or "GANomaly" in name}
    if networks:
        networks = {OURS: make_step(make_recipe("blemish", [], 128), 2), **networks}
        rows += [
            {"task": "training step of 2 images of 128 × 128", **row}
            for row in beside(take_turns(networks, plan._replace(rounds=3, turn=0)), OURS)
        ]
    own = image(999)
    calls: dict[str, Call] = {name: _inspection(detector, own) for name, detector in detectors.items()}
    calls |= {name: one["inspect"] for name, one in found.items()}
    rows += [
        {"task": "inspection, from pixels to map and score", **row}
        for row in beside(take_turns(calls, plan), OURS)
    ]
    return {"images": list(good.shape), "rows": rows, "missing": missing}


def _step(name: str) -> Call:
    """Training step of a recipe on patches of 128 × 128, as many as it takes by default."""
    recipe = make_recipe(name, [], 128)
    return make_step(recipe, recipe.training.batch)


def _fit(images: Path, name: str) -> Call:
    return lambda: fitted(images, name)


def _inspection(detector: Any, own: Any) -> Call:
    return lambda: detector.measure(own)


def jpeg(plan: Plan) -> Section:
    """JPEG encoding of one photograph at quality 75, with the size of the file."""
    pixels_ = photograph(256, 384) if plan.quick else photograph(512, 768)
    anchors, unavailable = find_baselines()
    missing = {one.name: one.remedy for one in unavailable}
    ours = Encoder()
    encoders: dict[str, Callable[[], bytes]] = {
        OURS: lambda: ours.encode(pixels_, quality=75, tune="balanced").data,
        **{anchor.name: _encoding(anchor, pixels_) for anchor in anchors},
    }
    rows = beside(take_turns(encoders, plan), "pillow-420")
    for row in rows:
        row["bits a pixel"] = round(
            8 * len(encoders[row["name"]]()) / (pixels_.shape[0] * pixels_.shape[1]), 3
        )
    return {
        "image": list(pixels_.shape),
        "rows": [{"task": "JPEG, quality 75", **row} for row in rows],
        "missing": missing,
    }


def _encoding(anchor: Any, pixels_: Any) -> Callable[[], bytes]:
    return lambda: anchor.encode(pixels_, 75)


def utilisation(plan: Plan) -> Section:
    """FLOP/s of training steps and inspections over those of the machine's own largest matrix product, in turns."""
    bfloat16 = choose_machine().precision == "bfloat16"
    training = {f"training step, {name}": _step(name) for name in ("l2-ae", "ssim-ae", "blemish")}
    with folder(12) as images:
        detectors = {name: fitted(images, name) for name in ("l2-ae", "ssim-ae", "blemish")}
    inspections = {f"inspection, {name}": _inspection(one, image(999)) for name, one in detectors.items()}
    rows = []
    for calls, dtype in (
        (training, torch.bfloat16 if bfloat16 else torch.float32),
        (inspections, torch.float32),
    ):
        peak, operations = peak_call(dtype, 1024 if plan.quick else 2048)
        alone = {f"{name}, operations alone": counted_operations(call) for name, call in calls.items()}
        with kept_memory():
            seconds = take_turns({"matrix product": peak, **calls, **alone}, plan)
        peaks = [operations / one for one in seconds.pop("matrix product")]
        for name, own in seconds.items():
            flops = flops_of({**calls, **alone}[name])
            rates = [flops / one for one in own]
            rows.append(
                {
                    "name": name,
                    "precision": str(dtype).removeprefix("torch."),
                    "GFLOP": round(flops / 1e9, 3),
                    "GFLOP/s": spread([rate / 1e9 for rate in rates]),
                    "peak GFLOP/s": spread([one / 1e9 for one in peaks]),
                    "share of the peak": spread([rate / one for rate, one in zip(rates, peaks, strict=True)]),
                }
            )
    return {"rows": rows, "missing": {}}


def growth(plan: Plan) -> Section:
    """Slopes of the costs by sizes, on logarithmic axes: 1 is linear, 2 quadratic."""
    few = plan._replace(rounds=3, turn=0)
    rows = []

    def add(name: str, by: str, sizes: list[int], make: Callable[[int], Call], how: Plan = plan) -> None:
        seconds = take_turns({str(size): make(size) for size in sizes}, how)
        own = list(seconds.values())
        milliseconds = {size: spread([1000 * one for one in values]) for size, values in seconds.items()}
        rows.append({"name": name, "by": by, "milliseconds": milliseconds, "slope": slope(sizes, own)})

    sides = [192, 256, 384] if plan.quick else [192, 256, 384, 512, 768]
    for recipe in ("blemish", "ssim-ae"):
        detectors = {side: _of_side(recipe, side) for side in sides}
        add(
            f"inspection, {recipe}",
            "pixels of the side of an image",
            sides,
            lambda side, detectors=detectors: _inspection(detectors[side], image(999, side)),
        )
    counts = [8, 16, 32] if plan.quick else [16, 32, 64, 128]
    for recipe in ("blemish", "filter-bank"):
        with tempfile.TemporaryDirectory() as temporary, folder(max(counts)) as images:
            paths = sorted(images.iterdir())
            for count in counts:
                listing = Path(temporary) / f"{count}.csv"
                listing.write_text("\n".join(["path", *map(str, paths[:count])]), encoding="utf-8")
            add(
                f"fit without the steps of a network, {recipe}",
                "images",
                counts,
                lambda count, recipe=recipe: _fit(Path(temporary) / f"{count}.csv", recipe),
                few,
            )
    channels = [1, 2, 4, 8]
    add(
        "SSIM with its gradient",
        "channels",
        channels,
        lambda c: _with_gradients(_mean_ssim, noise(8, c, 128, 128), noise(8, c, 128, 128) * 0.5),
    )
    add("features of structure", "channels", channels, lambda c: _features(noise(1, c, 256, 256)))
    add("inspection by a memory bank", "channels", channels, lambda c: _bank(noise(8, c, 128, 128), 4000))
    capacities = [1000, 2000, 4000, 8000] if plan.quick else [2000, 4000, 8000, 16_000, 32_000]
    add(
        "inspection by a memory bank",
        "rows of the bank",
        capacities,
        lambda rows_: _bank(noise(8, 1, 256, 256), rows_),
    )
    maps = [10, 20, 40] if plan.quick else [25, 50, 100, 200]
    add("pixel metrics", "maps", maps, lambda count: _metrics(*make_images(count, 128)))
    return {"rows": rows, "missing": {}}


def _of_side(recipe: str, side: int) -> Any:
    with folder(12, side) as images:
        return fitted(images, recipe, f"image.size={side}")


def _mean_ssim(x: Tensor, y: Tensor) -> Tensor:
    return ssim(x, y, data_range=1.0).mean()


def _features(x: Tensor) -> Call:
    extractor = Structure()
    return lambda: extractor(x)


def _bank(good: Tensor, rows: int) -> Call:
    bank = StructureMemoryBank(capacity=rows, contrast=False)
    bank.fit_images(list(good), torch.Generator().manual_seed(0), by_place=False)
    x = noise(1, good.shape[1], *good.shape[2:])[0].numpy()
    return lambda: bank.anomaly_map(x)


def _metrics(masks: Any, maps: Any) -> Call:
    return lambda: streaming(masks, maps, 0).result()


def profile(plan: Plan) -> Section:
    """Where the time of a fit and of an inspection goes: the operations of torch, and the functions of the package."""
    count, steps = (12, 5) if plan.quick else (40, 50)
    settings = ["training.budget=null", f"training.steps={steps}", f"training.validate_every={steps}"]
    with folder(count) as images:
        whole = {
            f"fit of `{name}`, {count} images and {steps} steps": profiled(
                lambda name=name: fit(images, name, settings=settings, false_reject_rate=0.2)
            )
            for name in ("blemish", "ssim-ae")
        }
        detectors = {name: fitted(images, name) for name in ("blemish", "ssim-ae")}
    repeats = 3 if plan.quick else 20
    for name, detector in detectors.items():
        detector.measure(image(999))
        whole[f"inspection by `{name}`"] = profiled(
            lambda detector=detector: [detector.measure(image(999)) for _ in range(repeats)]
        )
    return {"rows": [{"name": name, **found} for name, found in whole.items()], "missing": {}}


SECTIONS: dict[str, Callable[[Plan], Section]] = {
    "similarity": similarity,
    "pixels": pixels,
    "recipes": recipes,
    "jpeg": jpeg,
    "utilisation": utilisation,
    "growth": growth,
    "profile": profile,
}
