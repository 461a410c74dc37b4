"""Scenes: the same surface seen by several sensors, a file or files for each modality.

A scene is one painting or object, and a folder with a file for each modality, that is each sensor. What the
files mean is described by a ``modalities.yaml`` beside them, or beside the folders of several scenes::

    root: scans                    # where the scenes are; this file's folder when left out
    grid: visible                  # whose pixels the others are brought to; the one with most when left out
    modalities:
      - name: visible
        file: rgb.tif
      - name: x-ray
        file: xray_{row}_{column}.tif   # several abutting files
        range: [0, 4095]                # the values that become 0 and 1; the file's own depth when left out
        no_data: 0                      # this value says that the sensor did not look here
      - name: uv
        file: uv.tif                    # of an HDF5 file also 'dataset: entry/data'
        channels: 3                     # from the file itself when left out
        grey: true                      # turned to grey where similarity is measured

Without such a file each image in a folder is a modality, named by its stem, but for ``roi`` and ``exclude``, which mark
where the scene is judged (:mod:`blemish.data.scene_area`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from blemish.data.envi import envi_header
from blemish.data.hdf5 import holds_image
from blemish.data.image import SUFFIXES
from blemish.data.items import natural_key
from blemish.data.modality import AutomaticRange, Modality, ModalityRange, list_folder, modality_files
from blemish.data.scene_area import SceneAreaFiles, find_area, is_area_name
from blemish.data.scene_description import (
    MODALITIES_FILE,
    SceneDescription,
    description_of,
    read_description,
)
from blemish.data.scene_folders import names_sensors, unused_lines
from blemish.data.windowed import open_windowed
from blemish.data.windowed_image import WindowedImage
from blemish.errors import FileError, ImageError

MOST_DEDUCED = 64
"""More images in a folder than this are hardly the sensors of one scene."""


@dataclass(frozen=True)
class Scene:
    """One painting or object: a folder with a file or files for each modality, of which some may be missing."""

    name: str
    folder: Path
    modalities: tuple[Modality, ...]
    notices: tuple[str, ...] = ()
    """Remarks on other files and entries that were found, a line each."""
    area: SceneAreaFiles = field(default_factory=SceneAreaFiles)
    """Files that mark where it is judged."""


def find_scenes(source: str | Path, modalities: Sequence[Modality] = ()) -> list[Scene]:
    """List the scenes that ``source`` names, in natural order; of files only headers are read.

    Parameters
    ----------
    source: a ``modalities.yaml``; a folder with one, whose files are in it (one scene) or in its subfolders
        (a scene each); or without any, a folder whose subfolders, or itself, hold two images at least.
    modalities: those of a fitted model. The scenes then have exactly these, in this order. Without a YAML
        file each is looked for under its own file name, then as any image of which it is the stem.

    Raises
    ------
    FileError
        No scene, or a YAML file that says what cannot be, or what the model does not know.
    """
    source = Path(source)
    described = description_of(source)
    if described is not None:
        return _described_scenes(described, modalities)
    if not source.is_dir():
        problem = "is one file, not a scene" if source.exists() else "does not exist"
        raise FileError(source, problem, f"name a folder of scenes, or a {MODALITIES_FILE}")
    if modalities:
        return _wanted_scenes(source, modalities)
    return _deduced_scenes(source)


def holds_scenes(source: str | Path) -> bool:
    """True if ``source`` holds scenes rather than independent images.

    It is where there is a ``modalities.yaml``, where all subfolders with images hold from two to 64 of
    them, and where the images of a folder without such subfolders differ in channels or depth.
    """
    source = Path(source)
    if description_of(source) is not None:
        return True
    if not source.is_dir():
        return False
    folders = _image_folders(source)
    counts = [len(_images_in(folder)) for folder in folders]
    if not folders or not all(2 <= count <= MOST_DEDUCED for count in counts):
        return False
    return folders != [source] or len(_kinds(source)) > 1


def looks_like_scenes(source: str | Path) -> bool:
    """True if a folder without a description surely holds scenes, though nothing says so.

    Its subfolders are scenes (:func:`holds_scenes`) of files with the same names, or the folder is one itself; and
    either the names are words for sensors, or the images of each differ in channels or depth.
    """
    source = Path(source)
    if description_of(source) is not None or not source.is_dir() or not holds_scenes(source):
        return False
    folders = _image_folders(source)
    stems = [{path.stem for path in _images_in(folder)} for folder in folders]
    common = set.intersection(*stems)
    if 2 * len(common) < max(map(len, stems)) or len(common) < 2:
        stripped = [_without_name(names, folder.name) for names, folder in zip(stems, folders, strict=True)]
        common = set.intersection(*stripped)
        if 2 * len(common) < max(map(len, stems)) or len(common) < 2:
            return False
    if names_sensors(common):
        return True
    return folders != [source] and all(len(_kinds(folder)) > 1 for folder in folders)


def _without_name(stems: set[str], folder: str) -> set[str]:
    """The names of files without that of their folder, which stands before each in some collections."""
    return {stem.removeprefix(folder).lstrip("_- ") for stem in stems}


def scene_files(scene: Scene) -> dict[str, list[Path]]:
    """The files of each modality that are there, by the modality's name, in order."""
    return {
        modality.name: [path for _, path in sorted(modality_files(scene.folder, modality).items())]
        for modality in scene.modalities
    }


