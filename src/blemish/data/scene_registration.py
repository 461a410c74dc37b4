"""Registration of the modalities of a scene: maps found from overviews, written as transforms to its description."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from blemish.data.affine import Transform, as_transform, scaling
from blemish.data.modality import Modality
from blemish.data.registration import Motion, Registration, register
from blemish.data.scene_description import MODALITIES_FILE, description_of, read_description
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import Scene, find_scenes
from blemish.errors import FileError, ImageError, Stopped, UsageError, nearest
from blemish.observer import Observer
from blemish.storage.atomic import write_text

if TYPE_CHECKING:
    from blemish.storage.pyramid import Raster

WHOLE_SIDE = 4096
"""Longer side up to which images are registered at full resolution; larger ones are reduced by whole steps."""
ALIGNED = 0.3
"""Displacement in pixels of the grid up to which a modality counts as registered; resampling would cost more."""
_CHANNELS = 4
_STRIP_PIXELS = 2**24


@dataclass(frozen=True)
class RegisteredModality:
    """Result of the registration of one modality in one scene."""

    scene: str
    name: str
    transform: Transform | None
    """From the grid's pixels to its own; None where no map is sure, and where it is registered already."""
    shift: tuple[float, float]
    """Pixels of the grid by which the middle of the scene is displaced, across and down, against aligned edges."""
    confidence: float
    error: float
    """Root mean square departure of the windows from the map, in pixels of the grid."""
    agreeing: int
    windows: int
    by_way_of: str
    """Modality that it was compared with: the grid's, or one that had been registered to it."""

    def in_words(self) -> str:
        """One line for the user."""
        if not self.agreeing:
            return (
                f"{self.scene}: {self.name}: not registered; it shares too few edges with {self.by_way_of}, or shows "
                "another part of the surface"
            )
        if self.transform is None:
            return f"{self.scene}: {self.name}: is registered to {self.by_way_of} already (within {ALIGNED} pixels)"
        dx, dy = self.shift
        return (
            f"{self.scene}: {self.name}: {dx:+.1f} pixels across, {dy:+.1f} down in the middle, against {self.by_way_of}; "
            f"{self.agreeing} of {self.windows} windows agree to {self.error:.2f} pixels (confidence {self.confidence:.0f})"
        )


def register_scenes(
    source: str | Path,
    *,
    grid: str | None = None,
    motion: Motion = "affine",
    dry_run: bool = False,
    observer: Observer | None = None,
) -> list[RegisteredModality]:
    """Register the modalities of scenes to one of them, and write the transforms into ``modalities.yaml``.

    No image is changed: readers apply the transforms window by window. The file is made where there is none; in one
    that is there only the entries ``transforms`` and ``grid`` change.

    Parameters
    ----------
    source: scenes, as :func:`blemish.data.scenes.find_scenes` takes them.
    grid: the modality to register to; that of the description, or the one with most pixels.
    motion: a translation, or an affine map, which has scale, rotation and shear as well.
    dry_run: whether to write nothing.

    Raises
    ------
    FileError, ImageError, UsageError
        When there is no scene, a file cannot be read or written, or ``grid`` is no modality.
    Stopped
        When the observer asked to stop; nothing is written then.
    """
    observer = observer or Observer()
    source = Path(source)
    scenes = find_scenes(source)
    names = [one.name for one in scenes[0].modalities]
    if grid is not None and grid not in names:
        raise UsageError(f"--grid {grid}: is no modality; {nearest(grid, names)}")
    marked = next((one.name for one in scenes[0].modalities if one.grid), None)
    chosen = grid or marked or _finest(scenes)
    found: list[RegisteredModality] = []
    for done, scene in enumerate(scenes):
        if observer.should_stop():
            raise Stopped(f"stopped after {done} of {len(scenes)} scenes; nothing is written")
        try:
            found += _register_scene(scene, chosen, motion)
        except ImageError as error:
            observer.problem(error)
        observer.count(done + 1, len(scenes))
    if not dry_run and any(one.transform is not None for one in found):
        _write(source, scenes, chosen, found)
    return found


def _finest(scenes: Sequence[Scene]) -> str:
    """The modality with most pixels in the first scene that has any file."""
    pixels: dict[str, int] = {}
    for modality in scenes[0].modalities:
        for scene in scenes:
            opened = _alone(scene, modality)
            if opened is not None:
                pixels.setdefault(modality.name, opened.height * opened.width)
    if not pixels:
        raise ImageError(scenes[0].folder, "holds none of its modalities' files", "add them, or remove it")
    return max(pixels, key=lambda name: pixels[name])


def _alone(scene: Scene, modality: Modality) -> SceneReader | None:
    """The reader of one modality in its own pixels; None where there is no file of it."""
    plain = modality.model_copy(update={"transform": None, "grid": False, "scale": None})
    try:
        return SceneReader(replace(scene, modalities=(plain,)))
    except ImageError as error:
        if error.path == scene.folder:
            return None
        raise


def _register_scene(scene: Scene, grid: str, motion: Motion) -> list[RegisteredModality]:
    readers = {one.name: reader for one in scene.modalities if (reader := _alone(scene, one)) is not None}
    if grid not in readers:
        problem = f"has no {grid}, which the others are registered to"
        raise ImageError(scene.folder, problem, "add it, or name another one by --grid")
    overviews = {name: overview(reader) for name, reader in readers.items()}
    placed: dict[str, NDArray[np.float64]] = {grid: np.eye(3)}
    found: list[RegisteredModality] = []
    unsure = [
        name
        for name in readers
        if name != grid and not _placed(scene, grid, name, grid, readers, overviews, placed, motion, found)
    ]
    for name in unsure:  # an X-ray may share more edges with the infrared than with the visible image
        others = [other for other in placed if other != grid]
        if not any(
            _placed(scene, grid, name, other, readers, overviews, placed, motion, found) for other in others
        ):
            found.append(RegisteredModality(scene.name, name, None, (0, 0), 0, 0, 0, 0, grid))
    return found


