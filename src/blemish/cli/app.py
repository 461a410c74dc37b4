"""Commands of ``blemish``: read arguments, call one function, print its result."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from blemish._version import __version__
from blemish.cli.archives import inspect_on, refuse_outputs, show_archive
from blemish.cli.demo import demo
from blemish.cli.export import export
from blemish.cli.features import features
from blemish.cli.history import app as history
from blemish.cli.jpeg import app as jpeg
from blemish.cli.listings import checks, recipes
from blemish.cli.options import (
    REJECTED,
    Address,
    Dpi,
    Good,
    Json,
    Mask,
    On,
    Out,
    Overlays,
    Overwrite,
    Parts,
    Rate,
    Resume,
    Save,
    Set,
    Threshold,
)
from blemish.cli.research import compare, study
from blemish.cli.scenes import changes, classify, register
from blemish.cli.serve import serve
from blemish.cli.session import end, load_detector, print_json, say, working
from blemish.errors import UsageError

app = typer.Typer(
    name="blemish",
    help="Learns what flawless images look like and shows what is wrong in new ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

app.add_typer(jpeg)
app.add_typer(history)
app.command(epilog="Example: `blemish compare screw/ --recipes l2-ae,ssim-ae --out compared`")(compare)
app.command(
    epilog="Examples: `blemish study bergmann2018 --quick` · "
    "`blemish study kumar2025 --data screw/ --seeds 0,1,2 --set training.steps=2000`"
)(study)
app.command(
    epilog="Examples: `blemish export model good/ --out exported` · `blemish export model --to openvino --out exported`"
)(export)
app.command(
    epilog="Examples: `blemish serve exported` · "
    "`blemish serve left=exported/left right=exported/right --home line --port 8080` · "
    "`blemish serve exported --host 0.0.0.0 --key-file key.txt`"
)(serve)
app.command(
    epilog="Examples: `blemish register paintings/` · "
    "`blemish register paintings/eve --grid visible --motion translation --dry-run`"
)(register)
app.command(
    epilog="Examples: `blemish classify panel.tif --labels strokes.geojson --out cracks` · "
    "`blemish classify paintings/eve --labels labels.png --out cracks --dpi 600`"
)(classify)
app.command(
    epilog="Examples: `blemish changes 2019/eve 2026/eve --out changes` · "
    "`blemish changes before.tif after.tif --out changes --save page,tiff --dpi 600`"
)(changes)
app.command(epilog="Examples: `blemish demo --out demo` · `blemish demo --family painting`")(demo)
app.command(epilog="Example: `blemish features model paintings/ --out features`")(features)
app.command(epilog="Example: `blemish recipes --json`")(recipes)
app.command(epilog="Example: `blemish checks`")(checks)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"blemish {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Examples: `blemish fit good/ --out model` · "
    "`blemish fit good/ --out model --budget 5m --false-reject-rate 0.01` · "
    "`blemish fit good/ --defects bad/ --out model` · "
    "`blemish fit more/ --continue model --out newer` · "
    "`blemish fit paintings/ --out model`"
)
def fit(
    images: Annotated[
        Path, typer.Argument(help="Folder of good images, CSV list, folder of scenes, or modalities.yaml.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the model.")],
    recipe: Annotated[
        str | None, typer.Option(help="Name of a recipe, or path of a .yaml file; blemish if none is given.")
    ] = None,
    settings: Set = None,
    false_reject_rate: Rate = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Time of the whole fit, 90s, 5m or 1h, instead of a number of steps."
        ),
    ] = None,
    continue_from: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            metavar="MODEL",
            help="Warm start: train this model further, with good images added.",
        ),
    ] = None,
    defects: Annotated[
        Path | None,
        typer.Option(
            help="Folder or CSV list of confirmed defects, to choose among the models of an ensemble."
        ),
    ] = None,
    good: Good = None,
    mask: Mask = None,
    processes: Annotated[
        int,
        typer.Option(
            "--processes",
            min=1,
            metavar="N",
            help="Processes on this machine that train together, one for each GPU, or several on a CPU.",
        ),
    ] = 1,
    nodes: Annotated[
        int,
        typer.Option(
            "--nodes",
            min=1,
            metavar="M",
            help="Machines; start this command on each, with NODE_RANK, MASTER_ADDR and MASTER_PORT set.",
        ),
    ] = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Fit a detector on good images, and calibrate the reject decision on held-out ones."""

    def after_stop() -> tuple[str, ...]:
        from blemish.training.runs import is_unfinished

        if is_unfinished(out):
            return ("--resume",)
        return ("--overwrite",) if overwrite else ()

    with working(quiet=as_json, after_stop=after_stop) as observer:
        from blemish.training import fit as fitting

        detector = fitting.fit(
            images,
            recipe,
            settings=settings or [],
            false_reject_rate=false_reject_rate,
            budget=budget,
            continue_from=continue_from,
            defects=defects,
            good_label=good,
            mask=mask,
            out=out,
            resume=resume,
            overwrite=overwrite,
            observer=observer,
            processes=processes,
            nodes=nodes,
        )
    training = detector.file.training
    if as_json:
        print_json(
            {
                "model": str(out),
                "threshold": detector.threshold,
                "level": detector.pixel_threshold,
                **({"class_thresholds": classes} if (classes := detector.class_thresholds) else {}),
                "guarantee": detector.guarantee,
                "training": training.model_dump(mode="json", exclude={"history"}),
            }
        )
    else:
        say(
            f"Model: {out} (best of {training.steps} steps at {training.best_step}, {training.seconds:.0f} s)\n"
            f"Threshold on the score: {detector.threshold:.6g}. {detector.guarantee}"
        )
    end(observer)


