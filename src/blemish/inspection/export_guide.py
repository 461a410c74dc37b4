"""Guide to an exported folder, for programs that use its graphs without Blemish."""

from __future__ import annotations

from blemish.inspection.document import ModelFile
from blemish.inspection.export_guide_members import filters_section, memory_section
from blemish.inspection.export_settings import FULL_SCALE, SETTINGS_FILE, export_settings
from blemish.preprocessing.tiling import smallest_side
from blemish.preprocessing.transform import Preprocessing
from blemish.runtime.model import PLANES, SHOWN, TILES, ExportedModel
from blemish.runtime.record import RUNTIME_WORDS, Export, ExportedFilters, ExportedMemory, ExportedNetwork

GUIDE_FILE = "README.md"
"""In the folder of an exported model."""
EXAMPLE = "examples/cpp"
"""In the source of Blemish: the same steps in C++."""


def export_guide(file: ModelFile, model: ExportedModel) -> str:
    """The guide in Markdown: input, preprocessing, graphs, score and thresholds."""
    record = model.export
    parts = [
        f"# {file.recipe.title}, exported for {RUNTIME_WORDS[record.runtime]}\n",
        "With Blemish this folder is a model like any other: `blemish inspect FOLDER IMAGES --out FOUND`, without "
        "torch. This page is for programs that use the graphs themselves. It has the steps from the pixels of an image "
        f"to the decision; the figures of preprocessing, tiles, score and threshold are in `{SETTINGS_FILE}` as well, one level "
        f"of JSON. `{EXAMPLE}` in the source of Blemish is a program in C++ that takes these steps for models of one "
        "network.\n",
        _agreement(record),
        "OpenVINO lowers the precision on some processors unless `INFERENCE_PRECISION_HINT` is `f32`, and then the score is "
        "another one.\n"
        if record.runtime == "openvino"
        else "",
        _conventions(),
        _preprocessing(file),
    ]
    for number, member in enumerate(record.members):
        if isinstance(member, ExportedNetwork):
            parts.append(_network(member))
        elif isinstance(member, ExportedMemory):
            parts.append(memory_section(member, f"members.{number}."))
        else:
            assert isinstance(member, ExportedFilters)
            parts.append(filters_section(f"members.{number}."))
    parts += [_combination(record), _decision(file), _other_kinds(file, record)]
    return "\n".join(part for part in parts if part)


def _agreement(record: Export) -> str:
    if record.parity is None:
        return "The decision was calibrated on this model itself.\n"
    source = "generated images" if record.parity.generated else "images of the calibration"
    compared = (
        f"Compared with the model in torch on {record.parity.images} {source}: scores differ by {record.parity.score:.1e} "
        f"at most, relative, and maps by {record.parity.map:.1e} of their largest value"
    )
    if record.cost is None:
        return f"{compared}.\n"
    return (
        f"{compared}, before the precision was lowered. Inputs and outputs are 32-bit floats all the same, and the decision "
        f"was calibrated on the graphs as they are. The cost of {record.cost.in_words(record.precision)}\n"
    )


def _conventions() -> str:
    return (
        "## Conventions\n\n"
        "Arrays are 32-bit floats, rows before columns, row by row in memory (NCHW). ⌊ ⌋ rounds down. At a border, "
        "*mirrored* is without the edge pixel (c b | a b c | b a), *mirrored with the edge* repeats it "
        "(b a | a b c | c b); where the border is wider than the image, it is mirrored on and on.\n\n"
        "*Gaussian* of σ: weights w(x) = exp(−x² / 2σ²) for whole x from −r to r, divided by their sum, along the rows "
        "and along the columns, mirrored with the edge; r = ⌊4σ + ½⌋ unless another one is given.\n\n"
        "*Resampling* of an axis from a to b pixels: with s = a / b and t = max(1, s), new pixel i is the mean of the "
        "old pixels j weighted by max(0, 1 − |j + ½ − (i + ½) s| / t). Columns and rows one after the other. It is "
        "bilinear, and smooths where it shrinks, as Pillow's `BILINEAR` does and OpenCV's `INTER_LINEAR` does not.\n"
    )


_ORDERS = {
    1: "",
    2: ", grey and alpha",
    3: ", in the order red, green, blue",
    4: ", in the order red, green, blue, alpha",
}


