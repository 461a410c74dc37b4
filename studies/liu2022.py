"""Liu, Liu, Mantravadi 2022: JPEG encoders of learned tables and attention, six recipes beside JPEG itself.

A data set is a folder with ``train/`` and ``test/`` photographs: the paper trains on HDR+ and tests on Kodak.
"""

from __future__ import annotations

from pathlib import Path

from blemish.data.datasets import find_images
from blemish.errors import FileError
from blemish.jpeg.benchmark.codecs import learned_codec
from blemish.jpeg.benchmark.run import evaluate
from blemish.jpeg.deep.fit import check_deep_recipe, fit_jpeg_once
from blemish.jpeg.deep.speed import time_steps
from blemish.jpeg.quality import measures
from blemish.observer import Observer
from studies.liu2022_figures import draw_rates, draw_steps
from studies.liu2022_page import page
from studies.liu2022_plan import (
    CLAIMS,
    FAMILY,
    FIGURES,
    FULL,
    OURS,
    PAPER,
    PUBLISHED,
    QUICK,
    RECIPES,
    WITHOUT_GPU,
    attention_start,
    plan_fits,
)
from studies.liu2022_results import Fit, Results, fit_record, records_of
from studies.protocol import Request, document, finish, generated
from studies.result import StudyResult


def run(
    out: Path,
    *,
    data: Path | None,
    quick: bool,
    seeds: tuple[int, ...] | None,
    settings: tuple[str, ...],
    observer: Observer,
) -> StudyResult:
    """Write ``liu2022[-DATASET][-quick]`` ``.json``, ``.md``, ``.png``, ``-curves.png`` and ``-figures.png`` to ``out``.

    Details of test images side by side are in ``evaluation/report.html`` of the work folder.
    """
    request = Request("liu2022", out, data, quick, seeds, settings)
    length = request.length(QUICK, FULL, WITHOUT_GPU)
    if data is not None:
        check_data(data)
    with_lpips = "lpips" in measures(ssimulacra2=False)[0]
    plan = plan_fits(length, seeds or length.seeds, settings, with_lpips)
    for one in plan:
        check_deep_recipe(one.recipe)
    images = data or generated(request.work, FAMILY, **length.images, observer=observer)
    folders = {one.name: request.work / "models" / one.folder for one in plan}
    fits = [
        Fit(
            one,
            attention_start(one.recipe),
            fit_jpeg_once(images / "train", one.recipe, folders[one.name], title=one.name, observer=observer),
        )
        for one in plan
    ]
    evaluation = evaluate(
        images / "test",
        request.work / "evaluation",
        encoders=[OURS, *(learned_codec(folder, name) for name, folder in folders.items())],
        qualities=length.qualities,
        bpp_range=length.bpp_range,
        ssimulacra2=False,
        crops=length.crops,
        command=request.command,
        observer=observer,
    )
    first = [one for one in plan if one.name in RECIPES]
    seconds = time_steps({one.name: one.recipe for one in first}, length.rounds, observer)
    results = Results(request, fits, evaluation, records_of(request, evaluation), with_lpips, seconds)
    figures = document(
        request,
        paper=PAPER,
        seeds=sorted({fit.recipe.training.seed for fit in fits}),
        length=length._asdict(),
        lpips=with_lpips,
        rows=[fit_record(results, fit) for fit in fits],
        seconds_a_step=seconds,
        claims=[
            {
                **claim._asdict(),
                "rates": results.rates(claim.anchor, claim.encoder, claim.bpp_range),
                "over_seeds": {
                    measure: results.over_seeds(
                        claim.anchor, claim.encoder, measure, claim.bpp_range
                    ).interval
                    for measure in evaluation.measures
                },
            }
            for claim in CLAIMS
        ],
        ablations=[
            {
                "encoder": fit.name,
                "anchor": fit.planned.changed,
                "rates": results.rates(fit.planned.changed, fit.name),
            }
            for fit in fits
            if fit.planned.changed
        ],
        evaluation=evaluation.model_dump(
            mode="json",
            exclude={"command": True, "versions": True, "encoders": {"__all__": {"relative_rate"}}},
        ),
        published=PUBLISHED,
    )
    named = {fit.name for fit in fits}
    drawn = [
        draw_rates(
            request.file(".png"),
            evaluation,
            {"Figures 10 and 15: all kinds of attention": [name for name in RECIPES if name in named]},
        ),
        draw_steps(
            request.file("-curves.png"),
            {fit.name: fit.encoder.file.training.history for fit in fits if fit.name in RECIPES},
        ),
    ]
    more = {figure.title: [name for name in figure.fits if name in named] for figure in FIGURES}
    more = {title: names for title, names in more.items() if len(names) > 1}
    if more:
        drawn.append(draw_rates(request.file("-figures.png"), evaluation, more))
    return finish(request, figures, page(results), tuple(drawn))


def check_data(data: Path) -> None:
    """Refuse a data set without images in ``train`` and ``test``.

    Raises
    ------
    FileError
        Naming the folder.
    """
    for part in ("train", "test"):
        if not (data / part).is_dir():
            raise FileError(
                data, f"has no {part} folder", "lay it out as train/ and test/, with photographs in each"
            )
        find_images(data / part)
