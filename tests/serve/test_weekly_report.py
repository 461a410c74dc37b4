"""The weekly report: what mail programs show, in each language, and nothing that a name could add."""

from __future__ import annotations

import email
import io
import json
import re
import string
from collections.abc import Iterator
from datetime import date, timedelta, timezone
from email import policy
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.errors import FileError, UsageError
from blemish.serve import report_texts
from blemish.serve.contracts import Frame, NewVerdict
from blemish.serve.history import History, KeptImages
from blemish.serve.report_texts import ReportTexts, languages
from blemish.serve.weekly_report import SIDE, WeeklyReport, weekly_report
from tests.serve.history.made import BEGIN, decision

MONDAY, NEXT = date(2026, 3, 2), date(2026, 3, 9)
CALIBRATIONS = {"5" * 64: tuple((np.arange(1, 100) / 100).tolist())}


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    images = KeptImages(tmp_path / "images")
    file = io.BytesIO()
    Image.fromarray(np.full((40, 80, 3), (200, 20, 20), np.uint8)).save(file, "PNG")
    with History.open(tmp_path) as opened:
        for place in range(40):
            is_anomalous = place % 4 == 0
            new = decision(
                place,
                time=BEGIN + timedelta(hours=3 * place),
                is_anomalous=is_anomalous,
                score=2.0 if is_anomalous else 0.02 * place,
                threshold=0.95,
                size=(80, 40),
                name=f"<script>alert({place})</script>.png",
            )
            opened.add([images.keep(Frame(file.getvalue(), "x"), np.ones((40, 80), np.float32), new)])
        opened.add_verdict(1, NewVerdict(is_right=False, operator="<b>Ana</b>", note='"quoted" & more'))
        opened.add_verdict(2, NewVerdict(is_right=False, label="kratzer"))
        opened.add_verdict(5, NewVerdict(is_right=True))
        yield opened


def report(history: History, tmp_path: Path, language: str = "en", begin: date = MONDAY) -> WeeklyReport:
    return weekly_report(
        history,
        KeptImages(tmp_path / "images"),
        begin,
        begin + timedelta(days=7),
        calibrations=CALIBRATIONS,
        language=language,
        zone=timezone.utc,
    )


