"""``blemish jpeg``: read arguments, call one function, print its result."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from blemish.cli.archives import encode_on, show_archive
from blemish.cli.options import Json, On, Parts, Workers
from blemish.cli.session import end, integers, print_json, print_recipes, say, working
from blemish.errors import UsageError

app = typer.Typer(
    name="jpeg",
    help="Encode smaller JPEG files that any decoder opens, and compare encoders.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command(
    epilog="Examples: `blemish jpeg encode photos/ --out small` · "
    "`blemish jpeg encode photos/ --out small --target-bpp 0.5 --tune ms-ssim` · "
    "`blemish jpeg encode photos/ --in-place --lossless` · "
    "`blemish jpeg encode parts/ --out small --target-bpp 0.5 --protect model` · "
    "`blemish jpeg encode s3://bucket/parts --out small --on local --files s3://bucket/small`"
)
def encode(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders of images, CSV lists; with --on also Parquet listings and URLs."
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files.")] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace each JPEG, once its new file is verified.")
    ] = False,
    quality: Annotated[
        float | None, typer.Option(help="1 to 100; by default 75, unless a target is given.")
    ] = None,
    target_bpp: Annotated[
        float | None, typer.Option(help="Target rate in bits per pixel, instead of a quality.")
    ] = None,
    target_ssim: Annotated[
        float | None, typer.Option(help="Target SSIM of luma, such as 0.98, instead of a quality.")
    ] = None,
    tune: Annotated[
        Literal["psnr", "ms-ssim", "balanced", "ssimulacra2"] | None,
        typer.Option(help="Quality measure to optimise; by default psnr and ms-ssim, balanced."),
    ] = None,
    sampling: Annotated[
        Literal["4:4:4", "4:2:0"] | None,
        typer.Option(
            help="Chroma at full size, or at half the width and height; by default as in a JPEG, else by image."
        ),
    ] = None,
    protect: Annotated[
        Path | None,
        typer.Option(
            "--protect",
            metavar="MODEL",
            help="Detector made by blemish fit; its regions of interest keep their detail.",
        ),
    ] = None,
    protect_strength: Annotated[
        float | None,
        typer.Option(
            help="1 to 100: factor by which errors count more there, and less elsewhere; by default 4."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Encoder made by blemish jpeg fit, instead of the built-in one."),
    ] = None,
    keep_metadata: Annotated[
        bool,
        typer.Option(
            "--keep-metadata/--drop-metadata",
            help="EXIF, XMP, colour profile, comment, pixel density; of a JPEG all others too (IPTC, C2PA).",
        ),
    ] = True,
    lossless: Annotated[
        bool,
        typer.Option("--lossless", help="For JPEG files: keep the coefficients, and only code them anew."),
    ] = False,
    workers: Workers = None,
    on: On = None,
    files: Annotated[
        str | None,
        typer.Option(
            "--files",
            metavar="PLACE",
            help="With --on: folder or URL that all workers write the files to; by default files/ in --out.",
        ),
    ] = None,
    parts: Parts = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="With --on: resume an unfinished run, as is always done without --on."),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Also replace files in the output folder that no earlier run wrote."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Encode images as smaller standard JPEG files; finished files are not encoded again.

    Finished files are listed in blemish-jpeg.jsonl, beside them. No file gets larger: one whose JPEG would is kept as it
    is. Of a JPEG the lossless recoding is always tried, and taken where it is no larger.

    With `--protect`, errors count 4 times where the detector's anomaly map reaches the pixel threshold, and a
    quarter where it is 0. A target is met, and bits move. At a quality, other regions get fewer bits and the regions
    of interest get more: at 75 about as in files of quality 54 and 89, so files of mostly good parts get smaller
    and suspicious ones larger. blemish-jpeg.html shows the detector's decision on each file, beside a file of the
    same size without protection.

    With `--on` the work is spread over a Ray cluster; the records are Parquet files in parts/, and the JPEG files lie
    in files/.
    """

    def after_stop() -> tuple[str, ...]:
        if on is not None:
            return ("--resume",)
        return ("--overwrite",) if overwrite else ()  # finished files are skipped all the same

    with working(quiet=as_json, after_stop=after_stop) as observer:
        from blemish.jpeg.batch import BatchSettings, encode_folder
        from blemish.workers import cores

        chosen = BatchSettings(
            quality=quality,
            target_bpp=target_bpp,
            target_ssim=target_ssim,
            tune=tune,
            sampling=sampling,
            keep_metadata=keep_metadata,
            lossless=lossless,
            protect=protect,
            protect_strength=protect_strength,
            model=model,
        )
        archive = None
        if on is not None:
            if in_place or out is None:
                raise UsageError(
                    "--on writes records and files to a folder; give --out, and leave --in-place out"
                )
            archive = encode_on(on, workers, images, out, chosen, files, resume, overwrite, parts, observer)
        elif files is not None or parts is not None or resume:
            raise UsageError("--files, --parts and --resume are for archives; give --on too")
        else:
            batch = encode_folder(
                [Path(image) for image in images],
                out,
                in_place=in_place,
                settings=chosen,
                workers=workers or cores(),
                overwrite=overwrite,
                observer=observer,
            )
    if archive is not None:
        show_archive(archive, as_json=as_json)
        end(observer)
        return
    for line in batch.passed_over:
        say(line, err=True)
    if as_json:
        print_json([file.model_dump(mode="json", exclude={"settings"}) for file in batch.files])
    else:
        for notice in (notice for file in batch.files for notice in file.notices):
            say(notice, err=True)
        say(batch.in_words())
        for page in batch.pages:
            say(f"Report: {page}")
    end(observer)


