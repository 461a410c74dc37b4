"""Command that runs everything on generated images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from blemish.cli.options import Json, Out
from blemish.cli.session import end, print_json, say, working


def demo(
    out: Out = Path("demo"),
    family: Annotated[
        str,
        typer.Option(
            help="rod (machined parts in any pose), figures (painted ones), mouldings (in one paint), surface, weave, checkerboard, part, or painting "
            "(scenes of five modalities)."
        ),
    ] = "rod",
    seed: Annotated[int, typer.Option(help="Seed of the images and of the training.")] = 0,
    as_json: Json = False,
) -> None:
    """Run Blemish on generated images from beginning to end: draw, fit, calibrate, inspect, evaluate, report."""
    with working(quiet=as_json) as observer:
        from blemish.demo import run as demos

        figures: Any
        if family == demos.PAINTING:
            painting = demos.run_painting_demo(out, seed=seed, observer=observer)
            figures, summary, report = painting.figures(), painting.in_words(), painting.report
        else:
            result = demos.run_demo(out, family=family, seed=seed, observer=observer)
            figures, summary, report = result.figures(), result.in_words(), result.report
    if as_json:
        print_json(figures)
    else:
        say(summary)
        say(f"Report: {report}")
    end(observer)