def _preprocessing(file: ModelFile) -> str:
    own = file.preprocessing
    if own.modalities:
        names = ", ".join(f"{one.name} ({one.channels})" for one in own.modalities)
        return (
            "## Preprocessing\n\n"
            f"The model is for scenes of {names}, with their channels in this order, in [0, 1], absent values NaN, each "
            "modality resampled to the pixels of the first. A decision on a scene is one on its squares: "
            "`blemish.inspection.scenes` has it, and this page goes as far as the map.\n"
        )
    steps = [
        f"Take an image of {own.kind} with {own.channels} channel{'s' * (own.channels != 1)}"
        + _ORDERS.get(own.channels, ", in the order of the file")
        + ", upright as its EXIF says."
        + (_conversion(own) if own.convert else " Others are refused, not converted.")
    ]
    full = FULL_SCALE[own.kind]
    if own.range is not None:
        steps.append(
            f"Refuse it if a value is above {own.range}. Multiply each value by {full} / {own.range} in 32-bit floats, "
            f"{full} at most, and cut off what is behind the point."
        )
    steps.append(
        f"Divide each value by {full}, so that it is a 32-bit float in [0, 1]. Mean and deviation are not taken out."
        if full != 1
        else "Values are floats in [0, 1] as they are."
    )
    if own.crop is not None:
        pose = "turn it into one pose" if own.crop.turned else "cut it out"
        each = (
            f"Find the object and {pose}, in a crop of"
            if own.crop.count == 1
            else f"Find the objects, {own.crop.count} at most, take each and {pose}, one under the other in crops of"
        )
        steps.append(
            f"{each} {own.crop.height} × {own.crop.width} pixels (height × width). These steps are too long for this page: "
            "`find_objects` in `blemish.preprocessing.pose` and `make_cells` in `blemish.preprocessing.cells` have them. "
            "What lies outside the image or belongs to another object does not count: the map there is set to its least "
            "value before the score."
        )
    elif own.scale is not None and own.scale != 1:
        steps.append(
            f"Resample H × W pixels to round({own.scale:.9g} · H) × round({own.scale:.9g} · W), a half to the even "
            "number and 1 at least."
        )
    elif own.size is not None:
        steps.append(
            f"With f = {own.size} / min(H, W), resample H × W pixels to max({own.size}, round(f · H)) × "
            f"max({own.size}, round(f · W)), a half to the even number."
        )
    else:
        steps.append("The image keeps its size.")
    if own.area is not None:
        steps.append(
            "Only the area of interest is judged, `preprocessing.area` in `model.json`: lengths of runs of its pixels "
            "row by row, those outside first. Resampled as the image, it is where it exceeds ½. Elsewhere the map of the "
            "image is set to its least value, 0 at most, before its score is taken."
        )
        if own.area.classes:
            scales = ", ".join(f"{one.name} {one.scale:.9g}" for one in own.area.classes)
            steps.append(
                "The area has classes of regions. The score of each is that of the map with its least value everywhere else, "
                f"divided by the usual score of the class ({scales}); the score of the image is the largest of these."
            )
    listed = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))
    return f"## Preprocessing\n\n{listed}\n"


def _conversion(own: Preprocessing) -> str:
    how = (
        "red, green and blue become 0.299 R + 0.587 G + 0.114 B, rounded"
        if own.channels == 1
        else "grey is repeated three times"
    )
    return f" Other images are converted: alpha is dropped, and {how}."


def _network(member: ExportedNetwork) -> str:
    count, channels, side = len(member.modalities), member.channels, member.patch
    planes = [
        (1, "the anomaly map, at least 0"),
        (channels, "the reconstruction, which only people look at"),
        (count, "the residual of each modality, reconstructed from all"),
        (
            count,
            "the residual of each modality, reconstructed from the others"
            + ("" if member.takes_absent else ", which this model has not: NaN"),
        ),
        (
            count if member.takes_absent else 0,
            f"the residual of each modality of `{TILES}` against the reconstruction from `{SHOWN}`",
        ),
    ]
    lines, first = [], 0
    for number, words in planes:
        if number:
            last = first + number - 1
            lines.append(f"- {f'plane {first}' if number == 1 else f'planes {first} to {last}'}: {words}")
            first += number
    listed = "\n".join(lines)
    shown = (
        f"\n\nInput `{SHOWN}`, of the same shape: the same values, with channels that the network is not to see set to NaN."
        if count and member.takes_absent
        else ""
    )
    absent = " Absent values are NaN." if member.takes_absent else " There must be no NaN."
    return (
        f"## `{member.graph}`: {member.title}\n\n"
        f"Input `{TILES}`: float32 (n, {channels}, {side}, {side}), n tiles of {channels} "
        f"channel{'s' * (channels != 1)}, {side} rows and {side} columns, in [0, 1]. n is 1 to 4096; the result "
        f"of a tile does not depend on the others.{absent}{shown}\n\n"
        f"Output `{PLANES}`: float32 (n, {first}, {side}, {side}), pixel for pixel of the tiles:\n\n{listed}\n\n"
        f"1. An image of fewer than {side} rows or columns is mirrored up to {side}, ⌊missing / 2⌋ before it and the "
        f"others after it; it needs {smallest_side(side)} at least.\n"
        f"2. Tiles start at 0, {member.stride}, {2 * member.stride} … along each axis of L pixels, as long as the start is "
        f"below L − {side}, and the last one at L − {side}.\n"
        f"3. Pixel i of a tile has the weight sin²(π (i + ½) / {side}) along each axis, the product of both. The map is the sum of "
        "weight times value over all tiles of a pixel, divided by the sum of their weights, in double precision.\n"
        "4. What was mirrored is cut off.\n"
    )


