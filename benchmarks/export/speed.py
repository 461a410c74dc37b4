"""Time of an inspection from file to record, in torch and in each runtime, and where it goes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.export.models import fitted, grey, images_in, posed
from blemish.data.appearance import appearance
from blemish.data.image import read_image
from blemish.detectors.combination import CombinedModel
from blemish.export.export_model import export_model, exported_detector
from blemish.export.parts import parts_of
from blemish.inspection.detector import Detector, load
from blemish.inspection.folder import inspect_folder
from blemish.observer import Observer
from blemish.recipes import recipe_names
from blemish.runtime.model import ExportedModel
from blemish.runtime.record import RuntimeName

RUNTIMES: tuple[RuntimeName, ...] = ("onnx", "openvino")
SETS = {"texture": ("surface", grey), "object in one pose": ("rod", posed)}
"""Images, with the name of their family and how they are drawn."""


def interleaved(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each function, called in turns, so that other work on the machine meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(rounds + 1):
        for name, function in functions.items():
            begun = time.perf_counter()
            function()
            if round_:
                seconds[name].append(time.perf_counter() - begun)
    return {name: median(values) for name, values in seconds.items()}


def whole(work: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Milliseconds of an image, from file to decision, of the default on surfaces and on posed rods."""
    for name, (_, write) in SETS.items():
        data = write(work / name)
        good, paths = data / "train" / "good", images_in(data)
        fitted("blemish", good, work / name / "torch")
        detectors = {"torch": load(work / name / "torch")}
        for runtime in RUNTIMES:
            export_model(work / name / "torch", work / name / runtime, to=runtime)
            detectors[runtime] = load(work / name / runtime)
        functions = {
            variant: lambda detector=detector, path=paths[0]: detector.inspect(path)
            for variant, detector in detectors.items()
        }
        seconds = interleaved(functions, rounds)
        for variant, own in seconds.items():
            yield {
                "images": name,
                "runtime": variant,
                "milliseconds": round(1000 * own, 1),
                "times_as_quick_as_torch": round(seconds["torch"] / own, 2),
            }


def folders(work: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Milliseconds of an image in ``blemish inspect``, records, maps and report included."""
    data = grey(work / "folders")
    good = data / "train" / "good"
    fitted("blemish", good, work / "folders" / "torch")
    models = {"torch": work / "folders" / "torch"}
    for runtime in RUNTIMES:
        export_model(models["torch"], work / "folders" / runtime, to=runtime)
        models[runtime] = work / "folders" / runtime
    count = len(images_in(data))
    functions = {
        name: lambda folder=folder, name=name: inspect_folder(
            load(folder), data / "test", work / "found" / name, overwrite=True, observer=Observer()
        )
        for name, folder in models.items()
    }
    seconds = interleaved(functions, rounds)
    for name, own in seconds.items():
        yield {
            "folder": f"{count} images",
            "runtime": name,
            "milliseconds": round(1000 * own / count, 1),
            "times_as_quick_as_torch": round(seconds["torch"] / own, 2),
        }


def stages(work: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Milliseconds of each stage of an inspection by the default, on the models of :func:`whole`."""
    for name, (family, _) in SETS.items():
        path = images_in(work / name / family)[0]
        for variant in ("torch", "onnx"):
            detector = load(work / name / variant)
            seconds = interleaved(_stages(detector, path), rounds)
            for stage, own in seconds.items():
                yield {
                    "images": name,
                    "runtime": variant,
                    "stage": stage,
                    "milliseconds": round(1000 * own, 2),
                }


def _stages(detector: Detector, path: Path) -> dict[str, Callable[[], Any]]:
    image = read_image(path)
    placed = detector.file.preprocessing.apply(image)
    x = placed.model_input
    model = detector.model.model if isinstance(detector.model, ExportedModel) else detector.model
    assert isinstance(model, CombinedModel)
    anomaly, _ = detector.examine(x)
    members = {
        model.models[number].title: lambda own=model.models[number]: own.maps(x) for number in model.used
    }
    return {
        "read": lambda: read_image(path),
        "scale and pose": lambda: detector.file.preprocessing.apply(image),
        "kind of image": lambda: appearance(image),
        **members,
        "all members, combined": lambda: detector.examine(x),
        "score": lambda: detector.score(placed.judged(anomaly)),
        "map at the image's size": lambda: placed.map_back(anomaly),
        "whole": lambda: detector.inspect(path),
    }


def recipes(work: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Milliseconds of an image of 256 × 256 pixels by every recipe, in torch and in each runtime."""
    data = grey(work / "recipes")
    good, path = data / "train" / "good", images_in(data)[0]
    for recipe in (name for name in recipe_names() if name != "other-pixels"):  # which is of scenes alone
        torch.manual_seed(0)
        folder = work / "models" / recipe
        detectors = {"torch": fitted(recipe, good, folder / "torch")}
        parts = parts_of(detectors["torch"].model, detectors["torch"].file.preprocessing.channels)
        for runtime in RUNTIMES:
            detectors[runtime] = exported_detector(
                detectors["torch"], runtime, folder / runtime, Observer(), parts
            )
        functions = {
            name: lambda detector=detector: detector.inspect(path) for name, detector in detectors.items()
        }
        seconds = interleaved(functions, rounds)
        for name, own in seconds.items():
            yield {
                "recipe": recipe,
                "runtime": name,
                "milliseconds": round(1000 * own, 1),
                "times_as_quick_as_torch": round(seconds["torch"] / own, 2),
            }
        shutil.rmtree(folder)
