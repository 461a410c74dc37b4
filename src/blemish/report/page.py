"""Offline HTML page built from sections: figures, prose, tables, charts and galleries.

A page is one file with its styles, script and images; its content security policy forbids the browser to load
anything else. Every text is escaped: a file name may contain markup.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from blemish.report.charts import CurveChart, Histogram
from blemish.report.colours import HEAT, size_within
from blemish.report.numbers import aligned, number
from blemish.storage.atomic import write_text

Tone: TypeAlias = Literal["plain", "good", "bad"]


@dataclass(frozen=True)
class Figures:
    """Headline figures: (label, value, note) tiles; numbers are written with three significant digits."""

    items: Sequence[tuple[str, str | float, str]]


@dataclass(frozen=True)
class Prose:
    """Plain text; a blank line starts a new paragraph."""

    text: str
    title: str = ""


@dataclass(frozen=True)
class SettingsSection:
    """Names and values of the settings in use."""

    title: str
    values: Mapping[str, str | float | None]


@dataclass(frozen=True)
class TableSection:
    """Table of rows. Numbers are right-aligned with ``digits`` significant digits, ``None`` is a dash.

    A click on the head of a column sorts the table; long tables scroll inside the page and can be filtered.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    note: str = ""
    digits: int = 4


@dataclass(frozen=True)
class FigurePanel:
    """Image in a row: uint8 (H, W, 3) or (H, W).

    A ``photo`` is stored as JPEG and reduced with a smooth filter; a ``map`` is stored without loss as PNG.
    """

    label: str
    image: npt.NDArray[np.uint8]
    kind: Literal["photo", "map"] = "photo"


@dataclass(frozen=True)
class ImageRow:
    """Row of one inspected image: its name, a caption, badges (text, tone) and its panels side by side."""

    name: str
    caption: str = ""
    badges: Sequence[tuple[str, Tone]] = ()
    panels: Sequence[FigurePanel] = ()


@dataclass(frozen=True)
class Scale:
    """Legend of the heat maps: the pixel threshold at mid-scale and the name of the measure."""

    pixel_threshold: float
    measure: str = ""


@dataclass(frozen=True)
class Gallery:
    """Gallery of images; ``rows`` may be a generator, so that only one image at a time is in memory.

    flicker: any two panels of a row can be shown large, side by side or in turn in one place; panels of one size.
    """

    title: str
    rows: Iterable[ImageRow]
    note: str = ""
    scale: Scale | None = None
    max_side: int = 320
    flicker: bool = False


Section: TypeAlias = Figures | Prose | SettingsSection | TableSection | Gallery | Histogram | CurveChart


@dataclass(frozen=True)
class _View:
    """Section in the form that the template reads."""

    kind: str
    anchor: str
    title: str
    data: Any = field(repr=False)


def data_uri(panel: FigurePanel, max_side: int) -> tuple[str, int, int]:
    """Encode a panel as a data URI with its width and height; reduced if its longer side exceeds ``max_side``."""
    image = Image.fromarray(panel.image)
    if max(image.size) > max_side:
        height, width = size_within((image.height, image.width), max_side)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    if panel.kind == "photo":
        # No chroma subsampling: thin coloured lines and small coloured defects keep their edges.
        image.save(stream, "JPEG", quality=88, subsampling=0, optimize=True)
    else:
        _with_palette(image).save(stream, "PNG", optimize=True)
    mime = "jpeg" if panel.kind == "photo" else "png"
    text = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"data:image/{mime};base64,{text}", image.width, image.height


def _with_palette(image: Image.Image) -> Image.Image:
    """Convert an image to palette indices if it has at most 256 colours: a third of the bytes."""
    if image.mode != "RGB":
        return image
    rgb = np.asarray(image).astype(np.uint32)
    packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    colours, indices = np.unique(packed, return_inverse=True)
    if colours.size > 256:
        return image
    indexed = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8)).convert("P")
    indexed.putpalette([int(c >> shift & 255) for c in colours for shift in (16, 8, 0)])
    return indexed


