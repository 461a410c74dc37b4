"""Partition of good images into training, validation and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from blemish.data.items import Item
from blemish.data.splits import plan_split, split_good
from blemish.decision import at_most, needed
from blemish.errors import CalibrationError, UsageError
from blemish.recipes import Recipe
from blemish.recipes.schema import ThresholdSettings

PARTS = ("train", "validation", "calibration")


def split_images(usable: dict[str, Item], recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Names of the images for training, validation and calibration.

    Raises
    ------
    CalibrationError
        When the images are too few for the false-reject rate.
    """
    rule = recipe.threshold
    least = images_to_hold_out(rule)
    _, validation, calibration = plan_split(len(usable), needed=least)
    if not rule.hold_out:
        calibration = 0
    if rule.rule == "conformal" and calibration < least:
        most = len(usable) // 2  # plan_split holds out no more than half
        raise CalibrationError(
            f"{len(usable)} good images can promise a false-reject rate of {100 * lowest_rate(most, rule):.3g} % at "
            f"best, with {most} of them held out to calibrate on; {100 * rule.false_reject_rate:.3g} % needs "
            f"{least} to calibrate on: give at least {2 * least} good images, or pass "
            f"--false-reject-rate {rounded_up(lowest_rate(most, rule))}"
        )
    split = split_good(
        list(usable),
        seed=recipe.training.seed,
        validation=validation,
        calibration=calibration,
        groups=_group_keys(usable),
    )
    return {"train": split.train, "validation": split.validation, "calibration": split.calibration}


def _group_keys(usable: dict[str, Item]) -> dict[str, tuple[str, bool]]:
    return {name: item.group_key for name, item in usable.items()}


def images_to_hold_out(rule: ThresholdSettings) -> int:
    """Number of calibration images that ``rule`` needs for its rate, those that it leaves out included."""
    count = least = needed(rule.false_reject_rate)
    while count - int(at_most(rule.trim) * count + 1e-9) < least:
        count += 1
    return count


def lowest_rate(count: int, rule: ThresholdSettings) -> float:
    """The lowest false-reject rate that ``count`` calibration images can promise."""
    return 1 / (count - int(at_most(rule.trim) * count + 1e-9) + 1)


def split_continued(
    source: Path, usable: dict[str, Item], known: dict[str, str], recipe: Recipe
) -> dict[str, tuple[str, ...]]:
    """:func:`split_images` where the images in ``known``, and with them their groups, have their part already.

    Raises
    ------
    UsageError
        When no image is new, or a part would have none.
    CalibrationError
        When the images are too few for the false-reject rate.
    """
    keys = _group_keys(usable)
    settled = {keys[name]: part for name, part in known.items()}
    joining = {name: settled[key] for name, key in keys.items() if key in settled}
    if all(name in known for name in usable):
        raise UsageError(f"{source}: holds no image that is new to the model; add new good ones")
    fixed = {**joining, **known}
    new = [name for name in usable if name not in fixed]
    parts = {part: [name for name in fixed if fixed[name] == part] for part in PARTS}
    rule = recipe.threshold
    least = images_to_hold_out(rule)
    if len(new) >= 3:
        _, validation, calibration = plan_split(len(new), needed=max(1, least - len(parts["calibration"])))
        calibration = calibration if rule.hold_out else 0
        drawn = split_good(
            new, seed=recipe.training.seed, validation=validation, calibration=calibration, groups=keys
        )
        for part in PARTS:
            parts[part] += getattr(drawn, part)
    else:
        parts["train"] += new
    count = len(parts["calibration"])
    if not parts["validation"] or not (count or not rule.hold_out):
        raise UsageError(
            f"{source}: {counted(len(new), 'new image')} cannot train, validate and calibrate; give at "
            "least 3, or a folder that holds the earlier ones too"
        )
    if rule.rule == "conformal" and count < least:
        raise CalibrationError(
            f"{source}: gives {counted(count, 'image')} to calibrate on that no training saw, which can promise "
            f"a false-reject rate of {100 * lowest_rate(count, rule):.3g} % at best; "
            f"{100 * rule.false_reject_rate:.3g} % needs {least}: add good images, give a folder that holds the "
            f"earlier ones too, or pass --false-reject-rate {rounded_up(lowest_rate(count, rule))}"
        )
    return {part: tuple(sorted(parts[part])) for part in PARTS}


def new_and_earlier(split: dict[str, tuple[str, ...]], known: dict[str, str]) -> str:
    """Numbers of new images and of those of earlier fits in each part, as a sentence for the card."""
    counts = []
    for part, names in split.items():
        old = sum(name in known for name in names)
        counts.append(f"{len(names) - old} new and {old} earlier for {part}")
    return f"Of these images, {', '.join(counts)}; an image keeps its part, known by the bytes of its file."


def parts_by_sha256(
    split: dict[str, tuple[str, ...]], sha256: dict[str, str], before: dict[str, str]
) -> dict[str, str]:
    """The part of each image by its SHA-256; of equal images in two parts, the part nearer to the training."""
    now = {sha256[name]: part for part in ("calibration", "validation", "train") for name in split[part]}
    return {**now, **before}


def with_copies_in_groups(
    usable: Mapping[str, Item], sha256: Mapping[str, str]
) -> tuple[dict[str, Item], int]:
    """The images with those of equal bytes in one group, and how many are copies of another one.

    The groups of copies become one, so that no part of the split sees an image that another one holds.
    """
    first: dict[str, str] = {}
    joined: dict[str, str] = {}  # group -> the group that it becomes

    def root(group: str) -> str:
        while group in joined:
            group = joined[group]
        return group

    groups = {name: item.group for name, item in usable.items()}
    copies = 0
    for name in usable:
        original = first.setdefault(sha256[name], name)
        if original == name:
            continue
        copies += 1
        own, other = (root(group) if (group := groups[one]) is not None else None for one in (name, original))
        together = other or own or f"copies of {original}"
        if own is not None and own != together:
            joined[own] = together
        groups[name] = groups[original] = together
    if not copies:
        return dict(usable), 0
    return {
        name: replace(item, group=None if (group := groups[name]) is None else root(group))
        for name, item in usable.items()
    }, copies


def rounded_up(rate: float) -> float:
    """``rate`` to three decimals, never less than it is.

    >>> rounded_up(1 / 13)
    0.077
    """
    return -(-rate * 1000 // 1) / 1000


def counted(count: int, one: str, many: str | None = None) -> str:
    """``count`` and a noun in its number.

    >>> counted(1, "image"), counted(2, "modality", "modalities")
    ('1 image', '2 modalities')
    """
    return f"{count} {one if count == 1 else many or one + 's'}"
