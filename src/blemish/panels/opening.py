"""The panels that a model is fitted on: which scenes can be used, what their sensors are, how they are divided."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blemish.errors import FileError, PictureError, Stopped
from blemish.images.fingerprint import Fingerprint, Spread, sampled_sha256
from blemish.images.modalities import Modality, Scene, find_scenes, scene_files
from blemish.images.windows import Kept
from blemish.observer import Observer
from blemish.panels.bands import Bands, divided
from blemish.panels.reading import WHOLE_LIMIT, Panel


@dataclass(frozen=True)
class Panels:
    """Scenes that can be fitted on."""

    panels: tuple[Panel, ...]
    bands: tuple[Bands, ...]
    modalities: tuple[Modality, ...]
    """That the model is to know: those of which at least one panel has a file."""
    fingerprint: Fingerprint


def open_panels(source: Path, *, patch: int, observer: Observer) -> Panels:
    """Open the scenes that ``source`` names, to fit on patches of ``patch`` pixels.

    The observer is told of each scene that cannot be used, and of what is missing or resampled in others. A
    modality that seems constant in a scene carries nothing there: it is told as a problem and taken for
    missing. A modality that no scene has is left out of the model.

    Raises
    ------
    FileError
        There are no scenes, or none can be used.
    Stopped
        When the observer asked to stop.
    """
    scenes = find_scenes(source)
    kept = Kept(WHOLE_LIMIT)
    panels: list[Panel] = []
    for done, scene in enumerate(scenes, start=1):
        if observer.should_stop():
            raise Stopped(f"stopped after opening {done - 1} of {len(scenes)} scenes, before training")
        try:
            panels.append(_opened(scene, patch, kept, observer))
        except PictureError as error:
            observer.problem(error)
        observer.count(done, len(scenes))
    if not panels:
        raise FileError(source, "holds no scene that can be used", "mend the files above, or add others")

    present = [
        modality.name
        for modality in scenes[0].modalities
        if any(modality.name not in panel.missing for panel in panels)
    ]
    for modality in scenes[0].modalities:
        if modality.name not in present:
            observer.stage(f"{modality.name}: in none of the scenes; the model is fitted without it")
    panels = [_with_only(panel, present, kept) for panel in panels]
    for panel in panels:
        for notice in panel.notices:
            observer.stage(f"{panel.name}: {notice}")
    modalities = tuple(
        modality.model_copy(update={"depth": _most_common_depth(panels, modality.name)})
        for modality in panels[0].modalities
    )
    return Panels(
        panels=tuple(panels),
        bands=tuple(divided(panel, patch) for panel in panels),
        modalities=modalities,
        fingerprint=_fingerprint(panels),
    )


def _opened(scene: Scene, patch: int, kept: Kept, observer: Observer) -> Panel:
    panel = Panel(scene, kept=kept)
    divided(panel, patch)
    panel.check()
    constant = panel.constant()
    if not constant:
        return panel
    files = scene_files(scene)
    errors = [
        PictureError(
            files[name][0],
            f"is {value:g} of full scale in all 16 windows that were looked at, so it shows nothing",
            "scan it again, or leave it out",
        )
        for name, value in constant.items()
    ]
    if len(constant) + len(panel.missing) == len(scene.modalities):
        raise errors[0]
    for error in errors:
        observer.problem(error)
    return Panel(scene, without=[*constant], kept=kept)


def _with_only(panel: Panel, names: Sequence[str], kept: Kept) -> Panel:
    modalities = tuple(modality for modality in panel.scene.modalities if modality.name in names)
    without = [name for name in panel.missing if name in names]
    return Panel(replace(panel.scene, modalities=modalities), without=without, kept=kept)


def _most_common_depth(panels: Sequence[Panel], name: str) -> str:
    depths = Counter(panel.depths[name] for panel in panels if name in panel.depths)
    return depths.most_common(1)[0][0]


def _fingerprint(panels: Sequence[Panel]) -> Fingerprint:
    """``sha256`` changes with the name of a scene, a modality or a file, and with the content of a file.

    Files of more than 64 MiB are sampled (``sampled_sha256``).
    """
    digest = hashlib.sha256()
    for panel in sorted(panels, key=lambda panel: panel.name):
        for name, files in scene_files(panel.scene).items():
            for file in files if name not in panel.missing else []:
                path = file.relative_to(panel.scene.folder).as_posix()
                line = f"{sampled_sha256(file)}  {panel.name}/{path}  {name}\n"
                digest.update(os.fsencode(line))
    return Fingerprint(
        count=len(panels),
        channels=panels[0].channels,
        kind="float32",
        width=_spread([panel.width for panel in panels]),
        height=_spread([panel.height for panel in panels]),
        sha256=digest.hexdigest(),
    )


def _spread(lengths: Sequence[int]) -> Spread:
    return Spread(min=min(lengths), median=statistics.median(lengths), max=max(lengths))
