"""``model.json`` of format 1 in the words of the newest format.

Format 1 kept facts as text: machine (``"CPU, 2 of 2 cores; float32 …"``), held-out terms of the loss
(``"validation mse"``), and parts of scenes (``"eve, columns 0 to 306"``).

Scores of squares of scenes in format 1 were measured on another scoring path than those of an inspection, so they are
left out: such a model is to be calibrated again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from blemish.recipes.compat import upgrade_recipe
from blemish.storage.training_record import upgrade_training_v1


def upgrade_v1(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a detector's document, of its ``content`` in format 1.

    Raises
    ------
    KeyError, TypeError, ValueError
        When ``content`` is no document of format 1.
    """
    upgraded = dict(content)
    calibration = upgraded.pop("calibration")
    upgraded["preprocessing"] = upgraded.pop("preparation")
    training, split = upgraded["training"], upgraded["split"]
    if calibration.get("square") is not None:
        upgraded["calibration"] = None
        upgraded["split"] = {part: [_columns(place) for place in places] for part, places in split.items()}
    else:
        upgraded["calibration"] = _calibration(calibration)
    return {
        **upgraded,
        "kind": "detector",
        "format": 2,
        "recipe": upgrade_recipe(upgraded["recipe"]),
        "training": upgrade_training_v1(training),
        "candidates": training.get("candidates", []),
    }


def _calibration(before: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: before[key] for key in ("scores", "training_scores", "left_out") if key in before}
    groups = before.get("groups")
    unit = {"kind": "images"} if groups is None else {"kind": "grouped images", "groups": groups}
    return {**own, "map_maxima": before["peaks"], "unit": unit}


def _columns(place: str) -> dict[str, Any]:
    found = re.fullmatch(r"(?s)(?P<scene>.*), columns (?P<first>\d+) to (?P<last>\d+)", place)
    if found is None:
        raise ValueError(f"'{place}' names no columns of a scene")
    return {"scene": found["scene"], "start": int(found["first"]), "stop": int(found["last"]) + 1}