# -- with a YAML file ----------------------------------------------------------------------------------


def _described_scenes(path: Path, wanted: Sequence[Modality]) -> list[Scene]:
    described = read_description(path)
    root = path.parent / described.root
    if not root.is_dir():
        raise FileError(path, f"names the root {described.root}, which is no folder", "correct 'root'")
    # One channel where none are given, until the files are opened.
    found = [
        Modality(
            **entry.model_dump(exclude={"channels"}),
            channels=entry.channels or 1,
            grid=entry.name == described.grid,
        )
        for entry in described.modalities
    ]
    folders = [folder for folder in (root, *_subfolders(root)) if _holds_any(folder, found)]
    if root in folders:
        folders = [root]
    if not folders:
        files = ", ".join(entry.file for entry in described.modalities)
        raise FileError(path, f"names files that are nowhere in {root} ({files})", "correct 'file' or 'root'")
    for folder in folders:
        _refuse_shared(path, folder, found)
    notices: tuple[str, ...] = ()
    described_files = tuple(found)
    if wanted:
        known = {modality.name for modality in wanted}
        notices = (
            *(_unused(modality.name) for modality in found if modality.name not in known),
            *_differences(described, wanted),
        )
        stated = {entry.name for entry in described.modalities if entry.channels}
        found = _agreed(path, found, stated, wanted)
    else:
        found = [
            modality if entry.channels else _with_channels(path, modality, folders)
            for entry, modality in zip(described.modalities, found, strict=True)
        ]
    scenes = []
    for folder in folders:
        name = _scene_name(folder, root)
        transforms = described.transforms.get(name, {})
        placed = tuple(
            modality.model_copy(update={"transform": transforms.get(modality.name)}) for modality in found
        )
        used = [file for modality in described_files for file in modality_files(folder, modality).values()]
        area = find_area(folder, described.region_of_interest, described.exclude, used)
        own = (
            *notices,
            *_absent_masks(folder, described),
            *unused_lines(folder, [*used, *area.paths]),
        )
        scenes.append(Scene(name, folder, placed, own, area))
    return scenes


def _absent_masks(folder: Path, described: SceneDescription) -> Iterator[str]:
    for name, consequence in (
        (described.region_of_interest, "all of the scene is judged"),
        (described.exclude, "nothing is excluded"),
    ):
        if name and not (folder / name).exists():
            yield f"{name}: is not there, so {consequence}"


def _refuse_shared(path: Path, folder: Path, modalities: Sequence[Modality]) -> None:
    """Refuse a file that two modalities claim, which a pattern may hide."""
    owners: dict[tuple[Path, str], str] = {}
    for modality in modalities:
        for file in modality_files(folder, modality).values():
            owner = owners.setdefault((file, modality.dataset), modality.name)
            if owner != modality.name:
                problem = f"gives {file.relative_to(folder)} to both '{owner}' and '{modality.name}'"
                raise FileError(path, problem, "give each modality its own file")


