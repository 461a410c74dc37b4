"""Commands for scenes of several modalities."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from blemish.cli.options import Json
from blemish.cli.session import end, print_json, say, working


class Motions(str, Enum):
    """Maps that a registration looks for."""

    TRANSLATION = "translation"
    AFFINE = "affine"


def register(
    scenes: Annotated[
        Path, typer.Argument(help="Folder of a scene or of scenes, or modalities.yaml.", metavar="SCENES")
    ],
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Modality to register the others to; that with most pixels if none is given."
        ),
    ] = None,
    motion: Annotated[
        Motions, typer.Option(help="Translation, or also scale, rotation and shear.")
    ] = Motions.AFFINE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the transforms, write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Register the modalities of scenes to one of them; the transforms are written to modalities.yaml."""
    with working(quiet=as_json) as observer:
        from blemish.data.scene_registration import register_scenes

        observer.stage(f"Registering the modalities of {scenes}")
        found = register_scenes(scenes, grid=grid, motion=motion.value, dry_run=dry_run, observer=observer)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        for one in found:
            say(one.in_words())
    end(observer)
    if any(not one.agreeing for one in found):
        raise typer.Exit(1)
