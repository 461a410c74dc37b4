"""Inspection over HTTP: the decision of the library, the history behind it, and bad input."""

from __future__ import annotations

import struct
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.errors import HistoryError
from blemish.inspection.detection import Detection
from blemish.inspection.detector import Detector, load
from blemish.serve import service
from blemish.serve.history import HistoryFilter
from tests.serve.serving import Serve, Served, png

Draw = Callable[..., NDArray[np.uint8]]


def files(*named: tuple[str, bytes], field: str = "images") -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, one) for one in named]


def bomb(side: int = 60_000) -> bytes:
    """A PNG of some kilobytes that promises ``side`` × ``side`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


def test_a_decision_is_that_of_the_library_to_the_last_bit(
    served: Served, exported: tuple[Detector, Path], draw: Draw, tmp_path: Path
) -> None:
    for seed, dot in ((900, False), (901, True)):
        content = png(draw(seed, dot=dot))
        path = tmp_path / f"{seed}.png"
        path.write_bytes(content)
        expected = load(exported[1]).inspect(path)
        answer = served.post(content, name=path.name)
        assert answer.status_code == 200, answer.text
        (result,) = answer.json()["results"]
        record = result["record"]
        assert record["score"] == expected.score
        assert record["p_value"] == expected.p_value
        assert record["threshold"] == expected.threshold
        assert record["is_anomalous"] is bool(expected.is_anomalous)
        assert record["name"] == result["name"] == path.name
        assert [one["peak"] for one in record["regions"]] == [one.peak for one in expected.regions]
        assert served.client.get(f"/api/decisions/{result['id']}").json() == record


def test_scores_do_not_depend_on_what_is_inspected_at_the_same_time(
    served: Served, exported: tuple[Detector, Path], draw: Draw, tmp_path: Path
) -> None:
    contents = [png(draw(1000 + seed, dot=seed % 3 == 0)) for seed in range(12)]
    detector, expected = load(exported[1]), []
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.png").write_bytes(content)
        expected.append(detector.inspect(tmp_path / f"{number}.png").score)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(served.post, contents))
    assert [one.json()["results"][0]["record"]["score"] for one in answers] == expected
    form = served.client.post(
        "/api/inspect", files=files(*((f"{n}.png", one) for n, one in enumerate(contents)))
    )
    assert [one["record"]["score"] for one in form.json()["results"]] == expected


def test_of_many_files_each_has_its_own_result(served: Served, draw: Draw) -> None:
    answer = served.client.post(
        "/api/inspect", files=files(("a.png", png(draw(1))), ("b.txt", b"no image"), ("c.png", b""))
    )
    assert answer.status_code == 200
    good, text, empty = answer.json()["results"]
    assert good["record"]["name"] == "a.png"
    assert good["status"] == 200
    assert (text["name"], text["status"]) == ("b.txt", 415)
    assert "is not a PNG" in text["error"]
    assert (empty["status"], empty["error"]) == (415, "c.png: is empty (0 bytes)")
    assert empty["error_text"] == {"key": "problem.image_empty", "values": {"name": "c.png"}}
    assert "record" not in text
    all_bad = served.client.post("/api/inspect", files=files(("b.txt", b"no"), ("c.png", b"")))
    assert all_bad.status_code == 415
    assert len(all_bad.json()["results"]) == 2


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        (lambda content: b"", 400, "the body is empty"),
        (lambda content: b"hello", 415, "is not a PNG"),
        (lambda content: b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "is not a PNG"),
        (damaged, 422, "is truncated or damaged"),
        (lambda content: bomb(), 413, "60000 × 60000 pixels, more than"),
        (lambda content: b"\x89PNG\r\n\x1a\n", 422, "damaged"),
    ],
    ids=["nothing", "text", "program", "truncated", "bomb", "header-alone"],
)
def test_bad_images_have_a_status_and_one_line_that_names_them(
    served: Served, draw: Draw, make: Callable[[bytes], bytes], status: int, words: str
) -> None:
    before = served.server.history.count(HistoryFilter())
    answer = served.post(make(png(draw(1))), name="part.png")
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert words in problem["error"]
    assert problem["remedy"]
    assert "\n" not in problem["error"]
    assert "/tmp" not in answer.text
    if status != 400:
        assert problem["error"].startswith("part.png: ")
    assert served.server.history.count(HistoryFilter()) == before
    assert served.post(png(draw(1))).status_code == 200


def test_an_image_of_another_kind_than_the_model_takes_is_refused(served: Served) -> None:
    colours = np.zeros((40, 48, 4), np.uint8)
    answer = served.post(png(colours), name="rgba.png")
    assert answer.status_code in (200, 422)
    tiny = served.post(png(np.zeros((2, 2), np.uint8)), name="tiny.png")
    assert tiny.status_code == 422
    assert "tiny.png" in tiny.json()["error"]


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"files": {"other": (None, "text")}}, 400, "the form holds no file"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        (
            {"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "form",
        ),
        (
            {"content": b"\xff" * 99, "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "form",
        ),
        ({"data": {"images": "text"}}, 415, "cannot hold files"),
    ],
)
def test_forms_that_hold_no_file_are_refused(
    served: Served, request_: dict[str, Any], status: int, words: str
) -> None:
    answer = served.client.post("/api/inspect", **request_)
    assert answer.status_code == status
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    "kind", [None, "image/png", "application/x-www-form-urlencoded", "text/plain", "nonsense"]
)
def test_a_raw_body_is_an_image_by_its_content_whatever_it_is_called(
    served: Served, draw: Draw, kind: str | None
) -> None:
    headers = {} if kind is None else {"content-type": kind}  # the form of text is that of curl --data-binary
    answer = served.client.post(
        "/api/inspect", content=png(draw(1)), headers=headers, params={"name": "a.png"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][0]["record"]["name"] == "a.png"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../../etc/passwd", "passwd"),
        ("/etc/cron.d/x.png", "x.png"),
        ("C:\\Windows\\part.png", "part.png"),
        ("a\nb\x00.png", "a\\nb\\x00.png"),
        ("..", ".."),
        ("x" * 2000, "x" * 255),
    ],
)
def test_names_are_text_and_never_paths(
    served: Served, draw: Draw, tmp_path: Path, name: str, shown: str
) -> None:
    home = served.server.settings.home
    before = {path for path in home.rglob("*") if path.is_file()}
    answer = served.client.post("/api/inspect", files=files((name, png(draw(1)))))
    assert answer.status_code == 200
    (result,) = answer.json()["results"]
    assert result["record"]["name"] == shown
    added = {path.relative_to(home).parts[0] for path in home.rglob("*") if path.is_file()} - {
        path.relative_to(home).parts[0] for path in before
    }
    assert not added


def test_a_request_that_is_sent_again_is_stored_once(served: Served, draw: Draw) -> None:
    content, headers = png(draw(7)), {"X-Request-ID": "camera-1/frame-7"}
    first = served.client.post("/api/inspect", content=content, headers=headers).json()["results"][0]
    count = served.server.history.count(HistoryFilter())
    again = served.client.post("/api/inspect", content=content, headers=headers).json()["results"][0]
    assert again["record"] == first["record"]
    assert served.server.history.count(HistoryFilter()) == count
    other = served.client.post("/api/inspect", content=png(draw(8)), headers=headers)
    assert other.status_code == 409
    assert "camera-1/frame-7" in other.json()["error"]
    bad = served.client.post("/api/inspect", content=content, headers={"X-Request-ID": "a b"})
    assert bad.status_code == 400


def test_an_unknown_model_is_named_before_the_body_is_read(served: Served, draw: Draw) -> None:
    answer = served.post(png(draw(1)), model="wave")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": "there is no model 'wave'",
        "remedy": "did you mean 'waves'?",
        "error_text": {"key": "problem.model_unknown", "values": {"name": "'wave'"}},
        "remedy_text": {"key": "problem.did_you_mean", "values": {"name": "waves"}},
    }


def test_limits_on_files_and_bodies_hold_whatever_the_client_declares(serve: Serve, draw: Draw) -> None:
    content = png(draw(1))
    with serve(limits={"files": 2, "body_bytes": 20_000, "pixels": 1000}) as served:
        many = served.client.post("/api/inspect", files=files(*((f"{n}.png", content) for n in range(3))))
        assert many.status_code == 413
        assert "more than the 2 files allowed" in many.json()["error"]
        declared = served.post(bytes(20_001))
        assert declared.status_code == 413
        assert "20000 bytes" in declared.json()["error"]
        streamed = served.client.post("/api/inspect", content=iter([bytes(10_000)] * 3))
        assert streamed.status_code == 413
        large = served.post(content, name="a.png")
        assert large.status_code == 413
        assert "48 × 40 pixels, more than the 1000 allowed" in large.json()["error"]


def test_bodies_that_memory_has_no_room_for_are_put_off(serve: Serve, draw: Draw) -> None:
    with serve(limits={"held_bytes": 2000}) as served:
        answer = served.post(bytes(3000))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert served.post(png(draw(1))[:1000]).status_code == 422  # what was held is free again


class Gate:
    """Holds inspections until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.entered = threading.Event(), threading.Semaphore(0)
        inspect = Detector.inspect

        def held(detector: Detector, *given: Any, **named: Any) -> Detection:
            self.entered.release()
            assert self.open.wait(30)
            return inspect(detector, *given, **named)

        monkeypatch.setattr(Detector, "inspect", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def test_a_full_queue_is_said_at_once_with_a_time_to_come_back(serve: Serve, gate: Gate, draw: Draw) -> None:
    content = png(draw(1))
    with serve(workers=1, limits={"queue": 2}) as served, ThreadPoolExecutor(3) as pool:
        first = pool.submit(served.post, content)
        assert gate.entered.acquire(timeout=30)
        others = [pool.submit(served.post, content) for _ in range(2)]
        while len(served.server.service) < 2:
            time.sleep(0.01)
        refused = served.post(content)
        assert refused.status_code == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "queue" in refused.json()["error"]
        assert served.client.get("/readyz").status_code == 503
        gate.open.set()
        assert [one.result().status_code for one in (first, *others)] == [200] * 3
        assert served.client.get("/readyz").status_code == 200
        assert served.server.history.count(HistoryFilter()) == 3


def test_an_inspection_that_takes_too_long_is_answered_and_the_next_one_works(
    serve: Serve, gate: Gate, draw: Draw
) -> None:
    with serve(workers=1, limits={"request_seconds": 0.2}) as served:
        late = served.post(png(draw(1)))
        assert late.status_code == 504
        assert "0.2 s" in late.json()["error"]
        gate.open.set()
        time.sleep(0.3)
        assert served.post(png(draw(1))).status_code == 200


def test_what_was_accepted_is_finished_when_the_server_stops(serve: Serve, gate: Gate, draw: Draw) -> None:
    with serve(workers=1) as served, ThreadPoolExecutor(4) as pool:
        content = png(draw(1))
        asked = [pool.submit(served.post, content) for _ in range(3)]
        assert gate.entered.acquire(timeout=30)
        while len(served.server.service) < 2:
            time.sleep(0.01)
        stopping = pool.submit(served.server.service.stop)
        while served.server.service.is_ready:
            time.sleep(0.01)
        refused = served.post(content)
        assert refused.status_code == 503
        assert "stopping" in refused.json()["error"]
        gate.open.set()
        assert stopping.result() == 0
        assert [one.result().status_code for one in asked] == [200] * 3
        assert served.server.history.count(HistoryFilter()) == 3


def test_a_clock_that_jumps_changes_no_order_and_hides_nothing(
    serve: Serve, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    times = [now, now + timedelta(days=400), now - timedelta(days=400), now + timedelta(seconds=1)]
    with serve() as served:
        for seed, time in enumerate(times):
            monkeypatch.setattr(service, "utc_now", lambda time=time: time)
            assert served.post(png(draw(seed)), name=f"{seed}.png").status_code == 200
        get = served.client.get
        shown = get("/api/decisions").json()["decisions"]
        assert [one["name"] for one in shown] == ["3.png", "2.png", "1.png", "0.png"]
        assert [one["id"] for one in shown] == [4, 3, 2, 1]
        day = {
            "since": (now - timedelta(hours=1)).isoformat(),
            "until": (now + timedelta(hours=1)).isoformat(),
        }
        assert [one["name"] for one in get("/api/decisions", params=day).json()["decisions"]] == [
            "3.png",
            "0.png",
        ]
        assert served.server.history.count(HistoryFilter()) == sum(
            one.decisions for one in served.server.history.hourly()
        )
        assert get("/readyz").status_code == 200


def test_a_full_disk_under_the_history_is_said_and_nothing_acknowledged_is_lost(
    serve: Serve, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = png(draw(1))
    with serve() as served:
        history = served.server.history
        assert served.post(content).status_code == 200
        connection = history.database.engine.raw_connection()
        pages = connection.cursor().execute("PRAGMA page_count").fetchone()[0]
        connection.close()
        with history.database._write_lock:  # the limit is one of a connection
            writer = history.database._live_writer()
            writer.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            writer.rollback()
        answers = [served.post(png(draw(100 + seed))) for seed in range(40)]
        stored = [one for one in answers if one.status_code == 200]
        full = [one for one in answers if one.status_code != 200]
        assert full
        assert {one.status_code for one in full} == {507}
        assert "disk is full" in full[0].json()["error"]
        assert full[0].headers["retry-after"]
        assert history.count(HistoryFilter()) == 1 + len(stored)
        with history.database._write_lock:
            writer = history.database._live_writer()
            writer.exec_driver_sql("PRAGMA max_page_count = 1073741823")
            writer.rollback()
        assert served.post(content).status_code == 200


def test_an_error_of_one_decision_leaves_those_of_its_group_alone(
    serve: Serve, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blemish.serve.history import History

    add = History.add

    def picky(history: History, new: Any, sinks: Any = None) -> Any:
        if any(one.name == "bad.png" for one in new):
            raise RuntimeError("of this one")
        return add(history, new, sinks)

    monkeypatch.setattr(History, "add", picky)
    with serve() as served:
        form = files(*((f"{n}.png", png(draw(n))) for n in range(4)), ("bad.png", png(draw(9))))
        results = served.client.post("/api/inspect", files=form).json()["results"]
        assert [one["status"] for one in results] == [200] * 4 + [500]
        assert "of this one" not in str(results)
        assert served.server.history.count(HistoryFilter()) == 4


def test_a_history_that_cannot_be_written_is_a_503(
    serve: Serve, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as served:

        def refuse(*_: Any) -> Any:
            raise HistoryError("history.sqlite3: the disk gives errors; check the disk")

        monkeypatch.setattr(served.server.history, "add", refuse)
        answer = served.post(png(draw(1)))
        assert (answer.status_code, answer.json()["remedy"]) == (503, "check the disk")