def _gallery_rows(gallery: Gallery) -> Iterable[dict[str, Any]]:
    for row in gallery.rows:
        panels = []
        for panel in row.panels:
            uri, width, height = data_uri(panel, gallery.max_side)
            panels.append({"label": panel.label, "uri": uri, "width": width, "height": height})
        yield {"name": row.name, "caption": row.caption, "badges": row.badges, "panels": panels}


def _cell(value: str | float | None, digits: int) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else number(value, digits)


def _views(sections: Sequence[Section]) -> list[_View]:
    views: list[_View] = []
    # Consecutive curves are placed side by side under one heading.
    for is_curve, run in groupby(sections, key=lambda s: isinstance(s, CurveChart)):
        members = list(run)
        if is_curve:
            title = ", ".join(m.title for m in members if isinstance(m, CurveChart))
            drawings = [(m, m.drawing()) for m in members if isinstance(m, CurveChart)]
            views.append(_View("curves", f"s{len(views)}", title, drawings))
            continue
        for section in members:
            views.append(_view(section, f"s{len(views)}"))
    return views


def _view(section: Section, anchor: str) -> _View:
    match section:
        case Figures():
            tiles = [(label, _cell(value, 3), note) for label, value, note in section.items]
            return _View("figures", anchor, "", tiles)
        case Prose():
            return _View("prose", anchor, section.title, section.text.split("\n\n"))
        case SettingsSection():
            pairs = [(name, _cell(value, 6)) for name, value in section.values.items()]
            return _View("settings", anchor, section.title, pairs)
        case TableSection():
            return _View("table", anchor, section.title, _table(section))
        case Gallery():
            gallery = {
                "rows": _gallery_rows(section),
                "note": section.note,
                "scale": section.scale,
                "flicker": section.flicker,
            }
            return _View("gallery", anchor, section.title, gallery)
        case Histogram():
            return _View("histogram", anchor, section.title, (section, section.drawing()))
        case CurveChart():
            return _View("curves", anchor, section.title, [(section, section.drawing())])


def _table(table: TableSection) -> dict[str, Any]:
    columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
    texts, numeric = [], []
    for column in columns:
        numbers = [value for value in column if isinstance(value, (int, float))]
        numeric.append(bool(numbers) and not any(isinstance(value, str) for value in column))
        written = iter(aligned(numbers, table.digits))
        texts.append(["–" if v is None else v if isinstance(v, str) else next(written) for v in column])
    rows = list(zip(*texts, strict=True))
    return {"columns": table.columns, "numeric": numeric, "rows": rows, "note": table.note}


def heat_gradient() -> str:
    """Format the heat scale as the stops of a CSS gradient."""
    last = len(HEAT) - 1
    stops = [f"#{bytes(HEAT[i]).hex()} {100 * i / last:.1f}%" for i in range(0, last + 1, 2)]
    return ", ".join(stops)


def environment() -> Environment:
    """Templates of this room; every text that they are given is escaped."""
    environment = Environment(
        loader=PackageLoader("blemish.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment


def render_page(*, title: str, subtitle: str = "", sections: Sequence[Section], footer: str = "") -> str:
    """Render the page as text; see :func:`write_page`.

    >>> page = render_page(title="Found", sections=[TableSection("Files", ["name", "score"], [["<a>.png", 0.25]])])
    >>> "&lt;a&gt;.png" in page, "0.25" in page, "https:" in page
    (True, True, False)
    """
    template = environment().get_template("page.html")
    text = template.render(
        title=title, subtitle=subtitle, views=_views(sections), footer=footer, heat_gradient=heat_gradient()
    )
    return encodable(text)


def encodable(text: str) -> str:
    """``text`` that UTF-8 can hold: a file name that is not valid Unicode reaches Python with lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def write_page(
    path: Path, *, title: str, subtitle: str = "", sections: Sequence[Section], footer: str = ""
) -> None:
    """Write an offline HTML page of the sections, whole or not at all.

    Raises ``FileError`` if the page cannot be written.
    """
    write_text(path, render_page(title=title, subtitle=subtitle, sections=sections, footer=footer))
