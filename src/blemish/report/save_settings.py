"""Settings of the files that are saved of scenes for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blemish.errors import UsageError, nearest

KINDS = ("tiff", "zarr", "iiif", "page", "regions")
"""Names of what can be saved."""
SAVED_FILE = "saved.jsonl"
TIFF, ZARR, ZOOM, REGIONS = "tiff", "zarr", "zoom", "regions"
"""Folders of an output folder."""
SAVED = (SAVED_FILE, TIFF, ZARR, ZOOM, REGIONS)
"""All that is saved, the log first."""
LOCAL_ADDRESS = "http://localhost:8000"
"""Where ``python -m http.server`` serves the folder of tiles."""


@dataclass(frozen=True)
class SaveSettings:
    """What is saved of each scene beside maps, records and report."""

    kinds: tuple[str, ...] = ()
    dpi: float | None = None
    """Pixels of the scene an inch."""
    address: str = LOCAL_ADDRESS
    """Where the folder of tiles is going to be served."""

    @classmethod
    def of_options(cls, save: str | None, dpi: float | None, address: str | None) -> SaveSettings | None:
        """Settings of the options of a command; None where nothing is to be saved.

        Raises
        ------
        UsageError
            For a resolution or an address of which nothing is saved, and as the class itself.
        """
        if save is None:
            for option, value in (("--dpi", dpi), ("--address", address)):
                if value is not None:
                    raise UsageError(
                        f"{option} is for files that are saved; give --save too, such as --save page"
                    )
            return None
        kinds = tuple(kind.strip() for kind in save.split(",") if kind.strip())
        if not kinds:
            raise UsageError(f"--save {save!r}: name what to save; there are {', '.join(KINDS)}")
        return cls(kinds, dpi, address or LOCAL_ADDRESS)

    def __post_init__(self) -> None:
        """Raises UsageError for a kind that is not known, or a resolution that cannot be."""
        for kind in self.kinds:
            if kind not in KINDS:
                raise UsageError(f"--save {kind}: is not known; {nearest(kind, KINDS)}")
        if self.dpi is not None and not 0 < self.dpi < 1e6:
            raise UsageError(f"--dpi {self.dpi:g}: give the pixels of an inch")
        if not self.address.startswith(("http://", "https://")):
            raise UsageError(f"--address {self.address}: give a URL, such as https://example.org/tiles")


def pages(folder: Path) -> list[Path]:
    """The pages of deep zoom in an output folder, in the order of their names."""
    return sorted((folder / ZOOM).glob("*/index.html"))
