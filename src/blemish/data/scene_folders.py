"""Files of the folders of scenes: those that look like data and are not used, and folders that look like scenes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from blemish.data.folders import PASSED_OVER
from blemish.data.hdf5 import HDF5_SUFFIXES
from blemish.data.image import SUFFIXES
from blemish.data.modality import list_folder

DATA_SUFFIXES = (
    SUFFIXES
    | HDF5_SUFFIXES
    | PASSED_OVER
    | {".img", ".bil", ".bip", ".bsq", ".cube", ".dat", ".hdf", ".jpx", ".jpf", ".nc", ".psb"}
    | {".ser", ".fit", ".fts", ".btf", ".ptm", ".rti"}
)
"""Suffixes of images, cubes and stacks, whether they are read or not."""

_SENSORS = re.compile(
    r"(?<![a-z])(?:vis|visible|rgb|colou?r|raking|ir|irr|ird|nir|swir|infra-?red|x-?ray|xr|xrr|radiograph|uv|uvf|uvr"
    r"|ultra-?violet|fluorescence|thermal|xrf|terahertz|oct|band)(?![a-z])|\d{3,4} ?nm",
    re.I,
)
"""A word for a sensor in the name of a file."""


def unused_lines(folder: Path, used: Collection[Path]) -> Iterator[str]:
    """A line for each file in ``folder`` that looks like data and is not among ``used``."""
    known = {path.absolute() for path in used}
    headers = {path.with_suffix(".hdr") for path in known} | {
        path.with_name(f"{path.name}.hdr") for path in known
    }
    for path in list_folder(folder):
        if path.suffix.lower() not in DATA_SUFFIXES or not path.is_file():
            continue
        absolute = path.absolute()
        if absolute in known or absolute in headers:
            continue
        how = (
            "no modality of this scene names it"
            if path.suffix.lower() in SUFFIXES | HDF5_SUFFIXES
            else "files of this kind are not read; export it as TIFF"
        )
        yield f"{path.name}: not used, {how}"


def names_sensors(stems: Collection[str]) -> bool:
    """True if most names have a word for a sensor.

    >>> names_sensors(["visible", "infrared"]), names_sensors(["panel_560nm", "panel_580nm"])
    (True, True)
    >>> names_sensors(["001", "002"]), names_sensors(["first", "ring"])
    (False, False)
    """
    return sum(_SENSORS.search(stem.replace("_", " ")) is not None for stem in stems) > len(stems) / 2
