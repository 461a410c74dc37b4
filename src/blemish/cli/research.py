"""Commands of research: recipes compared, and the protocols of papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blemish.cli.options import Good, Json, On, Out, Set, Workers
from blemish.cli.session import end, integers, load_studies, print_json, say, working


def compare(
    dataset: Annotated[
        Path, typer.Argument(help="MVTec layout with train/good and test, or scenes in train and test.")
    ],
    recipes: Annotated[str, typer.Option(help="Names or .yaml paths, separated by commas.")],
    out: Out = Path("compared"),
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas; each is a fit of its own.")] = "0",
    settings: Set = None,
    good: Good = None,
    as_json: Json = False,
) -> None:
    """Fit several recipes on the same split and compare their metrics; finished fits are kept."""
    with working(quiet=as_json) as observer:
        from blemish.evaluation import compare as comparing

        comparison = comparing.compare(
            dataset,
            recipes=[name.strip() for name in recipes.split(",") if name.strip()],
            seeds=integers("--seeds", seeds),
            settings=settings or [],
            good_label=good,
            out=out,
            observer=observer,
        )
    if as_json:
        print_json(comparison.model_dump(mode="json"))
    else:
        say(comparison.in_words())
        say(f"Report: {out / comparing.REPORT_FILE}")
    end(observer)


def study(
    name: Annotated[
        str, typer.Argument(help="A paper: bergmann2018, kumar2025, radli2022, xie2019 or liu2022.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="MVTec layout; of liu2022 and xie2019 a folder with train and test. Without it images are "
            "generated.",
        ),
    ] = None,
    out: Out = Path("studies/results"),
    quick: Annotated[bool, typer.Option("--quick", help="Minutes instead of the full length.")] = False,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, separated by commas, instead of the study's own.")
    ] = None,
    settings: Set = None,
    rows: Annotated[
        int | None,
        typer.Option(
            help="New fits at most; the same line goes on with the next ones. The table has those there."
        ),
    ] = None,
    on: On = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Run a paper's protocol and write its figures and images; finished parts are kept."""
    with working(quiet=as_json) as observer:
        run_study = load_studies().run_study
        result = run_study(
            name,
            out,
            data=data,
            quick=quick,
            seeds=None if seeds is None else integers("--seeds", seeds),
            settings=settings or [],
            rows=rows,
            on=on,
            workers=workers,
            observer=observer,
        )
    if as_json:
        print_json(result.figures)
    else:
        say(result.table)
        say("\n".join(f"Written: {path}" for path in result.files))
    end(observer)
