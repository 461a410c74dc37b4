"""Commands for scenes of several modalities."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from blemish.cli.options import Address, Dpi, Json, Out, Overwrite, Resume, Save
from blemish.cli.session import end, print_json, say, working


class Motions(str, Enum):
    """Maps that a registration looks for."""

    TRANSLATION = "translation"
    AFFINE = "affine"


class FeatureSets(str, Enum):
    """Features that classes are learned from."""

    FILTERS = "filters"
    LATENTS = "latents"
    BOTH = "both"


class DateMotions(str, Enum):
    """Maps between two dates of one scene."""

    AFFINE = "affine"
    TRANSLATION = "translation"
    NONE = "none"


class Learners(str, Enum):
    """Classifiers of labelled pixels."""

    FOREST = "forest"
    LOGISTIC = "logistic"


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


def classify(
    image: Annotated[Path, typer.Argument(help="Image, or folder of one scene.", metavar="IMAGE")],
    labels: Annotated[
        Path, typer.Option("--labels", help="Label image, GeoJSON or COCO, in pixels of the image.")
    ],
    out: Out,
    learner: Annotated[
        Learners, typer.Option(help="Random forest, or logistic regression.")
    ] = Learners.FOREST,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="MODEL", help="Fitted model, whose latents are compared with the filters."
        ),
    ] = None,
    features: Annotated[
        FeatureSets, typer.Option(help="Learn from filters, or with --model from its latents, or from both.")
    ] = FeatureSets.FILTERS,
    dpi: Annotated[float | None, typer.Option(help="Pixels an inch, for areas in mm².")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the forest.", min=0)] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Classify every pixel from a few labelled strokes or polygons, such as cracks and losses."""
    with working(quiet=as_json, after_stop=lambda: ("--overwrite",) if overwrite else ()) as observer:
        from blemish.inspection.classify import classify as run

        done = run(
            image,
            labels,
            out,
            learner=learner.value,
            model=model,
            features=features.value,
            dpi=dpi,
            seed=seed,
            overwrite=overwrite,
            observer=observer,
        )
    if as_json:
        print_json([asdict(one) for one in done.classes])
    else:
        say(done.in_words())
        say(f"Probabilities, regions and figures: {out}")
    end(observer)


def changes(
    before: Annotated[Path, typer.Argument(help="Image, or folder of one scene, at the first date.")],
    after: Annotated[Path, typer.Argument(help="The same at the second date.")],
    out: Out,
    motion: Annotated[
        DateMotions,
        typer.Option(help="Map between the dates; none where they lie on each other already."),
    ] = DateMotions.AFFINE,
    save: Save = None,
    dpi: Dpi = None,
    address: Address = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare two dates of one scene: register them, and show what changed in structure and grey level."""
    with working(quiet=as_json, after_stop=lambda: ("--resume",)) as observer:
        from blemish.inspection.scene_changes import compare_dates
        from blemish.report.save_settings import SaveSettings, pages

        done = compare_dates(
            before,
            after,
            out,
            motion=motion.value,
            save=SaveSettings.of_options(save or "page", dpi, address),
            resume=resume,
            overwrite=overwrite,
            observer=observer,
        )
    if as_json:
        print_json(done.as_json())
    else:
        say(done.in_words())
        say(f"Maps, figures and files: {out}")
        for page in pages(out):
            say(f"Page: {page}")
    end(observer)