def _agreed(
    path: Path, found: Sequence[Modality], stated: set[str], wanted: Sequence[Modality]
) -> list[Modality]:
    """The ``wanted`` modalities with the files and values that ``path`` gives them."""
    by_name = {modality.name: modality for modality in found}
    if not by_name.keys() & {modality.name for modality in wanted}:
        names = ", ".join(modality.name for modality in wanted)
        raise FileError(
            path, f"names none of the model's modalities ({names})", "name them as the model does"
        )
    agreed: list[Modality] = []
    for modality in wanted:
        own = by_name.get(modality.name)
        if own is None:
            agreed.append(modality.model_copy(update={"file": ""}))
            continue
        if own.name in stated and own.channels != modality.channels:
            raise FileError(
                path,
                f"gives '{own.name}' {_counted(own.channels)}, "
                f"the model was fitted on {_counted(modality.channels)}",
                "give the same sensor, or fit again",
            )
        ends = modality.range if own.range == "auto" else own.range
        own_settings = {"file": own.file, "dataset": own.dataset, "range": ends, "no_data": own.no_data}
        agreed.append(modality.model_copy(update=own_settings))
    return agreed


def _differences(described: SceneDescription, wanted: Sequence[Modality]) -> Iterator[str]:
    """A line for each setting that differs from the model's and changes the input of the network."""
    entries = {entry.name: entry for entry in described.modalities}
    for modality in wanted:
        entry = entries.get(modality.name)
        if entry is not None and entry.range not in (modality.range, "auto"):
            yield (
                f"{modality.name}: scaled by {_span(entry.range)} here, by {_span(modality.range)} where the "
                "model was fitted"
            )
    grid = next((modality.name for modality in wanted if modality.grid), None)
    if described.grid is not None and grid is not None and described.grid != grid:
        yield f"{described.grid}: is not the grid, the model was fitted on the pixels of {grid}"


def _span(ends: ModalityRange | AutomaticRange | None) -> str:
    if ends == "auto":
        return "quantiles"
    return "the file's full range" if ends is None else f"{ends[0]:g} to {ends[1]:g}"


def _with_channels(path: Path, modality: Modality, folders: Sequence[Path]) -> Modality:
    files = [file for folder in folders for file in modality_files(folder, modality).values()]
    if not files:
        raise FileError(
            path,
            f"names '{modality.name}', of which there is no file and whose channels are unknown",
            f"add {modality.file}, or its 'channels', or remove the entry",
        )
    return modality.model_copy(update={"channels": _channels(files, modality.dataset)})


# -- without one ---------------------------------------------------------------------------------------


def _deduced_scenes(source: Path) -> list[Scene]:
    files: dict[str, list[Path]] = {}
    by_folder: dict[Path, dict[str, Path]] = {}
    folders = _image_folders(source)
    if folders != [source] and _images_in(source):
        raise FileError(
            source,
            f"holds images, and so does {folders[0].name} in it: it may be one scene or a folder of scenes",
            f"move one of the two away, or say what is what in {source / MODALITIES_FILE}",
        )
    for folder in folders:
        images = _by_stem(source, folder)
        if not 2 <= len(images) <= MOST_DEDUCED:
            problem = f"holds {len(images)} image{'s' * (len(images) != 1)}, each of them a modality"
            raise FileError(folder, problem, _describe(source))
        by_folder[folder] = images
        for stem, path in images.items():
            files.setdefault(stem, []).append(path)
    if not by_folder:
        raise FileError(source, "holds no scene: a folder with an image for each sensor", _describe(source))
    channels = {stem: _channels(files[stem]) for stem in sorted(files, key=natural_key)}
    return [
        Scene(
            _scene_name(folder, source),
            folder,
            tuple(_deduced(images.get(stem, files[stem][0]), count) for stem, count in channels.items()),
            tuple(unused_lines(folder, [*images.values(), *area.paths])),
            area,
        )
        for folder, images in by_folder.items()
        for area in [find_area(folder, "", "", ())]
    ]


