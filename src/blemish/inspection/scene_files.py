"""Files and pages of inspected scenes for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blemish.data.scene_reader import SceneReader
from blemish.errors import ImageError
from blemish.inspection.scene_layers import scene_stack
from blemish.inspection.scene_page import FinishedScene
from blemish.observer import Observer
from blemish.report.layer_files import LayerFiles
from blemish.report.save_settings import SaveSettings


def save_scenes(
    folder: Path,
    found: Sequence[FinishedScene],
    pixel_threshold: float,
    settings: SaveSettings,
    observer: Observer,
) -> list[ImageError]:
    """Save what ``settings`` names of finished scenes in ``folder``; what is saved already stays.

    A scene whose images can no longer be read is reported to the observer, and the others go on.

    Returns
    -------
    Problems of scenes that could not be saved.

    Raises
    ------
    Stopped
        When the observer asked to stop; finished files stay.
    FileError
        When a file cannot be written.
    """
    files = LayerFiles(folder, settings, observer)
    problems = []
    for one in found:
        missing = [modality.name for modality in one.record.modalities if modality.state == "missing"]
        try:
            with SceneReader(one.scene, without=missing) as opened:
                state = f"{one.record.sha256} {one.record.time}"
                files.save(scene_stack(one, opened, pixel_threshold, settings.dpi), state)
        except ImageError as error:
            observer.problem(error)
            problems.append(error)
    return problems
