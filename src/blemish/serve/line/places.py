"""Places of a line on the disk and on the network: none that would feed the line its own output, none twice."""

from __future__ import annotations

import os
from pathlib import Path

from blemish.errors import ServeError
from blemish.serve.line.description import LineDescription
from blemish.serve.line.sink_settings import CsvSettings, FolderSinkSettings, OpcUaServerSettings
from blemish.serve.line.source_settings import FolderSettings


def check_places(line: LineDescription, base: Path, home: Path) -> None:
    """Refuse a line that would inspect what it writes itself, or whose sinks write to one place.

    Parameters
    ----------
    base: folder at which relative paths begin.
    home: folder of the server, which holds kept images.

    Raises
    ------
    ServeError
        In one line, naming both keys and the remedy.
    """
    written = [("the home folder of the server", _real(home), False)]
    written += [
        (f"'sinks[{number}].path'", _real(base / sink.path), True)
        for number, sink in enumerate(line.sinks)
        if isinstance(sink, FolderSinkSettings)
    ]
    for number, source in enumerate(line.sources):
        if not isinstance(source, FolderSettings):
            continue
        watched = _real(base / source.path)
        if source.move_to is not None and _real(base / source.move_to) == watched:
            raise ServeError(f"'sources[{number}].move_to' is its own folder; choose another one")
        for what, place, is_flat in written:
            # Images lie in the folder of a sink itself, or of its days; in the home folder they lie deeper.
            if (is_flat and place == watched) or (source.recursive and _is_within(place, watched)):
                raise ServeError(
                    f"{what} lies in the folder of 'sources[{number}]', which would inspect what the line writes; choose "
                    "another folder"
                )
    _refuse_twice(line, base)


def _refuse_twice(line: LineDescription, base: Path) -> None:
    seen: dict[object, int] = {}
    for number, sink in enumerate(line.sinks):
        if isinstance(sink, CsvSettings):
            place: object = _real(base / sink.path)
            key = "path"
        elif isinstance(sink, OpcUaServerSettings):
            place, key = sink.port, "port"
        else:
            continue
        if place in seen:
            raise ServeError(f"'sinks[{number}].{key}' is that of 'sinks[{seen[place]}]'; give each its own")
        seen[place] = number


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _is_within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
