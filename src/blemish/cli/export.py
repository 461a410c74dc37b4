"""Command of export."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from blemish.cli.options import Json, Overwrite
from blemish.cli.session import end, print_json, say, working


class Target(str, Enum):
    """Runtimes to export to."""

    ONNX = "onnx"
    OPENVINO = "openvino"


class Precisions(str, Enum):
    """Precisions of exported graphs."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


def export(
    model: Annotated[Path, typer.Argument(help="Folder that blemish fit made.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the exported model.")],
    images: Annotated[
        Path | None,
        typer.Argument(
            help="Good images that the model was fitted on, to compare the exported model on; without them it is "
            "compared on generated ones."
        ),
    ] = None,
    to: Annotated[Target, typer.Option("--to", help="Runtime of the exported model.")] = Target.ONNX,
    precision: Annotated[
        Precisions,
        typer.Option("--precision", help="Lower precision, with the decision calibrated anew on the images."),
    ] = Precisions.FP32,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a model to a runtime without torch, if it gives the same scores there."""
    with working(quiet=as_json) as observer:
        from blemish.export.export_model import export_model

        detector = export_model(
            model,
            out,
            to=to.value,
            precision=precision.value,
            images=images,
            overwrite=overwrite,
            observer=observer,
        )
    record = detector.file.export
    assert record is not None
    assert record.parity is not None
    size = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    if as_json:
        shown = record.model_dump(mode="json", include={"runtime", "precision", "parity", "cost"})
        print_json({"model": str(out), "bytes": size, **shown})
    else:
        what = "generated images" if record.parity.generated else "images of the calibration"
        say(
            f"Model: {out} ({size / 1e6:.1f} MB)\n"
            f"Compared with torch on {record.parity.images} {what}: scores differ by {record.parity.score:.1e} at most, "
            f"relative, maps by {record.parity.map:.1e} of their largest value."
        )
        if record.cost is not None:
            say(record.cost.in_words(record.precision))
    end(observer)
