"""Routes of the page: its files and policy, drawings, counts, the control chart, versions, fits and good images."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.serve import fits
from blemish.serve.api.page import POLICY
from blemish.serve.page_files import page_files
from blemish.serve.verdicts import is_to_test
from tests.serve.serving import Served, png

Draw = Callable[..., NDArray[np.uint8]]


def test_the_page_needs_no_key_and_forbids_everything_from_elsewhere(served: Served) -> None:
    answer = served.client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert POLICY in answer.headers.get_list("content-security-policy")
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    for name, (content, kind) in page_files().items():
        found = served.client.get(f"/page/{name}")
        assert (found.content, found.headers["content-type"]) == (content, kind), name


def test_a_file_that_is_known_is_not_sent_again(served: Served) -> None:
    first = served.client.get("/page/app.js")
    again = served.client.get("/page/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["../settings.py", "%2e%2e/settings.py", "nothing.js", "views", "messages/xx.json", "messages/../en.json"])  # fmt: skip
def test_nothing_else_is_served(served: Served, name: str) -> None:
    assert served.client.get(f"/page/{name}").status_code in (404, 405)


def test_messages_are_served_in_every_language(served: Served) -> None:
    codes = [one["code"] for one in served.client.get("/page/messages.json").json()["languages"]]
    assert codes[0] == "en"
    for code in codes:
        assert served.client.get(f"/page/messages/{code}.json").json()["language.name"]


def test_a_drawing_has_the_size_that_is_asked_for(served: Served, draw: Draw) -> None:
    number = served.post(png(draw(1, dot=True))).json()["results"][0]["id"]
    for what, mode in (("image", "RGB"), ("heat", "RGBA"), ("overlay", "RGB")):
        answer = served.client.get(f"/api/decisions/{number}/drawing/{what}", params={"side": 24})
        assert answer.headers["content-type"] == "image/png"
        image = Image.open(io.BytesIO(answer.content))
        assert (image.size, image.mode) == ((24, 20), mode)
    whole = Image.open(io.BytesIO(served.client.get(f"/api/decisions/{number}/drawing/image").content))
    assert (np.asarray(whole)[..., 0] == draw(1, dot=True)).all()
    assert served.client.get(f"/api/decisions/{number}/drawing/sound").status_code == 422
    assert served.client.get(f"/api/decisions/{number}/drawing/image?side=9999").status_code == 422
    assert served.client.get("/api/decisions/999999/drawing/image").status_code == 404


def test_counts_and_chart_agree_with_the_history(served: Served, draw: Draw) -> None:
    for seed in range(3):
        served.post(png(draw(20 + seed, dot=seed == 0)))
    known = served.client.get("/api/decisions", params={"limit": 500}).json()["decisions"]
    summary = served.client.get("/api/summary").json()
    assert summary["count"] == len(known)
    assert summary["rejected"] == sum(one["is_anomalous"] for one in known)
    assert summary["seconds"] == np.median([one["seconds"] for one in known[:50]])
    later = served.client.get("/api/summary", params={"since": "2100-01-01T00:00:00Z"}).json()
    assert (later["count"], later["accepted"], later["rejected"]) == (0, 0, 0)
    chart = served.client.get("/api/control-chart").json()
    assert chart["series"]["id"] == [one["id"] for one in reversed(known)]
    assert chart["count"] == len(known)
    assert chart["threshold"] == served.client.get("/api/models/waves").json()["threshold"]
    sha = known[0]["model_sha256"]
    for weights, decisions in ((sha, len(known)), ("0" * 64, 0)):
        asked = {"threshold": 1.0, "model_sha256": weights}
        assert served.client.get("/api/what-if", params=asked).json()["decisions"] == decisions
    assert served.client.get("/api/sources").json() == {"sources": ["api"]}


def test_rates_have_the_thresholds_that_promise_them(served: Served) -> None:
    decision = served.server.models["waves"].detector.decision
    count = len(decision.calibration.scores)
    for one in served.client.get("/api/models/waves/rates").json()["rates"]:
        if one["needed"] <= count:
            assert one["threshold"] == decision.with_false_reject_rate(one["rate"]).threshold
        else:
            assert one["threshold"] is None


def test_versions_that_are_not_there_are_named(served: Served) -> None:
    client = served.client
    assert [one["number"] for one in client.get("/api/models/waves/versions").json()["versions"]] == [1]
    answer = client.post("/api/models/waves/promote", json={"version": 9})
    assert (answer.status_code, answer.json()["error"]) == (404, "model waves has no version 9")
    assert client.post("/api/models/waves/roll-back").status_code == 409
    assert client.post("/api/models/waves/compare", json={"version": 1}).status_code == 409
    assert client.post("/api/models/waves/compare", json={"version": 9}).status_code == 404
    assert client.get("/api/models/waves/comparison").json() is None
    for path in ("versions", "rates", "comparison"):
        assert client.get(f"/api/models/other/{path}").status_code == 404


def test_confirmed_defects_are_counted_by_what_they_are_for(served: Served, draw: Draw) -> None:
    client = served.client
    before = client.get("/api/defects").json()
    assert (before["model"], before["least"]) == ("waves", 5)
    digests = {}
    for seed in range(6):
        content = png(draw(700 + seed, dot=True))
        [found] = client.post("/api/inspect", content=content).json()["results"]
        digests[found["id"]] = found["record"]["image_sha256"]
        shapes = [{"kind": "box", "points": [[1, 2], [9, 9]]}] * (seed % 2)
        rejects = found["record"]["is_anomalous"]
        client.post(
            f"/api/decisions/{found['id']}/verdict",
            json={"is_right": rejects, "label": "dot", "shapes": shapes},
        )
    to_test = {number for number, digest in digests.items() if is_to_test(digest)}
    drawn = {number for place, number in enumerate(digests) if place % 2}
    after = client.get("/api/defects").json()
    more = {name: after[name] - before[name] for name in ("to_choose", "drawn", "to_test")}
    assert more == {"to_choose": 6 - len(to_test), "drawn": len(drawn - to_test), "to_test": len(to_test)}
    assert 0 < len(to_test) < 6
    for seed in range(3):
        client.post("/api/good-images", files=[("images", ("a.png", png(draw(800 + seed)), "image/png"))])
    answer = client.post("/api/fits", json={"model": "waves", "use_defects": True, "recipe": "ssim-ae"})
    assert answer.status_code == 409
    client.delete("/api/good-images")


def test_good_images_and_fits_answer_in_a_line(
    served: Served, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = served.client
    forms = [("images", ("a.png", png(draw(1)), "image/png")), ("images", ("b.png", b"none", "image/png"))]
    added = client.post("/api/good-images", files=forms).json()
    assert added["count"] == 1
    assert [one["is_new"] for one in added["results"]] == [True, False]
    assert "is not a PNG" in added["results"][1]["error"]
    answer = client.post("/api/fits", json={"model": "waves"})
    assert answer.status_code == 409
    assert answer.json()["error"] == "there are 1 good images of waves"
    assert client.post("/api/fits", json={"model": "waves", "recipe": "../x"}).status_code == 422
    assert client.post("/api/fits", json={"model": "other"}).status_code == 404
    for method, path in (("GET", "/api/fits/5"), ("DELETE", "/api/fits/5"), ("POST", "/api/fits/5/resume")):
        assert client.request(method, path).status_code == 404
    monkeypatch.setattr(fits, "find_spec", lambda name: None)
    assert client.post("/api/fits", json={"model": "waves"}).status_code == 501
    found = client.get("/api/fits").json()
    assert found["fits"] == []
    assert not found["available"]["is_available"]
    assert "ssim-ae" in found["recipes"]
    assert client.delete("/api/good-images").json() == {"model": "waves", "count": 0}
