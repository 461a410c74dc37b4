"""Contrast of the page's colours, in both themes, by the formula of WCAG 2.2 (success criteria 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re

import pytest

from blemish.serve.page_files import PAGE

TEXT, SIGN = 4.5, 3.0
"""Least ratios of text, and of signs and borders of controls."""
PAIRS = (
    *((text, ground, TEXT) for text in ("ink", "soft") for ground in ("paper", "card", "faint")),
    ("ink", "accent-wash", TEXT),
    ("accent", "card", TEXT),
    ("accent", "paper", TEXT),
    ("accent-ink", "accent", TEXT),
    ("soft", "image-ground", TEXT),
    *((f"{kind}-ink", kind, TEXT) for kind in ("good", "bad", "other")),
    *((f"{kind}-text", f"{kind}-wash", TEXT) for kind in ("good", "bad", "other", "warn")),
    *((f"{kind}-text", ground, TEXT) for kind in ("good", "bad", "other") for ground in ("card", "paper")),
    *((line, "card", SIGN) for line in ("edge", "focus", "chart-good", "chart-bad", "chart-mean", "chart-limit")),
    *(("focus", ground, SIGN) for ground in ("paper", "faint")),
    *((kind, "card", SIGN) for kind in ("good", "bad", "other")),
    ("edge", "paper", SIGN),
)  # fmt: skip
HEX = re.compile(r"--([a-z-]+):\s*(#[0-9a-f]{6})\b")


def themes() -> dict[str, dict[str, str]]:
    text = (PAGE / "colours.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root(?:\[data-theme=\"dark\"\])? \{(.*?)\n\}", text, re.S)
    return {"light": dict(HEX.findall(light)), "dark": dict(HEX.findall(dark))}


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_formula_has_its_known_values() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)
    assert contrast("#ffffff", "#ffffff") == pytest.approx(1.0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_signs_have_the_contrast_of_wcag_aa(theme: str) -> None:
    colours = themes()[theme]
    found = {(one, other): round(contrast(colours[one], colours[other]), 2) for one, other, _ in PAIRS}
    assert {
        pair: ratio
        for pair, ratio in found.items()
        for one, other, least in PAIRS
        if pair == (one, other) and ratio < least
    } == {}


def test_both_themes_have_the_same_colours() -> None:
    found = themes()
    assert set(found["light"]) == set(found["dark"])
    assert len(found["light"]) > 25


def test_style_sheets_take_colours_from_there() -> None:
    """But for those over images, whose ground is no theme's."""
    text = (PAGE / "page.css").read_text("utf-8")
    assert re.findall(r"#[0-9a-f]{3,6}\b", text) == []
    used = set(re.findall(r"var\(--([a-z-]+)", text + (PAGE / "views.css").read_text("utf-8")))
    known = set(themes()["light"]) | {"shadow", "sign-ground", "letters", "pad", "px"}
    assert used - known == set()