def _placed(
    scene: Scene,
    grid: str,
    name: str,
    other: str,
    readers: dict[str, SceneReader],
    overviews: dict[str, tuple[NDArray[np.float32], int]],
    placed: dict[str, NDArray[np.float64]],
    motion: Motion,
    found: list[RegisteredModality],
) -> bool:
    """Register a modality by way of another one; True if its map is sure, which is added to the results then."""
    (first, first_step), (second, second_step) = overviews[other], overviews[name]
    result: Registration | None = register(first, second, motion)
    if result is None:
        return False
    between = scaling(second_step, second_step) @ result.matrix @ scaling(1 / first_step, 1 / first_step)
    matrix = between @ placed[other]
    placed[name] = matrix
    reader, own = readers[grid], readers[name]
    ratio = scaling(reader.width / own.width, reader.height / own.height)
    corners = np.array([[0.5, 0, 0, 1, 1], [0.5, 0, 1, 0, 1], [1] * 5])
    corners = scaling(reader.width, reader.height) @ corners
    moves = (ratio @ matrix @ corners - corners)[:2]  # (2, 5), of the middle first
    dx, dy = moves[:, 0]
    is_aligned = bool(np.hypot(*moves).max() < ALIGNED)
    found.append(
        RegisteredModality(
            scene.name,
            name,
            None if is_aligned else as_transform(matrix),
            (float(dx), float(dy)),
            result.confidence,
            result.error * first_step,
            result.agreeing,
            result.windows,
            other,
        )
    )
    return True


def overview(reader: SceneReader | Raster) -> tuple[NDArray[np.float32], int]:
    """Reduce a scene by means over whole steps to at most 4,096 pixels a side: (C, h, w), and the step.

    Of many channels four are taken.
    """
    step = -(-max(reader.height, reader.width) // WHOLE_SIDE)
    rows, columns = reader.height // step, reader.width // step
    chosen = np.unique(
        np.linspace(0, reader.channels - 1, min(_CHANNELS, reader.channels)).round().astype(int)
    )
    result = np.empty((len(chosen), rows, columns), np.float32)
    height = max(1, _STRIP_PIXELS // (step * reader.width))
    for top in range(0, rows, height):
        bottom = min(rows, top + height)
        strip = reader.read(top * step, 0, (bottom - top) * step, columns * step)[chosen]
        result[:, top:bottom] = strip.reshape(len(chosen), bottom - top, step, columns, step).mean((2, 4))
    return result, step


# -- description ---------------------------------------------------------------------------------------


def _write(source: Path, scenes: Sequence[Scene], grid: str, found: Sequence[RegisteredModality]) -> None:
    """Write the transforms to the description of ``source``, which is made where there is none."""
    path = description_of(source)
    if path is None:
        path = source / MODALITIES_FILE
        _refuse_other_names(source, scenes)
        text = _new_description(scenes[0].modalities)
        transforms: dict[str, dict[str, Any]] = {}
    else:
        text = path.read_text(encoding="utf-8")
        described = read_description(path)
        transforms = {scene: dict(own) for scene, own in described.transforms.items()}
    for one in found:
        own = transforms.setdefault(one.scene, {})
        own.pop(one.name, None)
        if one.transform is not None:
            own[one.name] = one.transform
    rows = {
        scene: {name: [[round(value, 7) for value in row] for row in matrix] for name, matrix in own.items()}
        for scene, own in transforms.items()
        if own
    }
    text = _without_keys(text, ("grid", "transforms"))
    text += yaml.safe_dump({"grid": grid}, allow_unicode=True)
    text += yaml.safe_dump({"transforms": rows}, allow_unicode=True, default_flow_style=None, width=120)
    _check(path, text, grid, rows)
    write_text(path, text)


def _refuse_other_names(source: Path, scenes: Sequence[Scene]) -> None:
    """Refuse to describe scenes whose files of a modality have several names."""
    for number, modality in enumerate(scenes[0].modalities):
        names = sorted({scene.modalities[number].file for scene in scenes})
        if len(names) > 1:
            problem = f"has files of '{modality.name}' under several names ({', '.join(names)})"
            raise FileError(source, problem, f"give all scenes the same names, or write {MODALITIES_FILE}")


def _new_description(modalities: Sequence[Modality]) -> str:
    listed = [{"name": one.name, "file": one.file} for one in modalities]
    return yaml.safe_dump(
        {"modalities": listed}, allow_unicode=True, sort_keys=False, default_flow_style=None
    )


def _without_keys(text: str, keys: Sequence[str]) -> str:
    """The lines of a YAML mapping without those of some of its keys; comments and the order of others stay."""
    kept, skipping = [], False
    for line in text.splitlines():
        key = re.match(r"""["']?([\w-]+)["']?\s*:""", line)
        if key is not None:
            skipping = key.group(1) in keys
        elif skipping and line and not line[0].isspace() and line[0] != "-":
            skipping = False
        if not skipping:
            kept.append(line)
    return "".join(f"{line}\n" for line in kept)


def _check(path: Path, text: str, grid: str, rows: dict[str, Any]) -> None:
    """Refuse a description that the changed lines do not describe, as one in YAML's flow style is."""
    try:
        data = yaml.safe_load(text)
        before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else data
    except yaml.YAMLError:
        data = before = None
    if isinstance(data, dict) and isinstance(before, dict):
        changed = {**before, "grid": grid, "transforms": rows}
        if data == changed:
            return
    raise FileError(
        path, "is written in a way that transforms cannot be added to", "write a key a line, as in the guide"
    )
