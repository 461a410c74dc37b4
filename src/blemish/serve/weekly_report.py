"""Report of a week on the line: an HTML page without scripts or links, and the same as an e-mail.

Mail programs drop style sheets and images in data URIs, so styles are inline, the page is made of tables, the bars are
cells, and the images of the e-mail are attachments that it names; those of the page are data URIs.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import make_msgid
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from blemish import __version__
from blemish.data.image import levels, read_image
from blemish.data.labels import GOOD
from blemish.errors import BlemishError, UsageError
from blemish.serve.contracts import StoredDecision, utc_now
from blemish.serve.history import History, KeptImages
from blemish.serve.report_texts import ReportTexts
from blemish.serve.verdicts import DEFECTIVE, label_of
from blemish.serve.weekly_figures import Calibrations, ThresholdWeek, WeekFigures, week_figures
from blemish.storage.atomic import write_bytes

SIDE = 160
"""Longer side of the images in the report, in pixels."""
_MIN_BAR = 1
"""Percent of the width of a bar, so that one rejected image is seen."""


@dataclass(frozen=True)
class WeeklyReport:
    """One week: its figures and the small images of overturned decisions.

    Use :func:`weekly_report`.
    """

    figures: WeekFigures
    begin: date
    end: date
    images: dict[int, bytes]
    """JPEG files by the numbers of the decisions."""
    zone: tzinfo | None
    texts: ReportTexts

    @property
    def title(self) -> str:
        """Heading, and subject of the e-mail."""
        year, week, _ = self.begin.isocalendar()
        return self.texts("title", week=str(week), year=str(year))

    def html(self) -> str:
        """The page, in one file."""
        return self._page(
            lambda number: f"data:image/jpeg;base64,{base64.b64encode(self.images[number]).decode()}"
        )

    def email(self, sender: str = "", to: Sequence[str] = ()) -> EmailMessage:
        """The report as a message: a plain text, the page, and its images as inline attachments.

        Raises
        ------
        UsageError
            When an address is none.
        """
        message = EmailMessage(policy=SMTP)
        message["Subject"] = self.title
        try:
            if sender:
                message["From"] = sender
            if to:
                message["To"] = ", ".join(to)
        except (ValueError, IndexError):
            raise UsageError(f"{sender} {' '.join(to)}: write addresses such as line@example.com") from None
        message["Date"] = utc_now()
        message["Message-ID"] = make_msgid(domain="blemish.invalid")
        ids = {number: make_msgid(domain="blemish.invalid") for number in self.images}
        message.set_content(self.text())
        message.add_alternative(self._page(lambda number: f"cid:{ids[number][1:-1]}"), subtype="html")
        page = message.get_payload()[1]  # type: ignore[index]
        for number, content in self.images.items():
            page.add_related(  # type: ignore[union-attr]
                content, "image", "jpeg", cid=ids[number], filename=f"{number}.jpg", disposition="inline"
            )
        return message

    def text(self) -> str:
        """The summary as plain text."""
        lines = [self.title, self._span(), ""]
        if not self.figures.decisions:
            return "\n".join([*lines, self.texts("none"), ""])
        for name, value, remark in self._summary():
            lines.append(f"{name}: {value}" + (f" ({remark})" if remark else ""))
        outcomes = [(one, _outcome(one)) for one in self.figures.thresholds]
        lines += [f"{one.model}: {self._outcome_text(one, outcome)}" for one, outcome in outcomes if outcome]
        return "\n".join([*lines, ""])

    def write(self, path: str | Path, sender: str = "", to: Sequence[str] = ()) -> None:
        """Write the report: as an e-mail where the name ends in ``.eml``, as a page otherwise.

        Raises
        ------
        UsageError
            When an address is none.
        FileError
            When it cannot be written.
        """
        is_email = Path(path).suffix.lower() == ".eml"
        content = self.email(sender, to).as_bytes() if is_email else self.html().encode()
        write_bytes(path, content)

    def _page(self, source: Callable[[int], str]) -> str:
        figures, texts = self.figures, self.texts
        most = max((day.rejected for day in figures.days), default=0)
        days = [
            {**day._asdict(), "bar": max(_MIN_BAR, round(100 * day.rejected / most)) if day.rejected else 0}
            for day in figures.days
        ]
        thresholds = [
            {
                **one._asdict(),
                "outcome": _outcome(one),
                "good": one.rate.false_rejects + one.rate.accepted_good,
            }
            for one in figures.thresholds
        ]
        return (
            _environment()
            .get_template("weekly.html")
            .render(
                t=texts,
                title=self.title,
                span=self._span(),
                figures={**figures._asdict(), "days": days, "thresholds": thresholds},
                summary=self._summary(),
                overturned=[self._overturned(one, source) for one in figures.overturned],
                all_overturned=figures.false_rejects + figures.missed,
                footer=texts("footer", version=__version__, time=texts.moment(self._local(utc_now()))),
            )
        )

    def _span(self) -> str:
        last = self.end - timedelta(days=1)
        return self.texts("span", first=self.texts.day(self.begin), last=self.texts.day(last))

    def _summary(self) -> list[tuple[str, str, str]]:
        figures, texts = self.figures, self.texts
        share = f"{texts.percent(figures.rejected / max(1, figures.decisions))} %"
        note = texts("summary.overturned_note", false=figures.false_rejects, missed=figures.missed)
        return [
            (texts("summary.decisions"), texts.number(figures.decisions), ""),
            (texts("summary.rejected"), texts.number(figures.rejected), share),
            (texts("summary.judged"), texts.number(figures.judged), ""),
            (texts("summary.overturned"), texts.number(figures.false_rejects + figures.missed), note),
        ]

    def _outcome_text(self, one: ThresholdWeek, outcome: str) -> str:
        return self.texts(
            f"promise.{outcome}",
            allowed=self.texts.percent(one.allowed or 0),
            good=one.rate.false_rejects + one.rate.accepted_good,
            unjudged=one.rate.unjudged,
        )

    def _overturned(self, decision: StoredDecision, source: Callable[[int], str]) -> dict[str, Any]:
        width, height = _small(decision.size)
        label = label_of(decision)
        return {
            "decision": decision,
            "kind": "false" if decision.is_anomalous else "missed",
            "label": None if label in (GOOD, DEFECTIVE) else label,
            "time": self._local(decision.time),
            "image": source(decision.id) if decision.id in self.images else None,
            "width": width,
            "height": height,
        }

    def _local(self, moment: datetime) -> datetime:
        return moment.astimezone(self.zone)


def weekly_report(
    history: History,
    images: KeptImages,
    begin: date,
    end: date,
    *,
    calibrations: Calibrations,
    language: str = "en",
    zone: tzinfo | None = None,
) -> WeeklyReport:
    """Report of the days from ``begin`` to before ``end``.

    Parameters
    ----------
    zone: time zone in which days begin; None is that of the machine.
    calibrations: see :func:`~blemish.serve.weekly_figures.read_calibrations`.

    Raises
    ------
    UsageError
        When there is no such language.
    HistoryError
        When the history cannot be read.
    """
    texts = ReportTexts(language)
    figures = week_figures(history, begin, end, zone, calibrations)
    small = {
        one.id: content for one in figures.overturned if (content := _thumbnail(images, one)) is not None
    }
    return WeeklyReport(figures, begin, end, small, zone, texts)


def _outcome(one: ThresholdWeek) -> str | None:
    """Text about the promise: kept, broken, or open where it depends on images that nobody judged."""
    if one.keeps_promise is None or one.allowed is None:
        return None
    if not one.keeps_promise:
        return "broken"
    return "kept" if one.rate.most <= one.allowed else "open"


def _thumbnail(images: KeptImages, decision: StoredDecision) -> bytes | None:
    """Small JPEG of a kept image; None of one that is not there or cannot be read."""
    path = images.image(decision)
    if path is None:
        return None
    try:
        loaded = read_image(path)
    except BlemishError:
        return None
    pixels = levels(loaded.pixels)
    rows = pixels[0] if len(pixels) < 3 else pixels[:3].transpose(1, 2, 0)
    file = io.BytesIO()
    shown = Image.fromarray(rows)
    shown.resize(_small(shown.size), Image.Resampling.LANCZOS).save(file, "JPEG", quality=80)
    return file.getvalue()


def _small(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of which the longer one is :data:`SIDE`."""
    longer = max(size)
    width, height = (max(1, round(SIDE * side / longer)) for side in size)
    return width, height


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
