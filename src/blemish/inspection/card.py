"""Model card: a fitted detector in a page of Markdown, in a card for notebooks, and in one line."""

from __future__ import annotations

from blemish.decision.classes import class_threshold
from blemish.inspection.document import SHEET_FILE, ModelFile, SceneColumns
from blemish.report.numbers import counted
from blemish.storage.training_record import Training


def model_card(file: ModelFile, *, has_sheet: bool = False, sees_areas: bool = False) -> str:
    """The page.

    Parameters
    ----------
    has_sheet: whether the contact sheet of synthetic anomalies lies beside it.
    sees_areas: whether a part of the model that counts compares brightness and colour of areas as such.
    """
    recipe, training = file.recipe, file.training
    curve = "\n".join(
        f"| {look.step} | {look.training:.5f} | {look.validation:.5f} |" for look in training.history
    )
    return (
        f"# {recipe.title}\n\n"
        f"Recipe `{recipe.name}`, {recipe.paper}. Fitted by Blemish {file.blemish}.\n\n"
        f"{recipe.expect}\n\n"
        f"{_decision(file)}{'' if sees_areas else _blind(file)}\n\n"
        f"{_data(file)}\n\n"
        f"## Training\n\nBest of {training.steps} steps at step {training.best_step}, "
        f"{training.seconds:.0f} s on {training.machine_words}"
        + (f", in a budget of {training.budget:.0f} s" if training.budget else "")
        + ".\n\n"
        + "".join(
            f"Before that: {one.steps} steps on {one.images} images, weights `{one.weights_sha256[:12]}`.\n\n"
            for one in reversed(file.lineage)
        )
        + "".join(f"{note}\n\n" for note in training.notes)
        + _figures(training)
        + (
            f"![Good training patches, the same with synthetic anomalies, and the masks to be found]({SHEET_FILE})"
            "\n\nTrained to find synthetic anomalies: above good patches, below them the same ones with synthetic "
            "anomalies, at the bottom the masks to be found.\n\n"
            if has_sheet
            else ""
        )
        + f"| step | training loss | held-out loss |\n|---:|---:|---:|\n{curve}\n"
    )


def _figures(training: Training) -> str:
    """Table of the modalities beside the two baselines, for a model of scenes."""
    if not training.modalities:
        return ""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    rows = "".join(
        f"| {one.name} | {cell(one.similarity)} | {cell(one.from_others)} | {cell(one.linear)} | {cell(one.constant)} |\n"
        for one in training.modalities
    )
    return (
        "SSIM of each modality on held-out patches: of its reconstruction, of its prediction from the others, and of two "
        "baselines, linear regression on the pixels of the others and the mean of each patch.\n\n"
        "| modality | reconstruction | from the others | linear regression | constant |\n|---|---:|---:|---:|---:|\n"
        f"{rows}\n"
    )


def model_in_one_line(file: ModelFile) -> str:
    """Recipe, number of images or scenes, and threshold."""
    decision = file.decision
    threshold = "not calibrated" if decision is None else f"threshold {decision.threshold:.4g}"
    return f"{file.recipe.name!r}, {counted(file.fingerprint.count, file.subject[:-1])}, {threshold}"


def model_in_html(file: ModelFile) -> str:
    """Short card in HTML: recipe, images, threshold and guarantee; every text is escaped."""
    from blemish.report.notebook import facts_card

    recipe, data, decision = file.recipe, file.fingerprint, file.decision
    channels = f"{data.channels} channel{'s' * (data.channels != 1)}"
    parts = "" if file.subject == "scenes" else f"; {_split(file)}"
    pairs = [
        ("recipe", f"{recipe.name}, {recipe.paper}"),
        (file.subject, f"{data.count}, {channels}, {data.kind}{parts}"),
    ]
    if decision is None:
        return facts_card(recipe.title, [*pairs, ("threshold", "not calibrated")])
    calibrated = f"calibrated on {len(decision.calibration.scores)} {decision.calibration.unit.words}"
    pairs += [
        ("threshold", f"{decision.threshold:.6g}, {calibrated}"),
        ("guarantee", decision.guarantee),
    ]
    return facts_card(recipe.title, pairs)


