"""Guide to an exported folder, for programs that use its graphs without Blemish."""

from __future__ import annotations

from blemish.inspection.document import ModelFile
from blemish.runtime.bank import SEARCHED, SQUARES
from blemish.runtime.model import PLANES, SHOWN, TILES, ExportedModel
from blemish.runtime.record import RUNTIME_WORDS, Export, ExportedFilters, ExportedMemory, ExportedNetwork

GUIDE_FILE = "README.md"
"""In the folder of an exported model."""


def export_guide(file: ModelFile, model: ExportedModel) -> str:
    """The guide in Markdown: input, preprocessing, graphs, score and thresholds."""
    record = model.export
    parts = [
        f"# {file.recipe.title}, exported for {RUNTIME_WORDS[record.runtime]}\n",
        "With Blemish this folder is a model like any other: `blemish inspect FOLDER IMAGES --out FOUND`, without "
        "torch. This page is for programs that use the graphs themselves.\n",
        _agreement(record),
        _preprocessing(file),
        *(
            _network(member)
            if isinstance(member, ExportedNetwork)
            else _memory(member)
            if isinstance(member, ExportedMemory)
            else _filters(member)
            for member in record.members
        ),
        _combination(record),
        _decision(file),
    ]
    return "\n".join(parts)


def _agreement(record: Export) -> str:
    if record.parity is None:
        return "The decision was calibrated on this model itself.\n"
    source = "generated images" if record.parity.generated else "images of the calibration"
    return (
        f"Compared with the model in torch on {record.parity.images} {source}: scores differ by {record.parity.score:.1e} "
        f"at most, relative, and maps by {record.parity.map:.1e} of their largest value.\n"
    )


def _preprocessing(file: ModelFile) -> str:
    own = file.preprocessing
    full = {"uint8": "255", "uint16": str(own.range or 65535), "float32": "1"}[own.kind]
    if own.crop is not None:
        size = (
            f"The object is found and turned into one pose, in a crop of {own.crop.height} × {own.crop.width} pixels "
            "(height × width); `blemish.preprocessing.pose` has the steps."
        )
    elif own.scale is not None and own.scale != 1:
        size = f"The image is resized by the factor {own.scale:.9g}, bilinear with antialiasing."
    elif own.size is not None:
        size = f"The image is resized to a shorter side of {own.size} pixels, bilinear with antialiasing."
    else:
        size = "The image keeps its size."
    convert = "; other numbers of channels are converted" if own.convert else ""
    return (
        "## Preprocessing\n\n"
        f"Images of {own.kind} with {own.channels} channel{'s' * (own.channels != 1)}{convert}, colours in the order red, "
        f"green, blue. Values are divided by {full}, as 32-bit floats in [0, 1], channels first. {size}\n"
    )


def _network(member: ExportedNetwork) -> str:
    count = len(member.modalities)
    planes = ["the anomaly map", f"the reconstruction ({member.channels})"]
    if count:
        planes += [f"the residual of each modality ({count})", f"and without that modality ({count})"]
    shown = (
        f" `{SHOWN}` is the same with channels that the network is not to see set to NaN; absent values are NaN in both."
        if count and member.takes_absent
        else ""
    )
    return (
        f"## `{member.graph}`: {member.title}\n\n"
        f"Input `{TILES}` (n, {member.channels}, {member.patch}, {member.patch}), n of any number.{shown} Output "
        f"`{PLANES}` (n, planes, {member.patch}, {member.patch}): {', '.join(planes)}.\n\n"
        f"The image is cut into tiles of {member.patch} × {member.patch} pixels, {member.stride} apart and the last one "
        "flush with the edge; a smaller image is mirrored. Where tiles overlap, each pixel is their mean, weighted by "
        "the product of two triangles that fall to the edge of a tile; `blemish.preprocessing.tiling` has them.\n"
    )


def _memory(member: ExportedMemory) -> str:
    searches = [f"`{bank.search}`" for bank in member.banks if bank.search is not None]
    text = (
        f"## Memory bank: {member.title}\n\n"
        "Features of patches, their principal components, and the distance to the nearest of the good images; the steps "
        "are in `blemish.runtime.bank`, the arrays in `model.safetensors`.\n"
    )
    if searches:
        text += (
            f"\n{' and '.join(searches)}: input `{SEARCHED}` (n, k + 1), -2 times each projected feature, and 1; output "
            f"`{SQUARES}` (n,), to which the squared length of the feature is added.\n"
        )
    return text


def _filters(member: ExportedFilters) -> str:
    return (
        "## Filter bank\n\nClassical filters, read in the spread of good images, whose mean and spread are in "
        "`model.safetensors`; the steps are in `blemish.detectors.filter_responses`.\n"
    )


def _combination(record: Export) -> str:
    if record.combination is None:
        return ""
    names = ", ".join(record.names)
    return (
        f"## Combination\n\nThe maps of {names} are combined by a {record.combination.replace('-', ' ')}; the formula is "
        "in `blemish.detectors.combination`, scales and weights in `model.safetensors`.\n"
    )


def _decision(file: ModelFile) -> str:
    rule = file.recipe.score
    words = {
        "mean": "the mean of the map",
        "max": "the largest value of the map",
        "top-quantile": f"the mean of the values at or above the {rule.quantile:g} quantile of the map",
        "smoothed-max": f"the largest value of the map after a Gaussian of {rule.sigma:g} pixels, mirrored at the border",
        "multi-scale-max": f"the geometric mean of the largest values of the map after Gaussians of {rule.sigma:g}, "
        f"{2 * rule.sigma:g} and {4 * rule.sigma:g} pixels, mirrored at the border",
    }
    decision = file.decision
    if decision is None:
        return f"## Score\n\nThe score is {words[rule.name]}. The decision is not calibrated.\n"
    return (
        f"## Score and thresholds\n\nThe score is {words[rule.name]}, in double precision. An image is rejected above "
        f"{decision.threshold:.9g}; its regions are the places of the map above {decision.pixel_threshold:.9g}. "
        f"{decision.guarantee}\n"
    )
