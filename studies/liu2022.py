"""Liu, Liu, Mantravadi 2022: JPEG encoders of learned tables and attention, six recipes beside JPEG itself.

A data set is a folder with ``train/`` and ``test/`` photographs: the paper trains on HDR+ and tests on Kodak.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blemish.data.datasets import find_images
from blemish.errors import FileError
from blemish.jpeg.benchmark.codecs import learned_codec
from blemish.jpeg.benchmark.run import evaluate
from blemish.jpeg.deep.fit import check_deep_recipe, fit_jpeg_once
from blemish.jpeg.quality import measures
from blemish.observer import Observer
from studies.liu2022_figures import draw_rates, draw_terms
from studies.liu2022_page import page
from studies.liu2022_plan import (
    CLAIMS,
    FAMILY,
    FULL,
    OURS,
    PAPER,
    PUBLISHED,
    QUICK,
    WITHOUT_GPU,
    attention_start,
    plan_fits,
)
from studies.liu2022_results import Fit, Results, fit_record, records_of
from studies.protocol import Request, document, finish, generated
from studies.result import StudyResult

if TYPE_CHECKING:
    pass


def run(
    out: Path,
    *,
    data: Path | None,
    quick: bool,
    seeds: tuple[int, ...] | None,
    settings: tuple[str, ...],
    observer: Observer,
) -> StudyResult:
    """Write ``liu2022[-DATASET][-quick]`` ``.json``, ``.md``, ``.png`` and ``-curves.png`` to ``out``.

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
    results = Results(request, fits, evaluation, records_of(request, evaluation), with_lpips)
    figures = document(
        request,
        paper=PAPER,
        seeds=sorted({fit.recipe.training.seed for fit in fits}),
        length=length._asdict(),
        lpips=with_lpips,
        rows=[fit_record(results, fit) for fit in fits],
        claims=[
            {**claim._asdict(), "rates": results.rates(claim.anchor, claim.encoder, claim.bpp_range)}
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
    drawn = (
        draw_rates(request.file(".png"), evaluation, [fit.name for fit in fits if not fit.planned.changed]),
        draw_terms(
            request.file("-curves.png"),
            {fit.name: fit.encoder.file.training.history for fit in fits if not fit.planned.changed},
        ),
    )
    return finish(request, figures, page(results), drawn)


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
