"""Files of a stack of layers for other programs: TIFF, OME-Zarr, IIIF tiles, a page and regions.

Each file or folder appears whole or not at all, and has a line in a log once it does: a run that was stopped goes on
with the next one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from blemish.errors import Stopped
from blemish.observer import Observer
from blemish.report.deep_zoom import PAGE, write_deep_zoom_page
from blemish.report.layers import DataFile, LayerStack
from blemish.report.ome_zarr import describe_ome_zarr, multiscales
from blemish.report.pyramidal_tiff import write_pyramidal_tiff
from blemish.report.save_settings import REGIONS, SAVED_FILE, TIFF, ZARR, ZOOM, SaveSettings
from blemish.report.tiles import image_address, write_tiles
from blemish.storage.atomic import atomic_folder, write_error, write_json
from blemish.storage.leftovers import temporary_name
from blemish.storage.pyramid import Raster, build_pyramid, open_levels
from blemish.storage.records_log import RecordsLog


class SavedFile(BaseModel):
    """Line of a file or folder that was saved."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Relative to the output folder."""
    made_from: str
    """State of what it was made from."""


class LayerFiles:
    """Saves stacks of layers in one output folder, and knows what is saved already.

    Raises
    ------
    FileError
        When the log cannot be read or written.
    """

    def __init__(self, folder: Path, settings: SaveSettings, observer: Observer) -> None:
        self.folder, self.settings, self.observer = folder, settings, observer
        self._log = RecordsLog(folder / SAVED_FILE, SavedFile)
        self._states = {record.path: record.made_from for record in self._log.records}

    def save(self, stack: LayerStack, state: str) -> None:
        """Save what the settings name of ``stack``; what was saved in this ``state`` already stays.

        Raises
        ------
        Stopped
            When the observer asked to stop; what is finished stays.
        FileError
            When a file cannot be written, as on a full disk; nothing of it is left then.
        """
        kinds, state = self.settings.kinds, f"{state} dpi={self.settings.dpi}"
        steps: list[tuple[Path, str, Callable[[Path], None]]] = []
        if {"tiff", "zarr"} & {*kinds}:
            for file in stack.files:
                self._save_values(stack, file, state)
        if {"iiif", "page"} & {*kinds}:
            home = Path(ZOOM) / stack.name
            for layer in stack.layers:
                identifier = image_address(self.settings.address, stack.name, layer.name)

                def tiles(path: Path, layer=layer, identifier=identifier) -> None:  # type: ignore[no-untyped-def]
                    with self._scratch() as scratch, atomic_folder(path) as partial:
                        write_tiles(partial, scratch, layer, identifier, self._watch)

                steps.append((home / layer.name, f"{state} {identifier}", tiles))
        if "page" in kinds:
            steps.append(
                (Path(ZOOM) / stack.name / PAGE, state, lambda path: write_deep_zoom_page(path, stack))
            )
        if {"regions", "page"} & {*kinds}:
            path = Path(REGIONS) / f"{stack.name}.geojson"
            steps.append((path, state, lambda path: write_json(path, stack.regions)))
        for path, own_state, write in steps:
            self._once(path, own_state, write)

    def _save_values(self, stack: LayerStack, file: DataFile, state: str) -> None:
        """Save the values of one map or image as OME-Zarr, TIFF or both, of one pyramid."""
        stored = Path(ZARR) / stack.name / f"{file.name}.ome.zarr"
        image = Path(TIFF) / stack.name / f"{file.name}.ome.tif"
        wanted = {"zarr": stored, "tiff": image}
        missing = [
            kind
            for kind, path in wanted.items()
            if kind in self.settings.kinds and not self._is_saved(path, state)
        ]
        if not missing:
            return

        def tiff(levels: Sequence[Raster]) -> Callable[[Path], None]:
            return lambda path: write_pyramidal_tiff(
                path, levels, file.channels, pixel_mm=stack.pixel_mm, watch=self._watch
            )

        def zarr(path: Path) -> None:
            with atomic_folder(path) as partial:
                levels = build_pyramid(file.raster, partial, watch=self._watch)
                attributes = multiscales(
                    file.name, levels, file.channels, _value_range(levels[-1]), stack.pixel_mm
                )
                describe_ome_zarr(partial, attributes)

        if "zarr" in missing:
            self._once(stored, state, zarr)
        if "tiff" in missing:
            if "zarr" in self.settings.kinds:
                levels = open_levels(self.folder / stored, file.raster.size)
                self._once(image, state, tiff(levels))
            else:
                with self._scratch() as scratch:
                    levels = build_pyramid(file.raster, scratch, whole=False, watch=self._watch)
                    self._once(image, state, tiff(levels))

    def _is_saved(self, path: Path, state: str) -> bool:
        return self._states.get(str(path)) == state and os.path.exists(self.folder / path)

    def _once(self, path: Path, state: str, write: Callable[[Path], None]) -> None:
        """Write a file or folder that is not saved in this state yet, and its line in the log."""
        if self._is_saved(path, state):
            return
        self.observer.stage(f"Saving {path.as_posix()}")
        whole = self.folder / path
        if whole.is_dir():
            try:
                shutil.rmtree(whole)
            except OSError as error:
                raise write_error(whole, error) from error
        write(whole)
        self._log.append(SavedFile(path=str(path), made_from=state))
        self._states[str(path)] = state

    def _watch(self) -> None:
        if self.observer.should_stop():
            raise Stopped("stopped while saving files; those that are finished stay")

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A hidden folder on the same disk, as large as a third of what is saved, removed after the block."""
        scratch = self.folder / temporary_name()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _value_range(smallest: Raster) -> tuple[float, float]:
    """Values that a viewer shows as black and white: 0, and nearly the largest of the smallest level."""
    values = smallest.read(0, 0, *smallest.size)
    present = values[np.isfinite(values)]
    high = float(np.quantile(present, 0.999)) if present.size else 0.0
    return 0.0, high if high > 0 else 1.0
