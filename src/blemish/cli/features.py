"""Command that writes the features of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blemish.cli.options import Json, Out, Overwrite, Resume
from blemish.cli.session import end, load_detector, print_json, say, working


def features(
    model: Annotated[Path, typer.Argument(help="Folder that blemish fit made.")],
    images: Annotated[
        Path,
        typer.Argument(help="Image, folder of images, or CSV list; for a model of scenes, scenes."),
    ],
    out: Out,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the features that the encoder extracts at each place, as arrays for other tools."""
    with working(quiet=as_json, after_stop=lambda: ("--resume",)) as observer:
        from blemish.inspection.extract_features import extract_features

        detector = load_detector(model, None, None, calibrated=False)
        done = extract_features(detector, images, out, resume=resume, overwrite=overwrite, observer=observer)
    if as_json:
        print_json([one.described() for one in done.features])
    else:
        for one in done.features:
            say(one.in_words())
        say(f"Features: {out}")
    end(observer)