@pytest.mark.parametrize("language", languages())
def test_a_page_is_one_file_of_tables_without_scripts_or_links(
    history: History, tmp_path: Path, language: str
) -> None:
    made = report(history, tmp_path, language)
    page = Page(made.html())
    names = {name for name, _ in page.tags}
    assert names <= {
        "html", "head", "meta", "title", "body", "table", "tr", "td", "th", "h1", "h2", "p", "span", "br", "b", "img",
    }  # fmt: skip
    for name, attributes in page.tags:
        assert not {"href", "onclick", "onerror", "class"} & set(attributes)
        if name == "img":
            source = attributes["src"] or ""
            assert source.startswith("data:image/jpeg;base64,")
            assert (attributes["width"], attributes["height"]) == (str(SIDE), str(SIDE // 2))
    assert "<script>alert(0)</script>.png" in page.text  # as text
    assert '"quoted" & more' in page.text
    assert dict(page.tags)["html"]["lang"] == language
    assert "{" not in page.text
    assert made.title in page.text


def test_what_the_report_says(history: History, tmp_path: Path) -> None:
    text = " ".join(Page(report(history, tmp_path).html()).text.split())
    for part in (
        "Week 10 of 2026 on the line",
        "Mon 2026-03-02 to Sun 2026-03-08",
        "1 rejected although good, 1 accepted although defective",
        "3.3 % to 23.7 %",  # 1 of 30, if all others are defective, to 9 of 38
        "at most 5.0 % on average",
        "8 rejected images have no verdict",
        "Judged by <b>Ana</b>",
        "Label: kratzer",
        "Decision 2, 2026-03-02 09:30, folder",
    ):
        assert part in text, part


def test_the_same_in_german_with_german_numbers(history: History, tmp_path: Path) -> None:
    text = " ".join(Page(report(history, tmp_path, "de").html()).text.split())
    for part in (
        "Woche 10 des Jahres 2026",
        "Mo 02.03.2026 bis So 08.03.2026",
        "im Mittel höchstens 5,0 %",
        "Schwelle 0,95",
    ):
        assert part in text, part


def test_an_email_shows_its_images_everywhere(history: History, tmp_path: Path) -> None:
    path = tmp_path / "week.eml"
    report(history, tmp_path, "de").write(
        path, "linie@example.com", ["qm@example.com", "Ana <ana@example.com>"]
    )
    message = email.message_from_bytes(path.read_bytes(), policy=policy.default)
    assert message["Subject"] == "Woche 10 des Jahres 2026 an der Linie"
    assert message["To"] == "qm@example.com, Ana <ana@example.com>"
    assert message.get_content_type() == "multipart/alternative"
    plain = message.get_body(("plain",))
    page = message.get_body(("html",))
    assert plain is not None
    assert page is not None
    assert "Geprüfte Bilder: 40" in plain.get_content()
    sources = [attributes["src"] for name, attributes in Page(page.get_content()).tags if name == "img"]
    images = [part for part in message.walk() if part.get_content_type() == "image/jpeg"]
    assert sorted(f"cid:{part['Content-ID'][1:-1]}" for part in images) == sorted(map(str, sources))
    assert len(images) == 2
    for part in images:
        with Image.open(io.BytesIO(part.get_payload(decode=True))) as image:
            assert image.size == (SIDE, SIDE // 2)
    assert all(len(line) <= 998 for line in path.read_bytes().split(b"\r\n"))


@pytest.mark.parametrize("address", ["a@b\r\nBcc: all@example.com", "\n"])
def test_an_address_adds_no_header(history: History, tmp_path: Path, address: str) -> None:
    with pytest.raises(UsageError, match=r"write addresses such as line@example\.com"):
        report(history, tmp_path).write(tmp_path / "week.eml", "line@example.com", [address])
    assert not (tmp_path / "week.eml").exists()


def test_an_image_that_is_gone_or_damaged_is_left_out(history: History, tmp_path: Path) -> None:
    images = KeptImages(tmp_path / "images")
    gone, damaged = (images.image(history.decision(number)) for number in (1, 2))
    assert gone is not None
    assert damaged is not None
    gone.unlink()
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    page = Page(report(history, tmp_path).html())
    assert page.text.count("image not kept") == 2
    assert "img" not in dict(page.tags)


@pytest.mark.parametrize("language", languages())
def test_a_week_without_decisions_is_said(history: History, tmp_path: Path, language: str) -> None:
    made = report(history, tmp_path, language, begin=date(2020, 1, 6))
    assert ReportTexts(language)("none") in Page(made.html()).text
    assert ReportTexts(language)("none") in made.text()


def test_a_file_that_cannot_be_written_is_an_error_in_one_line(history: History, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="a part of this path is a file"):
        report(history, tmp_path).write(tmp_path / "file" / "week.html")


def test_languages_have_the_same_texts_with_the_same_places() -> None:
    folder = Path(report_texts.__file__).parent
    texts = {
        language: json.loads((folder / f"{language}.json").read_text("utf-8")) for language in languages()
    }
    assert set(texts) >= {"en", "de"}
    for language, found in texts.items():
        assert found.keys() == texts["en"].keys(), language
        for key, text in found.items():
            places = {name for _, name, _, _ in string.Formatter().parse(text) if name}
            assert places == {name for _, name, _, _ in string.Formatter().parse(texts["en"][key]) if name}, (
                key
            )
    template = (folder.parent / "templates" / "weekly.html").read_text("utf-8")
    for key in re.findall(r't\("([a-z_.]+)"[,)]', template):
        assert key in texts["en"], key


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UsageError, match="there are de, en"):
        ReportTexts("xx")