def _combination(record: Export) -> str:
    if record.combination is None:
        return ""
    # Under a soft maximum the scales are those of the maps as they are.
    networks = [
        f"`normalisers.{number}.mean` and `normalisers.{number}.spread`"
        for number, member in enumerate(record.members)
        if isinstance(member, ExportedNetwork) and record.combination == "weighted-mean"
    ]
    text = (
        f"## Combination\n\nThe members are {', '.join(record.names)}, number 0 to {len(record.names) - 1}, each with a map "
        "m of the size of the preprocessed image. `weights` and `scales` in `model.safetensors` have a weight w and a "
        "scale s of each; one of weight 0 does not count.\n\n"
    )
    if networks:
        text += (
            f"First the map of a network is read in spreads of good images: with the arrays {', '.join(networks)}, "
            "d = spread + 2 · (mean of spread) + 10⁻⁶ and m = max(0, (m − mean) / d), both resampled to the size of the "
            "map.\n\n"
        )
    if record.combination == "soft-maximum":
        return text + (
            "The soft maximum, with the powers p in `powers`, is\n\n"
            "    F(m₀, m₁, …) = log₂(1 + Σ w · exp(min(30, p · ln((max(m, 0) / s + 0.02) / 1.02))))\n\n"
            "It is taken twice: of each pixel of the maps, which gives a map M, and of the scores of the maps m₀, m₁ …, "
            "each by the rule below, which gives a number S. The map of the image is M · S / (score of M), or M where "
            "that score is 0. Where all of the image is judged, its score is S.\n"
        )
    return text + (
        "The map of the image is Σ w · log₂(1 + m / s) over the members with arrays of `normalisers`, and Σ w · m / s over "
        "the others, added.\n"
    )


def _decision(file: ModelFile) -> str:
    rule = file.recipe.score
    words = {
        "mean": "the mean of the map",
        "max": "the largest value of the map",
        "top-quantile": f"the mean of the values v ≥ q of the map, where q is number ⌈{rule.quantile:g} · (n − 1)⌉ of its n "
        "values by rising size, from 0",
        "smoothed-max": f"the largest value of the map after a Gaussian of {rule.sigma:g} pixels",
        "multi-scale-max": f"the cube root of the product of the largest values of the map after Gaussians of "
        f"{rule.sigma:g}, {2 * rule.sigma:g} and {4 * rule.sigma:g} pixels, each 0 at least",
    }
    decision = file.decision
    score = (
        f"The score is {words[rule.name]}, in double precision. The map is that of the preprocessed image, before it is "
        "brought to the size of the file."
    )
    if decision is None:
        return f"## Score\n\n{score} The decision is not calibrated.\n"
    return (
        f"## Score and thresholds\n\n{score}\n\n"
        f"An image is rejected if its score is above **{decision.threshold:.17g}** (`threshold`). {decision.guarantee}\n\n"
        f"Regions are the places of the map above {decision.pixel_threshold:.17g} (`pixel_threshold`), with the map resampled "
        "to the size of the file; those of a rejected image are at least the places above nine tenths of its largest "
        "value, and an accepted one has none.\n"
    )


_FIGURES = {
    "brightness": "the mean of grey",
    "contrast": "the standard deviation of grey",
    "sharpness": "the mean absolute difference of neighbours in a row of grey",
    "colour": "the mean over the pixels of the largest minus the smallest of red, green and blue",
    "width": "columns of the file",
    "height": "rows of the file",
}


def _other_kinds(file: ModelFile, record: Export) -> str:
    settings = export_settings(file, record)
    named = [name for name in _FIGURES if f"least_{name}" in settings]
    if file.subject == "scenes" or not named:
        return ""
    rows = "\n".join(
        f"| {name} | {_FIGURES[name]} | {settings[f'least_{name}']:.9g} | {settings[f'most_{name}']:.9g} |"
        for name in named
    )
    posed = (
        " Beside these, an image is rejected in which no object is found, or more or of another length than in good images."
        if file.preprocessing.objects is not None
        else ""
    )
    return (
        "## Images of another kind\n\n"
        "Whatever its score, an image is rejected that is dark, blurred or of another size, so that the map says nothing: "
        "if one of these figures lies outside its limits. They are taken of the image as it is in its file, values "
        "divided by the largest of their type, of every ⌈H / 256⌉-th row from the first; grey is the mean of the "
        f"channels without alpha.{posed}\n\n| figure | is | least | most |\n| --- | --- | --- | --- |\n{rows}\n"
    )
