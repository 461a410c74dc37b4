"""Options that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

REJECTED = 3
"""Exit code of ``inspect --fail-on-reject`` when an image is rejected."""


class Overlays(str, Enum):
    """Images of which overlays are written."""

    ALL = "all"
    REJECTED = "rejected"
    NONE = "none"


Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON on standard output.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe.")
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--false-reject-rate", min=0, max=1, help="Share of good images that may be rejected, on average."
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", help="Reject image scores above this, instead of a promised rate."),
]
Good = Annotated[
    str | None,
    typer.Option(
        "--good",
        metavar="NAME",
        help="Label that says good, where it is none of the usual words (good, ok, normal, …).",
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        "--mask",
        metavar="FILE",
        help="Image or JSON of polygons that marks the region of interest, or classes of regions, in every image.",
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="CLUSTER",
        help="Spread the work over a Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT.",
    ),
]
Parts = Annotated[
    str | None,
    typer.Option(
        "--parts",
        metavar="PLACE",
        help="With --on: folder or URL to which finished parts of the records are copied.",
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Worker processes; by default one per core.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Resume an unfinished run.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier result in the output folder.")
]
Save = Annotated[
    str | None,
    typer.Option(
        "--save",
        metavar="KINDS",
        help="For scenes: files for other programs, separated by commas: page (deep zoom), tiff (pyramids), zarr "
        "(OME-Zarr), iiif (tiles), regions (GeoJSON).",
    ),
]
Dpi = Annotated[
    float | None,
    typer.Option("--dpi", help="With --save: pixels of the scene an inch, for lengths and areas."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="URL", help="With --save iiif: where the folder zoom/ is going to be served."
    ),
]
