"""Checks of a scene in a few windows: registration of its modalities, and values that use little of their range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blemish.data.modality import Modality, channel_slices
from blemish.data.phase_correlation import Array, Offset, cross_power, edge_strength, find_peak
from blemish.data.registration import SURE
from blemish.data.scene_reader import SceneReader

LOW_SHARE = 1 / 8
"""Share of full scale below which nearly all values of a modality are reported."""
QUANTILE = 0.999
SIDE, LEAST_SIDE = 256, 128
LEAST_OFFSET = 1.5
"""Offset in pixels from which it is reported."""
_CHANNELS = 8
_SAMPLED = 7


class ModalityCheck(NamedTuple):
    """Result of the checks of one modality."""

    offset: Offset | None
    """Against the grid's modality; None for that one, for one without pixels, and in a small scene."""
    high: float | None
    """Quantile of its values in [0, 1]; None where it has none."""

    @property
    def is_displaced(self) -> bool:
        """True if the modality is surely displaced."""
        offset = self.offset
        return (
            offset is not None
            and offset.confidence >= SURE
            and math.hypot(offset.dx, offset.dy) > LEAST_OFFSET
        )


def check_scene(reader: SceneReader) -> dict[str, ModalityCheck]:
    """Check each present modality of a scene in nine windows of at most 256 × 256 pixels.

    Raises
    ------
    ImageError
        When a file is damaged there.
    """
    size = min(SIDE, reader.height, reader.width)
    names = [one.name for one in reader.modalities if one.name not in reader.missing]
    marked = [one.name for one in reader.modalities if one.grid and one.name in names]
    grid = marked[0] if marked else reader.finest
    edges: dict[str, list[Array | None]] = {name: [] for name in names}
    values: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    slices = dict(
        zip((one.name for one in reader.modalities), channel_slices(reader.modalities), strict=True)
    )
    for top in _spread(reader.height, size):
        for left in _spread(reader.width, size):
            pixels = reader.read(top, left, size, size)
            for name in names:
                own = pixels[slices[name]]
                sampled = own[:, ::_SAMPLED, ::_SAMPLED]
                values[name].append(sampled[np.isfinite(sampled)])
                few = own[:: max(1, len(own) // _CHANNELS)]
                edges[name].append(edge_strength(few) if size >= LEAST_SIDE else None)
    offsets = _offsets(grid, edges, size)
    return {
        name: ModalityCheck(
            offsets.get(name),
            float(np.quantile(np.concatenate(values[name]), QUANTILE))
            if any(len(part) for part in values[name])
            else None,
        )
        for name in names
    }


def describe_checks(reader: SceneReader, checks: Mapping[str, ModalityCheck]) -> list[str]:
    """A line for each modality that is displaced, cannot be checked, or uses little of its range."""
    lines = []
    modalities = {one.name: one for one in reader.modalities}
    for name, check in checks.items():
        offset = check.offset
        if offset is not None and check.is_displaced:
            lines.append(
                f"{name}: is displaced by {offset.dx:+.1f} pixels across and {offset.dy:+.1f} down (confidence "
                f"{offset.confidence:.0f}, sure from {SURE:.0f}); align it by: blemish register {reader.scene.folder}"
            )
        elif offset is not None and offset.confidence < SURE:
            lines.append(
                f"{name}: has too few edges at the places of the other modalities' edges to check its registration "
                f"(confidence {offset.confidence:.0f}, sure from {SURE:.0f})"
            )
        if check.high is not None and check.high < LOW_SHARE and modalities[name].range is None:
            lines.append(_low_line(reader, modalities[name], check.high))
    return lines


def _low_line(reader: SceneReader, modality: Modality, high: float) -> str:
    depth = reader.depths[modality.name]
    proposal = "range: auto"
    if depth in {"uint8", "uint16"}:
        top = high * (255 if depth == "uint8" else 65535)
        bits = max(1, math.ceil(math.log2(top + 1)))
        proposal = f"range: [0, {2**bits - 1}], or range: auto,"
    share = f"{100 * high:.2g} %"
    return (
        f"{modality.name}: 99.9 % of its values are below {share} of full scale, so that it hardly counts; write "
        f"{proposal} in modalities.yaml"
    )


def _offsets(grid: str, edges: Mapping[str, list[Array | None]], size: int) -> dict[str, Offset]:
    """Offset of each modality but ``grid``; of one without edges in common with it, by way of another one."""
    found: dict[str, Offset] = {}
    for name in edges:
        if name != grid and (offset := _offset(edges[grid], edges[name], size)) is not None:
            found[name] = offset
    sure = {name: offset for name, offset in found.items() if offset.confidence >= SURE}
    for name, offset in found.items():
        if name in sure:
            continue
        for between, first in sure.items():
            second = _offset(edges[between], edges[name], size)
            if second is not None and second.confidence > max(SURE, offset.confidence):
                confidence = min(first.confidence, second.confidence)
                found[name] = Offset(first.dx + second.dx, first.dy + second.dy, confidence)
                break
    return found


def _offset(first: list[Array | None], second: list[Array | None], size: int) -> Offset | None:
    total: NDArray[Any] | None = None
    for one, other in zip(first, second, strict=True):
        if one is not None and other is not None:
            power = cross_power(one, other)
            total = power if total is None else total + power
    return None if total is None else find_peak(total, (size, size))


def _spread(length: int, side: int) -> list[int]:
    last = max(0, length - side)
    return sorted({round(last * number / 2) for number in range(3)})