@app.command(
    epilog="Examples: `blemish inspect model parts/ --out found` · "
    "`blemish inspect model parts/ --out found --false-reject-rate 0.01` · "
    "`blemish inspect model monday/ tuesday/ --out found --overlays rejected --fail-on-reject` · "
    "`blemish inspect model paintings/ --out found --hide infrared` · "
    "`blemish inspect model paintings/ --out found --save page,tiff --dpi 600` · "
    "`blemish inspect model s3://bucket/parts --out found --on local`"
)
def inspect(
    model: Annotated[Path, typer.Argument(help="Folder that blemish fit made.")],
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders of images, CSV lists; for a model of scenes, scenes; with --on also Parquet listings "
            "and URLs."
        ),
    ],
    out: Out,
    false_reject_rate: Rate = None,
    threshold: Threshold = None,
    mask: Mask = None,
    overlays: Annotated[
        Overlays, typer.Option("--overlays", help="Images of which overlays are written.")
    ] = Overlays.ALL,
    masks: Annotated[
        bool, typer.Option("--masks", help="Also write label masks of the regions, to masks/.")
    ] = False,
    coco: Annotated[
        bool, typer.Option("--coco", help="Also write the regions in the format of COCO, to coco.json.")
    ] = False,
    fail_on_reject: Annotated[
        bool, typer.Option("--fail-on-reject", help="Exit with code 3 when an image is rejected.")
    ] = False,
    hide: Annotated[
        list[str] | None,
        typer.Option(
            "--hide",
            metavar="NAME",
            help="For scenes: a modality to hide, and to reconstruct from the others.",
        ),
    ] = None,
    reconstruction: Annotated[
        bool,
        typer.Option("--reconstruction", help="For scenes: also write the reconstructions at full size."),
    ] = False,
    save: Save = None,
    dpi: Dpi = None,
    address: Address = None,
    on: On = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="For scenes and with --on: worker processes, which share the work."
        ),
    ] = None,
    parts: Parts = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Score images, accept or reject each, and show its anomalies in a heat map.

    With `--on` the work is spread over a Ray cluster, for archives of any size; the records are Parquet files in parts/,
    and there are no maps.
    """
    with working(quiet=as_json, after_stop=lambda: ("--resume",)) as observer:
        from blemish.inspection.folder import Outputs
        from blemish.inspection.inspect import inspect as run
        from blemish.report.save_settings import SaveSettings, pages

        if parts is not None and on is None:
            raise UsageError("--parts is for archives; give --on too")
        detector = load_detector(model, false_reject_rate, threshold)
        if mask is not None:
            from blemish.preprocessing.area_files import read_area

            detector = detector.with_judged_area(read_area(mask))
        outputs = Outputs(overlays=overlays.value, masks=masks, coco=coco)
        archive = None
        if on is not None:
            refuse_outputs(outputs, hide, save, reconstruction=reconstruction)
            archive = inspect_on(on, workers, detector, images, out, resume, overwrite, parts, observer)
        else:
            found = run(
                detector,
                [Path(image) for image in images],
                out,
                hide=hide or [],
                reconstruction=reconstruction,
                save=SaveSettings.of_options(save, dpi, address),
                workers=workers or 1,
                outputs=outputs,
                resume=resume,
                overwrite=overwrite,
                observer=observer,
            )
    if archive is not None:
        show_archive(archive, as_json=as_json)
    elif as_json:
        print_json([record.model_dump(mode="json") for record in found.records])
    else:
        say(f"{found.in_words()} {detector.guarantee}")
        for line in found.remarks():
            say(line)
        say(f"Report: {found.report}")
        for page in pages(out) if save else ():
            say(f"Page: {page}")
    end(observer)
    rejected = any(record.is_anomalous for record in found.records) if archive is None else archive.rejected
    if fail_on_reject and rejected:
        raise typer.Exit(REJECTED)


@app.command(
    epilog="Examples: `blemish calibrate model paintings/ --out calibrated` · "
    "`blemish calibrate model more/ --out stricter --false-reject-rate 0.01` · "
    "`blemish calibrate exported good/ --out masked --mask roi.png`"
)
def calibrate(
    model: Annotated[Path, typer.Argument(help="Folder that blemish fit made.")],
    images: Annotated[
        Path,
        typer.Argument(
            help="Good images or scenes that the model was fitted on; further good images are welcome."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the calibrated model.")],
    false_reject_rate: Rate = None,
    mask: Mask = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Calibrate the reject decision of a model again, without training."""
    again = ("--overwrite",) if overwrite else ()
    with working(quiet=as_json, after_stop=lambda: again) as observer:
        from blemish.inspection.calibration import calibrate as run

        detector = run(
            model,
            images,
            out,
            false_reject_rate=false_reject_rate,
            mask=mask,
            overwrite=overwrite,
            observer=observer,
        )
    scored = detector.decision.calibration
    if as_json:
        print_json(
            {
                "model": str(out),
                "threshold": detector.threshold,
                "level": detector.pixel_threshold,
                **({"class_thresholds": classes} if (classes := detector.class_thresholds) else {}),
                "guarantee": detector.guarantee,
                "calibration_scores": len(scored.scores),
            }
        )
    else:
        say(
            f"Model: {out} (calibrated on {len(scored.scores)} {scored.unit.words})\n"
            f"Threshold on the score: {detector.threshold:.6g}. {detector.guarantee}"
        )
    end(observer)


@app.command(epilog="Example: `blemish evaluate model screw/ --out evaluated`")
def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder that blemish fit made.")],
    dataset: Annotated[
        Path, typer.Argument(help="MVTec layout, CSV list with labels, or scenes with masks/.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for maps, records and report.")] = None,
    false_reject_rate: Rate = None,
    threshold: Threshold = None,
    good: Good = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Evaluate a model on labelled images, or on scenes with masks: metrics with 95 % intervals."""
    with working(quiet=as_json, after_stop=lambda: ("--overwrite",) if out else ()) as observer:
        from blemish.evaluation import evaluate as evaluating
        from blemish.inspection import folder as inspecting

        detector = load_detector(model, false_reject_rate, threshold)
        evaluation = evaluating.evaluate(
            detector,
            dataset,
            out=out,
            overwrite=overwrite,
            good_label=good,
            command=shlex.join(["blemish", *sys.argv[1:]]),
            observer=observer,
        )
    if as_json:
        print_json(evaluation.model_dump(mode="json"))
    else:
        say(evaluation.in_words())
        if out is not None:
            report = inspecting.REPORT_FILE if evaluation.unit == "image" else "evaluation.html"
            say(f"Report: {out / report}")
    end(observer)
