"""Opening the scenes that a model is fitted on: usable scenes, common grid, modalities, bands, fingerprint."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blemish.data.fingerprint import Fingerprint, Spread, sampled_sha256
from blemish.data.modality import Modality
from blemish.data.scene_checks import check_scene, describe_checks
from blemish.data.scene_reader import WHOLE_LIMIT, Probed, SceneReader
from blemish.data.scene_splits import Bands, divided
from blemish.data.scenes import Scene, find_scenes, scene_files
from blemish.data.windowed import open_windowed
from blemish.data.windowed_image import DecodedCache
from blemish.errors import FileError, ImageError, Stopped, UsageError
from blemish.observer import Observer


@dataclass(frozen=True)
class OpenedScenes:
    """Scenes that can be fitted on."""

    readers: tuple[SceneReader, ...]
    bands: tuple[Bands, ...]
    modalities: tuple[Modality, ...]
    """Those of which at least one scene has a file; a model is fitted on them."""
    fingerprint: Fingerprint


def open_scenes(
    source: Path, *, patch: int, observer: Observer, modalities: Sequence[Modality] = ()
) -> OpenedScenes:
    """Open the scenes that ``source`` names, to fit on patches of ``patch`` pixels.

    The observer hears of each scene that cannot be used, and of what is missing or resampled in others. A
    modality that seems constant in a scene carries nothing there: it is reported as a problem and treated as
    missing. A modality that no scene has is left out of the model.

    All scenes have the grid of one modality, so that the network sees each modality at one scale: the one marked
    as the grid, or else the one that has most pixels in most scenes. A scene without it is brought to the scale
    that its other modalities have in the rest.

    Parameters
    ----------
    modalities: those of a model, with its grid, scales and ranges, which the scenes then have in place of their own.

    Raises
    ------
    FileError
        There are no scenes, or none can be used.
    Stopped
        When the observer asked to stop.
    """
    scenes = find_scenes(source, modalities)
    cache = DecodedCache(WHOLE_LIMIT)
    readers: list[SceneReader] = []
    for done, scene in enumerate(scenes, start=1):
        if observer.should_stop():
            raise Stopped(f"stopped after opening {done - 1} of {len(scenes)} scenes, before training")
        try:
            readers.append(_opened(scene, cache, observer))
        except ImageError as error:
            observer.problem(error)
        observer.count(done, len(scenes))
    if readers and not modalities:
        readers = _on_one_grid(readers, cache)
    readers = [reader for reader in readers if _is_divisible(reader, patch, observer)]
    if not readers:
        raise FileError(source, "holds no scene that can be used", "correct the files above, or add others")

    if modalities:
        return _as_fitted(readers, patch, modalities, observer)
    present = [
        modality.name
        for modality in scenes[0].modalities
        if any(modality.name not in reader.missing for reader in readers)
    ]
    for modality in scenes[0].modalities:
        if modality.name not in present:
            observer.stage(f"{modality.name}: in none of the scenes; the model is fitted without it")
    depths = {name: _most_common(reader.depths.get(name) for reader in readers) for name in present}
    ranges = _common_ranges(readers)
    readers = [
        _changed(
            reader,
            [
                one.model_copy(update={"depth": depths[one.name], "range": ranges.get(one.name, one.range)})
                for one in reader.modalities
                if one.name in present
            ],
            cache,
        )
        for reader in readers
    ]
    for name, (low, high) in ranges.items():
        observer.stage(f"{name}: scaled by {low:g} to {high:g}, quantiles of its pixels in all scenes")
    scales = _scales(readers)
    # A transform is of one scene, the modalities are of all.
    found = tuple(
        modality.model_copy(update={"scale": scales[modality.name], "transform": None})
        for modality in readers[0].modalities
    )
    return _as_fitted(readers, patch, found, observer)


def _as_fitted(
    readers: Sequence[SceneReader], patch: int, modalities: Sequence[Modality], observer: Observer
) -> OpenedScenes:
    for reader in readers:
        for notice in reader.notices:
            observer.stage(f"{reader.name}: {notice}")
    return OpenedScenes(
        readers=tuple(readers),
        bands=tuple(divided(reader, patch) for reader in readers),
        modalities=tuple(modalities),
        fingerprint=_fingerprint(readers),
    )


def _is_divisible(reader: SceneReader, patch: int, observer: Observer) -> bool:
    """True if a scene is large enough for a patch in each part; reported if it is not."""
    try:
        divided(reader, patch)
    except ImageError as error:
        observer.problem(error)
        return False
    return True


def named_scene(source: Path) -> Scene:
    """The one scene of a folder or of a ``modalities.yaml``; a single image is a scene of one modality.

    Raises
    ------
    UsageError
        When there are several scenes.
    FileError
        When there is none, or it cannot be read.
    """
    if source.is_dir() or source.suffix.lower() in {".yaml", ".yml"}:
        scenes = find_scenes(source)
        if len(scenes) > 1:
            raise UsageError(f"{source}: holds {len(scenes)} scenes; name one")
        return scenes[0]
    modality = Modality(name="image", channels=open_windowed(source).channels, file=source.name)
    return Scene(source.stem, source.parent, (modality,))


def open_useful(scene: Scene, observer: Observer) -> SceneReader:
    """Open ``scene`` without the modalities that seem constant, each of which is reported to the observer.

    The notices say how much of the scene a modality does not cover. Damage inside a file is reported later, when
    the damaged part is read.

    Raises
    ------
    ImageError
        As :class:`SceneReader`, and when all modalities are constant.
    """
    reader = SceneReader(scene)
    share = reader.judged_share()
    try:
        probed, checked = reader.probed(), tuple(describe_checks(reader, check_scene(reader)))
    except ImageError:
        return reader
    return _useful(reader, probed, observer, (*_judged(reader, share), *checked))


def _opened(scene: Scene, cache: DecodedCache, observer: Observer) -> SceneReader:
    reader = SceneReader(scene, cache=cache)
    reader.check()
    checked = tuple(describe_checks(reader, check_scene(reader)))
    judged = _judged(reader, reader.judged_share())
    return _useful(reader, reader.probed(), observer, (*judged, *checked), cache)


def _judged(reader: SceneReader, share: float) -> tuple[str, ...]:
    return () if reader.area is None else (f"{reader.area.words}: {_percent(share)} of the scene is judged",)


def _useful(
    reader: SceneReader,
    probed: Mapping[str, Probed],
    observer: Observer,
    checked: tuple[str, ...],
    cache: DecodedCache | None = None,
) -> SceneReader:
    files = scene_files(reader.scene)
    constant = {
        name: ImageError(
            files[name][0],
            f"is {one.constant:g} of full scale in all 16 windows that were looked at, so it shows nothing",
            "scan it again, or leave it out",
        )
        for name, one in probed.items()
        if one.constant is not None
    }
    if constant and len(constant) + len(reader.missing) == len(reader.modalities):
        raise next(iter(constant.values()))
    for error in constant.values():
        observer.problem(error)
    remarks = tuple(
        f"{name}: absent from {_percent(1 - one.covered)} of the 16 windows that were looked at"
        for name, one in probed.items()
        if one.covered < 1 and name not in constant
    ) + tuple(line for line in checked if line.split(":")[0] not in constant)
    if not constant and not remarks:
        return reader
    scene = replace(reader.scene, notices=(*reader.scene.notices, *remarks))
    return SceneReader(scene, without=[*constant], cache=cache)


def _percent(share: float) -> str:
    return "all" if share == 1 else f"{100 * share:.2g} %"


def _common_ranges(readers: Sequence[SceneReader]) -> dict[str, tuple[float, float]]:
    """The range of each modality that asks for an automatic one: from the lowest to the highest of all scenes."""
    found: dict[str, list[tuple[float, float]]] = {}
    for reader in readers:
        for one in reader.modalities:
            if one.range == "auto" and one.name not in reader.missing:
                found.setdefault(one.name, []).append(reader.automatic_range(one.name))
    return {name: (min(ends)[0], max(high for _, high in ends)) for name, ends in found.items()}


def _changed(reader: SceneReader, modalities: Sequence[Modality], cache: DecodedCache) -> SceneReader:
    without = [one.name for one in modalities if one.name in reader.missing]
    return SceneReader(replace(reader.scene, modalities=tuple(modalities)), without=without, cache=cache)


def _on_one_grid(readers: Sequence[SceneReader], cache: DecodedCache) -> list[SceneReader]:
    """The scenes on the grid of one modality, and those without it at the scale of the others."""
    marked = (one.name for one in readers[0].modalities if one.grid)
    present = (name for name in marked if any(name not in reader.missing for reader in readers))
    grid = next(present, None) or _most_common(reader.finest for reader in readers)

    def on_grid(reader: SceneReader, scales: Mapping[str, float]) -> SceneReader:
        modalities = [
            one.model_copy(update={"grid": one.name == grid, "scale": scales.get(one.name)})
            for one in reader.modalities
        ]
        return _changed(reader, modalities, cache)

    scales = _scales([on_grid(reader, {}) for reader in readers if grid not in reader.missing])
    return [on_grid(reader, scales) for reader in readers]


def _scales(readers: Sequence[SceneReader]) -> dict[str, float]:
    """The scale of each modality: the median over the scenes that have it."""
    found: dict[str, list[float]] = {}
    for reader in readers:
        for name, scale in reader.scales.items():
            found.setdefault(name, []).append(scale)
    return {name: statistics.median(scales) for name, scales in found.items()}


def _most_common(values: Iterable[str | None]) -> str:
    return Counter(value for value in values if value is not None).most_common(1)[0][0]


def _fingerprint(readers: Sequence[SceneReader]) -> Fingerprint:
    """The fingerprint of scenes; ``sha256`` changes with the names of scenes, modalities, files and with content.

    Files of more than 64 MiB are sampled (``sampled_sha256``).
    """
    digest = hashlib.sha256()
    for reader in sorted(readers, key=lambda reader: reader.name):
        for line in _file_lines(reader):
            digest.update(os.fsencode(line))
    return Fingerprint(
        count=len(readers),
        channels=readers[0].channels,
        kind="float32",
        width=_spread([reader.width for reader in readers]),
        height=_spread([reader.height for reader in readers]),
        sha256=digest.hexdigest(),
    )


def scene_sha256(reader: SceneReader) -> str:
    """SHA-256 of the names and content of a scene's files, sampled as in a fingerprint.

    Raises
    ------
    ImageError
        A file cannot be read.
    """
    return hashlib.sha256(os.fsencode("".join(_file_lines(reader)))).hexdigest()


def _file_lines(reader: SceneReader) -> Iterator[str]:
    """A line for each file of a scene: its content, its name, its modality."""
    for name, files in scene_files(reader.scene).items():
        for file in files if name not in reader.missing else []:
            path = file.relative_to(reader.scene.folder).as_posix()
            yield f"{sampled_sha256(file)}  {reader.name}/{path}  {name}\n"
    area = reader.scene.area
    for kind, mask in (("judged", area.judged), ("excluded", area.excluded)):
        if mask is not None:
            yield f"{sampled_sha256(mask)}  {reader.name}/{mask.name}  ({kind})\n"


def _spread(lengths: Sequence[int]) -> Spread:
    return Spread(min=min(lengths), median=statistics.median(lengths), max=max(lengths))
