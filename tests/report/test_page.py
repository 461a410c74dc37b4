from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.errors import FileError
from blemish.report.charts import CurveChart, Histogram, Line, Series
from blemish.report.colours import HEAT, heat
from blemish.report.page import (
    FigurePanel,
    Figures,
    Gallery,
    ImageRow,
    Prose,
    Scale,
    SettingsSection,
    TableSection,
    data_uri,
    render_page,
    write_page,
)

HOSTILE = """<script>alert("1")</script>&'"><img src=x onerror=y>"""


def decoded(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def everything(text: str) -> str:
    """Render a page with every kind of section, each with ``text`` wherever text is allowed."""
    panel = FigurePanel(text, np.zeros((4, 5), dtype=np.uint8))
    return render_page(
        title=text,
        subtitle=text,
        footer=text,
        sections=[
            Figures([(text, text, text), ("n", 3, "")]),
            Prose(text, text),
            SettingsSection(text, {text: text}),
            TableSection(text, [text, "n"], [[text, 1.0], [None, None]], text),
            Gallery(text, [ImageRow(text, text, [(text, "bad")], [panel])], text, Scale(0.1, text)),
            Histogram(text, [Series(text, [1.0, 2.0])], [(1.5, text)], text),
            CurveChart(text, text, text, [Line(text, [(0, 0), (1, 1)])], True),
            CurveChart(text, text, text, [Line(text, [(0, 0), (1, 1)])]),
        ],
    )


def test_a_page_is_complete_and_offline(parse) -> None:
    page = parse(everything("words"))
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "poster", "srcset", "xlink:href", "data"):
            assert (attributes.get(name) or "#").startswith(("data:image/", "#")), attributes
    assert not page.all("link")
    source = everything("words")
    assert "http://" not in source
    assert "https://" not in source
    assert "url(" not in source
    assert "@import" not in source
    policies = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policies
    assert policies[0] is not None
    assert "default-src 'none'" in policies[0]


def test_hostile_text_is_shown_as_text_everywhere(parse) -> None:
    plain, hostile = parse(everything("words")), parse(everything(HOSTILE))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert hostile.text.count(HOSTILE) >= 20
    assert not any(name.startswith("on") for _, attributes in hostile.elements for name in attributes)


def test_every_image_has_a_description_and_every_link_a_target(parse) -> None:
    page = parse(everything("words"))
    # The dialog gets its image and description when it is opened.
    described = [image["alt"] for image in page.all("img") if "src" in image]
    assert described == ["words: words"]
    anchors = {attributes.get("id") for attributes in page.all("section")}
    links = [attributes["href"] for attributes in page.all("a")]
    assert len(links) >= 5
    assert all(link is not None and link[1:] in anchors for link in links)


