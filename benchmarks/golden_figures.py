"""Figures of models, inspections and written files, as the golden runs keep them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Where results say when, how fast, by what and in which words they were made.
LEFT_OUT = {
    "time", "seconds", "training_seconds", "milliseconds_per_image", "command", "machine", "versions", "settings",
    "paper", "expect", "title", "images", "notices", "notes", "guarantee", "features", "path",
}  # fmt: skip


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def of_array(values: Any) -> str:
    """Type, shape and hash of an array."""
    array = np.ascontiguousarray(values)
    return f"{array.dtype} {'x'.join(map(str, array.shape))} {sha256(array.tobytes())}"


def of_weights(folder: Path) -> str:
    """Hash of a model's set of tensors, whatever their names; scalars are settings and counters."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / "model.safetensors").values()
    return sha256("\n".join(sorted(of_array(tensor) for tensor in tensors if tensor.ndim)).encode())


def of_images(folder: Path) -> dict[str, Any]:
    """Pixels of all PNG files in a folder, with the scale of maps; not their other text, which is prose."""
    figures: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as image:
            figures[path.relative_to(folder).as_posix()] = [of_array(image), image.info.get("blemish:scale")]
    return figures


def of_tiled(folder: Path) -> dict[str, str]:
    """The values of all Zarr arrays in a folder."""
    import zarr

    return {
        f"{path.relative_to(folder).as_posix()}/{name}": of_array(array[...])
        for path in sorted(folder.rglob("*.zarr"))
        for name, array in sorted(zarr.open_group(str(path), mode="r").arrays())
    }


def figures_of(value: Any) -> Any:
    """Reduce a result to JSON values, without prose and without values that differ from run to run."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {str(key): figures_of(item) for key, item in value.items() if key not in LEFT_OUT}
    if isinstance(value, list | tuple):
        return [figures_of(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def pixel_threshold_of(result: Any) -> float:
    return float(result.pixel_threshold)


def of_inspection(detector: Any, source: Any) -> dict[str, Any]:
    found = detector.inspect(source)
    return {
        "score": float(found.score),
        "p_value": float(found.p_value),
        "is_anomalous": bool(found.is_anomalous),
        "map": of_array(found.map),
        "reconstruction": of_array(found.reconstruction),
        "regions": figures_of(found.regions),
    }


def of_model(folder: Path) -> dict[str, Any]:
    """Weights, calibration and the course of training, as the model folder has them.

    A document of format 2 is read under the names of format 1, so that both can be compared.
    """
    document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    training, calibration = document["training"], _calibration(document.get("calibration", {}))
    # Of scenes the split is of columns; which squares calibrate shows in their scores.
    split = {} if calibration.get("square") or "split" not in document else {"split": document["split"]}
    candidates = document.get("candidates", training.get("candidates", []))
    figures: dict[str, Any] = figures_of(
        {
            "weights": of_weights(folder),
            **({"calibration": calibration} if calibration else {}),
            **split,
            "history": [_look(look) for look in training["history"]],
            "best": [training["steps"], training["best_step"], training["best_loss"]],
            **({"left_out": training["left_out"]} if "left_out" in training else {}),
            **({"candidates": [_candidate(one) for one in candidates]} if "calibration" in document else {}),
        }
    )
    return figures


def _calibration(calibration: dict[str, Any]) -> dict[str, Any]:
    if "unit" not in calibration:
        return calibration
    own = {key: value for key, value in calibration.items() if key not in ("unit", "map_maxima")}
    unit = calibration["unit"]
    return {
        **own,
        "peaks": calibration["map_maxima"],
        "square": unit.get("side"),
        "groups": unit.get("groups"),
    }


def _look(look: dict[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in look.items() if key != "terms"}
    return {**own, **{f"validation {name}": value for name, value in look.get("terms", {}).items()}}


def _candidate(candidate: dict[str, Any]) -> dict[str, Any]:
    """Without the weights of the members, which follow from the share."""
    return {key: value for key, value in candidate.items() if key != "weights"}


def of_records(folder: Path) -> list[Any]:
    lines = (folder / "inspections.jsonl").read_text(encoding="utf-8").splitlines()
    return [[json.loads(line)["path"], figures_of(json.loads(line))] for line in lines]


def command(*words: object) -> str:
    """Run the command line in this process, and return its standard output."""
    before, output, errors = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["blemish", *map(str, words)]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            runpy.run_module("blemish", run_name="__main__")
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = before
    if code:
        raise RuntimeError(f"blemish {' '.join(map(str, words))}: exit code {code}\n{errors.getvalue()}")
    return output.getvalue()


def options(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]
