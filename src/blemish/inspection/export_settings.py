"""Settings of an exported model for other programs: one level of JSON, which a few lines of any language read."""

from __future__ import annotations

from blemish.data.appearance import SIZES, accepted, without
from blemish.inspection.document import ModelFile
from blemish.preprocessing.transform import Preprocessing
from blemish.runtime.record import Export, ExportedNetwork

SETTINGS_FILE = "settings.json"
"""In the folder of an exported model. Blemish itself reads model.json."""
FORMAT = 1
FULL_SCALE = {"uint8": 255, "uint16": 65535, "float32": 1}

Value = str | int | float | bool


def export_settings(file: ModelFile, record: Export) -> dict[str, Value]:
    """Preprocessing, tiles, score and thresholds of an exported model; ``export_guide`` says what each key means."""
    own, rule, decision = file.preprocessing, file.recipe.score, file.decision
    settings: dict[str, Value] = {
        "format": FORMAT,
        "subject": file.subject,
        "pixel_type": own.kind,
        "full_scale": FULL_SCALE[own.kind],
        "range": own.range or FULL_SCALE[own.kind],
        "channels": own.channels,
        "convert_channels": own.convert,
        **_resizing(own),
        "pose": own.crop is not None,
        "area": own.area is not None,
        "members": ", ".join(record.names),
        "combination": record.combination or "none",
        "score": rule.name,
        "score_sigma": rule.sigma,
        "score_quantile": rule.quantile,
    }
    if record.combination is None and isinstance(record.members[0], ExportedNetwork):
        network = record.members[0]
        settings |= {"graph": network.graph, "tile": network.patch, "tile_stride": network.stride}
    if decision is not None:
        settings |= {"threshold": decision.threshold, "pixel_threshold": decision.pixel_threshold}
    if file.recipe.image.other_kinds == "reject":
        good = without(file.fingerprint.appearance, SIZES if own.size is not None else ())
        for name, limits in accepted(good).items():
            settings |= {f"least_{name}": limits.low, f"most_{name}": limits.high}
    return settings


def _resizing(own: Preprocessing) -> dict[str, Value]:
    if own.crop is None and own.scale is not None:
        return {"resize": "factor", "resize_factor": own.scale}
    if own.crop is None and own.size is not None:
        return {"resize": "shorter side", "resize_side": own.size}
    return {"resize": "none"}