def _deduced(path: Path, channels: int) -> Modality:
    try:
        return Modality(name=path.stem, channels=channels, file=path.name)
    except ValidationError:
        raise ImageError(
            path,
            "has a name that no modality can have",
            "rename it: at most 100 characters, no braces, no blank or dot at the start",
        ) from None


def _wanted_scenes(source: Path, wanted: Sequence[Modality]) -> list[Scene]:
    subfolders = [
        scene
        for folder in _subfolders(source)
        if (scene := _wanted_scene(source, folder, wanted)) is not None
    ]
    if subfolders:
        return subfolders
    itself = _wanted_scene(source, source, wanted)
    if itself is None:
        names = ", ".join(modality.name for modality in wanted)
        raise FileError(source, f"holds none of the modalities {names}", _describe(source))
    return [itself]


def _wanted_scene(source: Path, folder: Path, wanted: Sequence[Modality]) -> Scene | None:
    """The scene of ``folder``, or None where it has not one of the ``wanted`` modalities."""
    images = _by_stem(source, folder)
    chosen = []
    used: set[Path] = set()
    for modality in wanted:
        files = modality_files(folder, modality)
        if not files and modality.name in images:
            modality = modality.model_copy(update={"file": images[modality.name].name, "dataset": ""})
            files = modality_files(folder, modality)
        used |= set(files.values())
        chosen.append(modality)
    if not used:
        return None
    unknown = [path for path in images.values() if path not in used]
    area = find_area(folder, "", "", used)
    unused = unused_lines(folder, [*used, *unknown, *area.paths])
    notices = (*(_unused(path.name) for path in unknown), *unused)
    return Scene(_scene_name(folder, source), folder, tuple(chosen), notices, area)


def _by_stem(source: Path, folder: Path) -> dict[str, Path]:
    if folder != source and (folder / MODALITIES_FILE).is_file():
        problem = f"has a {MODALITIES_FILE} of its own"
        raise FileError(folder, problem, f"put one into {source} for all, or name this folder alone")
    images: dict[str, Path] = {}
    for path in _images_in(folder):
        if path.stem in images:
            problem = f"would be the same modality as {images[path.stem].name}"
            raise FileError(path, problem, "remove one of the two, or rename it")
        images[path.stem] = path
    return images


# -- what both need ------------------------------------------------------------------------------------


def _scene_name(folder: Path, root: Path) -> str:
    return folder.resolve().name if folder == root else folder.name


def _describe(source: Path) -> str:
    return f"name a folder of scenes, or say what is what in {source / MODALITIES_FILE}"


def _unused(name: str) -> str:
    return f"{name}: not used, the model does not know it"


def _counted(channels: int) -> str:
    return f"{channels} channel{'s' * (channels != 1)}"


def _channels(files: Sequence[Path], dataset: str = "") -> int:
    """Channels of the first file whose header can be read."""
    opened = [_tried(path, dataset) for path in files]
    for windows in opened:
        if isinstance(windows, WindowedImage):
            return windows.channels
    assert isinstance(opened[0], ImageError)
    raise opened[0]


def _kinds(folder: Path) -> set[tuple[int, str]]:
    """(channels, type) of the images whose headers can be read."""
    opened = [_tried(path) for path in _images_in(folder)]
    return {(one.channels, one.dtype.name) for one in opened if isinstance(one, WindowedImage)}


def _tried(path: Path, dataset: str = "") -> WindowedImage | ImageError:
    try:
        return open_windowed(path, dataset)
    except ImageError as error:
        return error


def _holds_any(folder: Path, modalities: Sequence[Modality]) -> bool:
    return any(modality_files(folder, modality) for modality in modalities)


def _image_folders(source: Path) -> list[Path]:
    """Subfolders with images; ``source`` itself where there is none and it has some."""
    return [folder for folder in _subfolders(source) if _images_in(folder)] or (
        [source] if _images_in(source) else []
    )


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in list_folder(folder) if path.is_dir()]


def _images_in(folder: Path) -> list[Path]:
    return [
        path
        for path in list_folder(folder)
        if path.is_file()
        and (path.suffix.lower() in SUFFIXES or envi_header(path) is not None or holds_image(path))
        and not is_area_name(path)
    ]
