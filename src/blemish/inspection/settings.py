"""Settings of an inspection, for ``inspection.json`` and for people."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from blemish.inspection.detector import Detector


def settings_in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings of ``inspection.json`` as a report names them; the file keeps the keys of its first version."""
    words = {"level": "pixel threshold"}
    return {
        words.get(key, key.replace("_", " ").replace("pictures", "images")): str(value)
        for key, value in settings.items()
    }


def inspection_settings(detector: Detector) -> dict[str, Any]:
    """Settings of an inspection, for ``inspection.json`` and the report's last section."""
    recipe, file, decision = detector.recipe, detector.file, detector.decision
    return {
        "recipe": recipe.name,
        "score": recipe.score.name,
        "threshold_rule": decision.rule,
        "false_reject_rate": decision.promised_rate,
        "threshold": decision.threshold,
        "level": decision.pixel_threshold,
        "patch": recipe.patch.size,
        "stride": recipe.patch.stride,
        "resized_to": file.preprocessing.size,
        "channels": file.preprocessing.channels,
        "calibration_pictures": len(decision.calibration.scores),
        "training_pictures": len(file.split["train"]),
        "training_steps": file.training.steps,
        "trained_on": file.training.machine_words,
        "pictures_sha256": file.fingerprint.sha256,
        "weights_sha256": file.weights_sha256,
        "fitted_by": f"blemish {file.blemish}",
    }


def scene_settings(
    detector: Detector, hide: Sequence[str], reconstruction: bool, square: int
) -> dict[str, Any]:
    """Settings of an inspection of scenes, for ``inspection.json`` and the report's last section; ``square`` is the side of the scored squares."""
    recipe, file, decision = detector.recipe, detector.file, detector.decision
    return {
        "recipe": recipe.name,
        "modalities": [one.name for one in file.preprocessing.modalities],
        "hidden": list(hide),
        "reconstruction": reconstruction,
        "score": recipe.score.name,
        "threshold_rule": decision.rule,
        "false_reject_rate": decision.promised_rate,
        "threshold": decision.threshold,
        "level": decision.pixel_threshold,
        "patch": recipe.patch.size,
        "stride": recipe.patch.stride,
        "scored_squares": square,
        "calibration_squares": len(decision.calibration.scores),
        "training_steps": file.training.steps,
        "trained_on": file.training.machine_words,
        "pictures_sha256": file.fingerprint.sha256,
        "weights_sha256": file.weights_sha256,
        "fitted_by": f"blemish {file.blemish}",
    }


def area_sha256(detector: Detector) -> str | None:
    """SHA-256 of the region of interest; None where all of an image is judged."""
    area = detector.file.preprocessing.area
    return None if area is None else hashlib.sha256(area.model_dump_json().encode()).hexdigest()
