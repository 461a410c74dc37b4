"""The weekly report over HTTP."""

from __future__ import annotations

import email
from collections.abc import Callable
from datetime import date
from email import policy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.serve.contracts import utc_now
from tests.serve.serving import Served, png

Draw = Callable[..., NDArray[np.uint8]]


def test_the_report_of_this_week(served: Served, draw: Draw) -> None:
    number = served.post(png(draw(900, dot=True))).json()["results"][0]["id"]
    was_rejected = served.client.get(f"/api/decisions/{number}").json()["is_anomalous"]
    served.client.post(f"/api/decisions/{number}/verdict", json={"is_right": False, "operator": "Ana"})
    asked = {"week": utc_now().astimezone().date().isoformat(), "language": "de"}
    page = served.client.get("/api/report.html", params=asked)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    kind = "Ausschuss, obwohl gut" if was_rejected else "In Ordnung, obwohl fehlerhaft"
    for part in (
        kind,
        f"Entscheidung {number}",
        "Urteil von Ana",
        "im Mittel höchstens",
        "data:image/jpeg;base64,",
    ):
        assert part in page.text, part

    mail = served.client.get("/api/report.eml", params=asked)
    message = email.message_from_bytes(mail.content, policy=policy.default)
    assert message["Subject"].startswith("Woche ")
    assert [part.get_content_type() for part in message.walk()].count("image/jpeg") >= 1


@pytest.mark.parametrize("asked", [{}, {"language": "xx"}, {"language": "../en"}])
def test_the_last_week_in_english_is_the_usual_one(served: Served, asked: dict[str, str]) -> None:
    answer = served.client.get("/api/report.html", params=asked)
    assert answer.status_code == 200
    year, week, _ = date.fromordinal(date.today().toordinal() - 7).isocalendar()
    assert f"Week {week} of {year} on the line" in answer.text


@pytest.mark.parametrize(
    "asked",
    [
        {"language": "x" * 21},
        {"week": "0001-01-01"},
        {"week": "9999-12-31"},
        {"week": "Monday"},
    ],
)
def test_what_cannot_be_reported_is_refused_in_one_line(served: Served, asked: dict[str, Any]) -> None:
    for name in ("html", "eml"):
        answer = served.client.get(f"/api/report.{name}", params=asked)
        assert answer.status_code == 422
        assert "\n" not in answer.json()["error"]