def _decision(file: ModelFile) -> str:
    decision = file.decision
    if decision is None:
        return "## The decision\n\nNot calibrated."
    calibration = decision.calibration
    return (
        f"## The decision\n\n{decision.guarantee}\n\n"
        f"Calibrated on {len(calibration.scores)} {calibration.unit.words}. "
        f"Threshold of the image score ({file.recipe.score.name} of the anomaly map): {decision.threshold:.6g}. "
        f"Pixel threshold of regions on the anomaly map: {decision.pixel_threshold:.6g}."
        f"{_classes(file, decision.threshold)}{_other_kinds(file)}"
    )


def _classes(file: ModelFile, threshold: float) -> str:
    """Threshold of each class of regions, where there are such."""
    area = file.preprocessing.area
    if area is None or not area.classes:
        return ""
    rows = "".join(
        f"\n| {one.name} | {one.scale:.6g} | {class_threshold(threshold, one.scale):.6g} |"
        for one in area.classes
    )
    return (
        "\n\nThe image's score is the largest of the scores of its classes of regions, each in units of the usual score "
        "of the class, that of 9 in 10 of the images held out for early stopping. The promise is of the whole image."
        f"\n\n| class | usual score | threshold |\n|---|---:|---:|{rows}"
    )


def _blind(file: ModelFile) -> str:
    """What a model with a memory bank cannot see where no part of it looks at brightness and colour as such."""
    recipe = file.recipe
    if recipe.memory is None and not any(member.memory for member in recipe.members):
        return ""
    network = ", but for what its network has learned of it" if recipe.encoder is not None else ""
    takes_option = (
        recipe.combination == "soft-maximum" and file.preprocessing.channels > 1 and not recipe.colour
    )
    remedy = (
        "`--set colour=true` at the fit" if takes_option else "the extractor `colour` in `memory.features`"
    )
    return (
        f"\n\nBlind to: an even change of brightness or colour of a whole area, which leaves its structure as it is{network}. "
        f"A memory bank of colour sees it: {remedy}."
    )


def _other_kinds(file: ModelFile) -> str:
    looks = file.fingerprint.appearance
    if file.recipe.image.other_kinds == "accept" or not looks:
        return ""
    named = ", ".join(f"{name} {own.low:.3g} to {own.high:.3g}" for name, own in looks.items())
    return (
        "\n\nApart from the promise, images of another kind are rejected: more than the range of the good images "
        f"beyond it ({named})"
        + (", or without an object of their length" if file.preprocessing.objects else "")
        + ". `--set image.other_kinds=accept` at the fit judges every image by its map alone."
    )


def _data(file: ModelFile) -> str:
    data = file.fingerprint
    channels = f"{data.channels} channel{'s' if data.channels != 1 else ''}"
    return (
        f"## The images\n\n{data.count} {file.subject}, {channels}, {data.kind}, "
        f"widths {data.width.min} to {data.width.max}, heights {data.height.min} to {data.height.max} pixels; "
        f"SHA-256 {data.sha256}.{_modalities(file)}\n\nSplit: {_split(file)}"
    )


def _modalities(file: ModelFile) -> str:
    rows = "".join(
        f"\n| {one.name} | {one.channels} | {'yes' if one.is_grey else 'no'} |"
        for one in file.preprocessing.modalities
    )
    return f"\n\n| modality | channels | grey for SSIM |\n|---|---:|---|{rows}" if rows else ""


def _split(file: ModelFile) -> str:
    """Number of images in each part, or the columns of each scene that each part takes."""
    rows = [
        f"| {columns[0].scene} | " + " | ".join(f"{one.start} to {one.stop - 1}" for one in columns) + " |"
        for places in zip(*file.split.values(), strict=False)
        if (columns := [one for one in places if isinstance(one, SceneColumns)])
    ]
    if not rows:
        return ", ".join(f"{len(names)} for {part}" for part, names in file.split.items()) + "."
    return (
        "the columns of each scene, from left to right.\n\n"
        f"| scene | {' | '.join(file.split)} |\n|---|{'---|' * len(file.split)}\n" + "\n".join(rows) + "\n"
    )
