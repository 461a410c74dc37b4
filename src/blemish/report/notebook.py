"""Cards for notebooks: a short piece of HTML, complete in itself, that a cell shows in place of a text.

Every text is escaped, images are data URIs of a bounded size, and colours are readable on light and dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence

from blemish.decision.records import Inspection
from blemish.report.numbers import number
from blemish.report.page import Tone, data_uri, encodable, environment, heat_gradient
from blemish.report.views import ImageViews, regions_in_words, two_panels

SIDE = 512
"""Longer side of an image in a card, in pixels, whatever the size of the inspected one."""

_DIGITS = 4


def detection_card(record: Inspection, found: ImageViews, pixel_threshold: float, level: float) -> str:
    """HTML of one decision: its words, the image, and its anomaly map over it with the regions outlined.

    Parameters
    ----------
    found: image and anomaly map; other views are not shown.
    pixel_threshold: middle of the colour scale, as in reports.
    level: map value above which a pixel belongs to a region.
    """
    badges: list[tuple[str, Tone]] = [
        ("✕ rejected", "bad") if record.is_anomalous else ("✓ accepted", "good"),
        (f"score {number(record.score, _DIGITS)}", "plain"),
        (f"threshold {number(record.threshold, _DIGITS)}", "plain"),
        (f"p-value {number(record.p_value)}", "plain"),
    ]
    badges += [
        (
            f"{one.name}: score {number(one.score, _DIGITS)}, threshold {number(one.threshold, _DIGITS)}",
            "bad" if one.is_above else "plain",
        )
        for one in record.classes
    ]
    panels: list[dict[str, str | int]] = []
    for panel in two_panels(found, record.regions, pixel_threshold, level, SIDE):
        uri, width, height = data_uri(panel, SIDE)
        panels.append({"label": panel.label, "uri": uri, "width": width, "height": height})
    return _card(
        title=record.path,
        badges=badges,
        lines=[line for line in (decision_in_words(record), regions_in_words(record.regions)) if line],
        panels=panels,
        middle=pixel_threshold,
    )


def decision_in_words(record: Inspection) -> str:
    """Sentence that says why an image is rejected or accepted.

    >>> found = Inspection(
    ...     path="a.png", size=(8, 8), score=0.25, threshold=0.5, p_value=0.4, is_anomalous=False, regions=(),
    ...     time="", seconds=0,
    ... )
    >>> print(decision_in_words(found))
    Accepted: its score is not above the threshold.
    """
    above = "above" if record.score > record.threshold else "not above"
    if record.other_kind is not None:
        return (
            f"Rejected: not of the kind of the good images ({record.other_kind}). "
            f"Its score is {above} the threshold."
        )
    if record.is_anomalous and record.classes:
        named = " and ".join(f"'{one.name}'" for one in record.classes if one.is_above)
        return f"Rejected: the score of class {named} is above its threshold."
    return f"{'Rejected' if record.is_anomalous else 'Accepted'}: its score is {above} the threshold."


def facts_card(title: str, pairs: Sequence[tuple[str, str]], lines: Sequence[str] = ()) -> str:
    """HTML of a title, sentences, and names with their values."""
    return _card(title=title, lines=lines, pairs=pairs)


def _card(
    *,
    title: str,
    badges: Sequence[tuple[str, Tone]] = (),
    lines: Sequence[str] = (),
    pairs: Sequence[tuple[str, str]] = (),
    panels: Sequence[dict[str, str | int]] = (),
    middle: float | None = None,
) -> str:
    template = environment().get_template("notebook.html")
    text = template.render(
        title=title,
        badges=badges,
        lines=lines,
        pairs=pairs,
        panels=panels,
        middle=middle,
        heat_gradient=heat_gradient(),
    )
    return encodable(text)