def test_names_that_are_not_valid_unicode_are_written(tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", title="caf\udce9.png", sections=[])
    assert "caf?.png" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_a_table_aligns_numbers_and_marks_missing_values(parse) -> None:
    rows = [["a", 0.5, 1, None, "x"], ["b", 0.12345678, 20, None, 1.5], ["c", None, 300, None, None]]
    page = parse(render_page(title="t", sections=[TableSection("T", ["n", "f", "i", "none", "mixed"], rows)]))
    numeric = [attributes.get("class") == "n" for attributes in page.all("th")]
    assert numeric == [False, True, True, False, False]
    assert "a 0.5000 1 – x" in page.text
    assert "b 0.1235 20 – 1.5" in page.text
    assert "c – 300 – –" in page.text


def test_long_tables_stay_small_and_can_be_filtered(parse) -> None:
    rows = [[f"line/part_{i:04d}.png", "accepted", i / 7, 0.5, i / 2000, 0, None, 0.03] for i in range(2000)]
    text = render_page(title="t", sections=[TableSection("T", list("abcdefgh"), rows)])
    page = parse(text)
    assert len(page.all("tr")) == 2001
    assert len(text) < 450_000
    assert len(page.all("input")) == 1
    short = render_page(title="t", sections=[TableSection("T", list("abcdefgh"), rows[:5])])
    assert parse(short).all("input") == []


@pytest.mark.parametrize("shape", [(5, 7), (700, 33, 3), (33, 701), (1, 1, 3)])
def test_images_are_reduced_to_the_largest_side(shape: tuple[int, ...]) -> None:
    uri, width, height = data_uri(FigurePanel("p", np.full(shape, 130, dtype=np.uint8)), 320)
    image = decoded(uri)
    assert image.shape == (height, width, 3)
    assert max(width, height) == min(320, max(shape[:2]))
    assert np.abs(image.astype(int) - 130).max() <= 1


def test_maps_are_stored_without_loss(rng: np.random.Generator) -> None:
    image = heat(rng.uniform(0, 0.2, (60, 90)), 0.1)
    uri, *_ = data_uri(FigurePanel("map", image, "map"), 320)
    assert uri.startswith("data:image/png")
    assert (decoded(uri) == image).all()
    many = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    assert (decoded(data_uri(FigurePanel("map", many, "map"), 320)[0]) == many).all()


def test_the_legend_shows_the_scale_of_the_heat_maps() -> None:
    text = render_page(title="t", sections=[Gallery("G", [], "", Scale(0.1234, "1 − SSIM"))])
    assert "0.123" in text
    assert "≥ 0.247" in text
    stops = re.findall(r"#([0-9a-f]{6}) ([\d.]+)%", text)
    for colour, at in stops:
        nearest = HEAT[round(float(at) / 100 * 254)].astype(int)
        assert np.abs(np.array(list(bytes.fromhex(colour))) - nearest).max() == 0
    assert len(stops) > 50


def test_a_gallery_reads_one_row_at_a_time() -> None:
    alive: list[int] = []

    def rows():
        for i in range(3):
            alive.append(i)
            yield ImageRow(f"row {i}", panels=[FigurePanel("p", np.zeros((3, 3), dtype=np.uint8))])

    section = Gallery("G", rows())
    assert alive == []
    text = render_page(title="t", sections=[section])
    assert [text.count(f"<h3>row {i}</h3>") for i in range(3)] == [1, 1, 1]


def test_adjacent_curves_share_a_section_and_others_do_not(parse) -> None:
    curve = CurveChart("ROC", "x", "y", [Line("a", [(0, 0), (1, 1)])])
    other = CurveChart("PR", "x", "y", [Line("a", [(0, 1), (1, 0)])])
    page = parse(render_page(title="t", sections=[curve, other, Prose("p"), curve]))
    assert [attributes["class"] for attributes in page.all("section")] == ["curves", "prose", "curves"]
    assert len(page.all("polyline")) == 3


def test_a_page_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(FileError, match="taken"):
        write_page(tmp_path / "taken" / "page.html", title="t", sections=[])


def test_a_failing_image_leaves_the_old_page_unchanged(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")

    def rows():
        yield ImageRow("a")
        raise ValueError("no image")

    with pytest.raises(ValueError, match="no image"):
        write_page(target, title="t", sections=[Gallery("G", rows())])
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_any_two_panels_of_a_row_can_be_chosen_to_flicker() -> None:
    panels = [
        FigurePanel(label, np.full((4, 4), value, np.uint8)) for label, value in (("one", 0), ("two", 255))
    ]
    gallery = Gallery(
        "Details", [ImageRow("a.png", panels=panels), ImageRow("b.png", panels=panels[:1])], flicker=True
    )
    page = render_page(title="t", sections=[gallery])
    assert page.count('<div class="flicker" hidden>') == 1  # a single panel has nothing to be compared with
    assert page.count("<option selected>one</option>") == page.count("<option selected>two</option>") == 1
    assert "Flicker</button>" in page
    plain = render_page(title="t", sections=[Gallery("Details", [ImageRow("a.png", panels=panels)])])
    assert "Flicker</button>" not in plain
    hostile = [FigurePanel(HOSTILE, panel.image) for panel in panels]
    page = render_page(
        title="t", sections=[Gallery("Details", [ImageRow(HOSTILE, panels=hostile)], flicker=True)]
    )
    assert "<script>alert" not in page