@app.command(
    epilog="Examples: `blemish jpeg evaluate kodak/ --out compared` · "
    "`blemish jpeg evaluate kodak/ --out compared --encoders blemish-psnr,models/jpeg-lstm --no-ssimulacra2`"
)
def evaluate(
    images: Annotated[Path, typer.Argument(help="Image, folder of images, or CSV list.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for records, tables and report.")],
    encoders: Annotated[
        str | None,
        typer.Option(
            help="Names, or folders that blemish jpeg fit made, separated by commas; by default all names."
        ),
    ] = None,
    qualities: Annotated[
        str | None, typer.Option(help="Qualities to measure, 1 to 100, separated by commas.")
    ] = None,
    bpp_range: Annotated[
        str, typer.Option("--bpp", help="Range of bits per pixel for the BD-rates.")
    ] = "0.2,1.0",
    ssimulacra2: Annotated[bool, typer.Option(help="Measure SSIMULACRA2, which is slow.")] = True,
    lpips: Annotated[bool, typer.Option(help="Measure LPIPS, if its network is installed.")] = True,
    crops: Annotated[int, typer.Option(min=0, help="Number of images to show details of.")] = 3,
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Measure everything again.")] = False,
    as_json: Json = False,
) -> None:
    """Compare encoders by real files: rate-distortion curves, BD-rates with intervals, encode times.

    Measured files are not measured again. Take times with `--workers 1`. A model is measured
    at each λ that it was trained for, whatever the ladder.
    """
    low, high = _range("--bpp", bpp_range)
    with working(quiet=as_json) as observer:
        from blemish.jpeg.benchmark import run as evaluating
        from blemish.jpeg.benchmark.find_codecs import find_codecs
        from blemish.workers import cores

        names = None if encoders is None else [name.strip() for name in encoders.split(",") if name.strip()]
        evaluation = evaluating.evaluate(
            images,
            out,
            encoders=None if names is None else find_codecs(names)[0],
            qualities=evaluating.LADDER if qualities is None else integers("--qualities", qualities),
            bpp_range=(low, high),
            ssimulacra2=ssimulacra2,
            lpips=lpips,
            workers=workers or cores(),
            crops=crops,
            overwrite=overwrite,
            command=shlex.join(["blemish", *sys.argv[1:]]),
            observer=observer,
        )
    if as_json:
        print_json(evaluation.model_dump(mode="json"))
    else:
        say(evaluation.in_words())
        say(f"Report: {out / evaluating.REPORT_FILE}")
    end(observer)


@app.command(
    epilog="Examples: `blemish jpeg fit photos/ --recipe jpeg-vgg19 --out model` · "
    "`blemish jpeg fit photos/ --recipe jpeg-lstm --out model --set training.steps=2000 --set loss.gamma=0`"
)
def fit(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs, or CSV list.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the model.")],
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or path of a .yaml file.")] = "jpeg-tables",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an unfinished run.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier result in the output folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a JPEG encoder of the papers: its tables, and the network that chooses coefficients."""

    def after_stop() -> tuple[str, ...]:
        from blemish.training.runs import is_unfinished

        if is_unfinished(out):
            return ("--resume",)
        return ("--overwrite",) if overwrite else ()

    with working(quiet=as_json, after_stop=after_stop) as observer:
        from blemish.jpeg.deep.fit import fit_jpeg

        encoder = fit_jpeg(
            photos,
            recipe,
            settings=settings or [],
            out=out,
            resume=resume,
            overwrite=overwrite,
            observer=observer,
        )
    training = encoder.file.training
    if as_json:
        print_json(
            {
                "model": str(out),
                "recipe": encoder.recipe.name,
                "lambdas": sorted(encoder.recipe.lambdas),
                "training": training.model_dump(mode="json", exclude={"history"}),
            }
        )
    else:
        say(
            f"Model: {out} (best of {training.steps} steps at {training.best_step}, {training.seconds:.0f} s)"
        )
    end(observer)


@app.command(epilog="Example: `blemish jpeg recipes --json`")
def recipes(as_json: Json = False) -> None:
    """List the networks that `blemish jpeg fit` trains, and their papers."""
    from blemish.jpeg.deep.recipe import deep_recipe_names, load_deep_recipe

    print_recipes([load_deep_recipe(name) for name in deep_recipe_names()], as_json=as_json)


def _range(option: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} {text}: write two numbers separated by a comma, such as 0.2,1.0"
        ) from None
    return low, high
