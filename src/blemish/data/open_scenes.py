"""The panels that a model is fitted on: which scenes can be used, what their sensors are, how they are divided."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blemish.data.fingerprint import Fingerprint, Spread, sampled_sha256
from blemish.data.scene_reader import WHOLE_LIMIT, Probed, SceneReader
from blemish.data.scene_splits import Bands, divided
from blemish.data.scenes import Modality, Scene, find_scenes, scene_files
from blemish.data.windowed import DecodedCache
from blemish.errors import FileError, ImageError, Stopped
from blemish.observer import Observer


@dataclass(frozen=True)
class OpenedScenes:
    """Scenes that can be fitted on."""

    panels: tuple[SceneReader, ...]
    bands: tuple[Bands, ...]
    modalities: tuple[Modality, ...]
    """That the model is to know: those of which at least one panel has a file."""
    fingerprint: Fingerprint


def open_scenes(source: Path, *, patch: int, observer: Observer) -> OpenedScenes:
    """Open the scenes that ``source`` names, to fit on patches of ``patch`` pixels.

    The observer is told of each scene that cannot be used, and of what is missing or resampled in others. A
    modality that seems constant in a scene carries nothing there: it is told as a problem and taken for
    missing. A modality that no scene has is left out of the model.

    All scenes have the grid of one modality, so that the network meets each sensor at one scale: the one that is
    said, or that has most pixels in most scenes. A scene without it is brought to the scale that its other
    sensors have in the rest.

    Raises
    ------
    FileError
        There are no scenes, or none can be used.
    Stopped
        When the observer asked to stop.
    """
    scenes = find_scenes(source)
    cache = DecodedCache(WHOLE_LIMIT)
    panels: list[SceneReader] = []
    for done, scene in enumerate(scenes, start=1):
        if observer.should_stop():
            raise Stopped(f"stopped after opening {done - 1} of {len(scenes)} scenes, before training")
        try:
            panels.append(_opened(scene, cache, observer))
        except ImageError as error:
            observer.problem(error)
        observer.count(done, len(scenes))
    if panels:
        panels = _on_one_grid(panels, patch, cache, observer)
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
    depths = {name: _most_common(panel.depths.get(name) for panel in panels) for name in present}
    panels = [
        _changed(
            panel,
            [
                one.model_copy(update={"depth": depths[one.name]})
                for one in panel.modalities
                if one.name in present
            ],
            cache,
        )
        for panel in panels
    ]
    for panel in panels:
        for notice in panel.notices:
            observer.stage(f"{panel.name}: {notice}")
    scales = _scales(panels)
    modalities = tuple(
        modality.model_copy(update={"scale": scales[modality.name]}) for modality in panels[0].modalities
    )
    return OpenedScenes(
        panels=tuple(panels),
        bands=tuple(divided(panel, patch) for panel in panels),
        modalities=modalities,
        fingerprint=_fingerprint(panels),
    )


def open_useful(scene: Scene, observer: Observer) -> SceneReader:
    """The panel of ``scene``, without the modalities that seem constant: of each the observer is told.

    Among its notices is how much of it a modality does not cover. What turns out to be damaged is left to be told
    when it is reached.

    Raises
    ------
    ImageError
        As :class:`SceneReader`, and when all modalities are constant.
    """
    panel = SceneReader(scene)
    try:
        probed = panel.probed()
    except ImageError:
        return panel
    return _useful(panel, probed, observer)


def _opened(scene: Scene, cache: DecodedCache, observer: Observer) -> SceneReader:
    panel = SceneReader(scene, cache=cache)
    panel.check()
    return _useful(panel, panel.probed(), observer, cache)


def _useful(
    panel: SceneReader, probed: Mapping[str, Probed], observer: Observer, cache: DecodedCache | None = None
) -> SceneReader:
    files = scene_files(panel.scene)
    constant = {
        name: ImageError(
            files[name][0],
            f"is {one.constant:g} of full scale in all 16 windows that were looked at, so it shows nothing",
            "scan it again, or leave it out",
        )
        for name, one in probed.items()
        if one.constant is not None
    }
    if constant and len(constant) + len(panel.missing) == len(panel.modalities):
        raise next(iter(constant.values()))
    for error in constant.values():
        observer.problem(error)
    absent = tuple(
        f"{name}: absent from {_percent(1 - one.covered)} of the 16 windows that were looked at"
        for name, one in probed.items()
        if one.covered < 1 and name not in constant
    )
    if not constant and not absent:
        return panel
    scene = replace(panel.scene, notices=(*panel.scene.notices, *absent))
    return SceneReader(scene, without=[*constant], cache=cache)


def _percent(share: float) -> str:
    return "all" if share == 1 else f"{100 * share:.2g} %"


def _changed(panel: SceneReader, modalities: Sequence[Modality], cache: DecodedCache) -> SceneReader:
    without = [one.name for one in modalities if one.name in panel.missing]
    return SceneReader(replace(panel.scene, modalities=tuple(modalities)), without=without, cache=cache)


def _on_one_grid(
    panels: Sequence[SceneReader], patch: int, cache: DecodedCache, observer: Observer
) -> list[SceneReader]:
    """The panels on the grid of one modality, and those without it at the scale of the others."""
    said = (one.name for one in panels[0].modalities if one.grid)
    there = (name for name in said if any(name not in panel.missing for panel in panels))
    grid = next(there, None) or _most_common(panel.finest for panel in panels)

    def placed(panel: SceneReader, scales: Mapping[str, float]) -> SceneReader:
        modalities = [
            one.model_copy(update={"grid": one.name == grid, "scale": scales.get(one.name)})
            for one in panel.modalities
        ]
        return _changed(panel, modalities, cache)

    scales = _scales([placed(panel, {}) for panel in panels if grid not in panel.missing])
    found: list[SceneReader] = []
    for panel in panels:
        again = placed(panel, scales)
        try:
            divided(again, patch)
        except ImageError as error:
            observer.problem(error)
        else:
            found.append(again)
    return found


def _scales(panels: Sequence[SceneReader]) -> dict[str, float]:
    """Of each modality, the median over the panels that have it."""
    found: dict[str, list[float]] = {}
    for panel in panels:
        for name, scale in panel.scales.items():
            found.setdefault(name, []).append(scale)
    return {name: statistics.median(scales) for name, scales in found.items()}


def _most_common(values: Iterable[str | None]) -> str:
    return Counter(value for value in values if value is not None).most_common(1)[0][0]


def _fingerprint(panels: Sequence[SceneReader]) -> Fingerprint:
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
