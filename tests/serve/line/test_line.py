"""The line of a server: from files and cameras to decisions and on to sinks."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from blemish.errors import ServeError
from tests.conftest import Draw
from tests.serve.line.sinks.subscriber import Subscriber
from tests.serve.line.sources.cameras import MjpegCamera, write_video
from tests.serve.serving import Serve, Served, png
from tests.services import Mosquitto


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.02)


def write_line(folder: Path, **parts: Any) -> Path:
    path = folder / "line.yaml"
    path.write_text(yaml.safe_dump(parts))
    return path


def rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


FOLDER = {"name": "in", "type": "folder", "path": "incoming", "settle": 0.05, "poll": 0.1}
TABLE = {"name": "table", "type": "csv", "path": "out/decisions.csv"}
REJECTS = {"name": "rejects", "type": "folder", "path": "rejects"}


@pytest.fixture
def images(draw: Draw) -> Callable[..., bytes]:
    """``images(seed, dot=False)``: content of an image file of the kind of the served model."""

    def make(seed: int, *, dot: bool = False) -> bytes:
        pixels: NDArray[Any] = draw(seed, dot=dot)
        return png(pixels)

    return make


def test_a_folder_of_parts_becomes_decisions_a_table_and_a_folder_of_rejects(
    serve: Serve, tmp_path: Path, images: Callable[..., bytes]
) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    for seed in range(6):
        (incoming / f"{seed}.png").write_bytes(images(500 + seed, dot=seed == 4))
    file = write_line(
        tmp_path, sources=[{**FOLDER, "after": "move", "move_to": "done"}], sinks=[TABLE, REJECTS]
    )
    with serve(line=file) as served:
        until(lambda: len(rows(tmp_path / "out" / "decisions.csv")) == 6)
        found = {one.name: one for one in served.server.history.page(limit=10)}
        rejected = {name for name, one in found.items() if one.is_anomalous}
        until(lambda: len(list((tmp_path / "rejects").glob("*.json"))) == len(rejected))
    assert set(found) == {f"{seed}.png" for seed in range(6)}
    assert "4.png" in rejected
    assert {one.source for one in found.values()} == {"in"}
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == sorted(found)
    assert list(incoming.iterdir()) == []
    table = rows(tmp_path / "out" / "decisions.csv")
    assert {row["name"]: float(row["score"]) for row in table} == {
        name: one.score for name, one in found.items()
    }
    number = found["4.png"].id
    with Image.open(tmp_path / "rejects" / f"{number:08d}-4-overlay.png") as overlay:
        assert overlay.size == (48, 40)
        assert overlay.mode == "RGB"
    assert (tmp_path / "rejects" / f"{number:08d}-4.png").read_bytes() == images(504, dot=True), (
        "the file as it came"
    )
    assert (
        json.loads((tmp_path / "rejects" / f"{number:08d}-4.json").read_text())["score"]
        == found["4.png"].score
    )


def test_the_score_of_a_file_on_the_line_is_that_of_an_upload(
    serve: Serve, tmp_path: Path, images: Callable[..., bytes]
) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "a.png").write_bytes(images(7))
    with serve(line=write_line(tmp_path, sources=[FOLDER])) as served:
        until(lambda: served.server.history.count())
        answer = served.post(images(7)).json()["results"][0]["record"]
        (on_line,) = [one for one in served.server.history.page() if one.source == "in"]
    assert answer["score"] == on_line.score
    assert answer["image_sha256"] == on_line.image_sha256


def test_a_restart_neither_doubles_nor_loses_files(
    serve: Serve, tmp_path: Path, images: Callable[..., bytes]
) -> None:
    (tmp_path / "incoming").mkdir()
    home = tmp_path / "home"
    file = write_line(tmp_path, sources=[FOLDER], sinks=[TABLE])
    for start in (0, 3):
        for seed in range(start, start + 3):
            (tmp_path / "incoming" / f"{seed}.png").write_bytes(images(seed))
        with serve(line=file, home=home) as served:
            until(lambda: len(rows(tmp_path / "out" / "decisions.csv")) == start + 3)  # noqa: B023
            names = [one.name for one in served.server.history.page()]
    assert sorted(names) == [f"{seed}.png" for seed in range(6)]
    assert sorted(row["name"] for row in rows(tmp_path / "out" / "decisions.csv")) == sorted(names)


def test_pause_resume_and_state_by_the_interface(
    serve: Serve, tmp_path: Path, images: Callable[..., bytes]
) -> None:
    (tmp_path / "incoming").mkdir()
    with serve(line=write_line(tmp_path, sources=[FOLDER], sinks=[TABLE])) as served:
        state = served.client.get("/api/line").json()
        assert [one["name"] for one in state["sources"]] == ["in"]
        assert state["description"]["sources"][0]["path"] == "incoming"
        assert served.client.post("/api/line/pause").json()["is_paused"]
        (tmp_path / "incoming" / "a.png").write_bytes(images(1))
        time.sleep(0.5)
        assert served.server.history.count() == 0
        assert not served.client.post("/api/line/resume", json={"sources": ["in"]}).json()["is_paused"]
        until(lambda: served.server.history.count() == 1)
        until(lambda: served.client.get("/api/line").json()["sinks"][0]["delivered"] == 1)
        wrong = served.client.post("/api/line/pause", json={"sources": ["inn"]})
    assert wrong.status_code == 404
    assert wrong.json() == {
        "error": "there is no source 'inn'",
        "remedy": "did you mean 'in'?",
        "error_text": {"key": "problem.line_no_source", "values": {"source": "inn"}},
        "remedy_text": {"key": "problem.did_you_mean", "values": {"name": "in"}},
    }


def test_a_camera_gives_one_decision_for_each_trigger_and_comes_back(serve: Serve, tmp_path: Path) -> None:
    camera = MjpegCamera().start()
    source = {
        "name": "belt",
        "type": "stream",
        "url": f"{camera.url}/stream",
        "trigger": {"type": "http", "timeout": "1s"},
        "silence": 1,
        "colour": "grey",
    }
    with serve(line=write_line(tmp_path, sources=[source])) as served:
        until(lambda: served.client.get("/api/line").json()["sources"][0]["is_ready"])
        first = served.client.post("/api/line/trigger", params={"name": "serial 1"})
        assert first.status_code == 200, first.text
        assert first.json()["decision"]["name"] == "serial 1"
        camera.stop()
        until(lambda: not served.client.get("/api/line").json()["sources"][0]["is_ready"])
        lost = served.client.post("/api/line/trigger", params={"source": "belt"})
        assert lost.status_code == 504
        assert "gave no image within 1 s" in lost.json()["error"]
        camera.start()
        until(lambda: served.client.get("/api/line").json()["sources"][0]["is_ready"])
        assert served.client.post("/api/line/trigger").status_code == 200
        assert served.server.history.count() == 2
        assert served.client.post("/api/line/trigger", params={"source": "nobody"}).status_code == 404
    camera.stop()


def test_a_new_line_takes_the_place_of_the_old_one_and_the_same_parts_go_on(
    serve: Serve, tmp_path: Path, images: Callable[..., bytes]
) -> None:
    for name in ("incoming", "second"):
        (tmp_path / name).mkdir()
    file = write_line(tmp_path, sources=[FOLDER], sinks=[TABLE])
    with serve(line=file) as served:
        before = served.server.line._sources["in"]
        other = {**FOLDER, "name": "two", "path": "second"}
        answer = served.client.put("/api/line", json={"sources": [FOLDER, other], "sinks": [TABLE]})
        assert answer.status_code == 200, answer.text
        assert served.server.line._sources["in"] is before
        (tmp_path / "second" / "a.png").write_bytes(images(1))
        until(lambda: [row["source"] for row in rows(tmp_path / "out" / "decisions.csv")] == ["two"])
        written = yaml.safe_load(file.read_text())
        assert [one["name"] for one in written["sources"]] == ["in", "two"]
        for wrong, words in (
            ({"sources": [{"name": "x", "type": "foldr"}]}, "'sources[0].type' is 'foldr'"),
            ({"sources": [{**FOLDER, "model": "wave"}]}, "'sources[0].model' is 'wave', which is not served"),
            ({"sinks": [{"name": "h", "type": "webhook", "url": "http://h/", "token": "${BLEMISH_LINE_NONE}"}]},
             "'sinks[0].token' needs the environment variable BLEMISH_LINE_NONE"),
        ):  # fmt: skip
            refused = served.client.put("/api/line", json=wrong)
            assert refused.status_code == 422
            assert words in refused.json()["error"]
        assert yaml.safe_load(file.read_text()) == written, "the line stays as it was"
        assert {one["name"] for one in served.client.get("/api/line").json()["sources"]} == {"in", "two"}


def test_sinks_of_some_sources_get_theirs_alone_and_uploads_have_a_name(
    serve: Serve, tmp_path: Path, images: Callable[..., bytes]
) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "a.png").write_bytes(images(1))
    uploads = {**TABLE, "name": "uploads", "path": "out/uploads.csv", "sources": ["api"]}
    with serve(line=write_line(tmp_path, sources=[FOLDER], sinks=[TABLE, uploads])) as served:
        served.post(images(2))
        until(lambda: len(rows(tmp_path / "out" / "decisions.csv")) == 2)
        until(lambda: len(rows(tmp_path / "out" / "uploads.csv")) == 1)
    assert {row["source"] for row in rows(tmp_path / "out" / "decisions.csv")} == {"in", "api"}
    assert [row["source"] for row in rows(tmp_path / "out" / "uploads.csv")] == ["api"]


def test_what_a_removed_sink_owes_is_shown_and_can_be_forgotten(
    serve: Serve, tmp_path: Path, images: Callable[..., bytes]
) -> None:
    hook = {"name": "hook", "type": "webhook", "url": "http://127.0.0.1:1/"}
    with serve(line=write_line(tmp_path, sinks=[hook])) as served:
        served.post(images(1))
        until(lambda: served.client.get("/api/line").json()["outbox"][0]["error"])
        metrics = served.client.get("/metrics").text
        assert "blemish_outbox_decisions 1.0" in metrics
        assert "blemish_line_not_ready 1.0" in metrics
        assert served.client.delete("/api/line/outbox/hook").status_code == 409
        served.post(images(2))
        (first, second) = sorted(one.id for one in served.server.history.page())
        assert served.client.post("/api/line/outbox/hook/skip").json() == {"decision": first}
        assert [one.decision.id for one in served.server.history.due("hook")] in ([second], [])
        assert served.client.post("/api/line/outbox/hok/skip").status_code == 404
        served.client.put("/api/line", json={})
        (owed,) = served.client.get("/api/line").json()["outbox"]
        assert (owed["sink"], owed["owed"]) == ("hook", 1)
        assert served.client.delete("/api/line/outbox/hook").json() == {"removed": 1}
        assert served.client.get("/api/line").json()["outbox"] == []
        assert served.client.delete("/api/line/outbox/hook").status_code == 404


def test_an_image_that_no_rule_keeps_is_kept_until_it_is_delivered(
    serve: Serve, tmp_path: Path, images: Callable[..., bytes]
) -> None:
    home, rule = tmp_path / "home", {"all": False, "rejects": False}
    (tmp_path / "rejects").write_text("a file in the way of the folder")
    file = write_line(tmp_path, sinks=[REJECTS])
    with serve(line=file, home=home, keep=rule) as served:
        served.post(images(1))
        served.post(images(504, dot=True))
        until(lambda: served.client.get("/api/line").json()["outbox"])
        accepted, rejected = sorted(served.server.history.page(), key=lambda one: one.id)
        assert (accepted.kept, rejected.kept) == (False, True)
    (tmp_path / "rejects").unlink()
    with serve(line=file, home=home, keep=rule):
        until(lambda: list((tmp_path / "rejects").glob("*.json")))
    (image,) = [path for path in (tmp_path / "rejects").glob("*.png") if "overlay" not in path.name]
    assert image.read_bytes() == images(504, dot=True)
    assert len(list((tmp_path / "rejects").glob("*-overlay.png"))) == 1


def test_a_broker_that_restarts_in_the_middle_gets_every_decision_in_order(
    serve: Serve, tmp_path: Path, images: Callable[..., bytes]
) -> None:
    broker = Mosquitto(tmp_path).start()
    subscriber = Subscriber(broker.port)
    sink = {"name": "broker", "type": "mqtt", "host": "127.0.0.1", "port": broker.port, "timeout": 2}
    with serve(line=write_line(tmp_path, sinks=[sink])) as served:
        for seed in range(12):
            if seed == 4:
                subscriber.expect(2)
                broker.stop()
            if seed == 8:
                broker.start()
                assert subscriber.wait(20)
            assert served.post(images(seed)).status_code == 200, "decisions do not wait for sinks"
        until(lambda: len({json.loads(one)["id"] for _, one in subscriber.messages}) == 12, 60)
        stored = sorted(one.id for one in served.server.history.page())
        assert served.client.get("/api/line").json()["outbox"] == []
    arrived = list(dict.fromkeys(json.loads(one)["id"] for _, one in subscriber.messages))
    subscriber.close()
    broker.stop()
    assert arrived == stored


def test_a_video_is_decided_frame_by_frame_and_ends(serve: Serve, tmp_path: Path) -> None:
    write_video(tmp_path / "shift.mp4", count=6)
    source = {"name": "tape", "type": "video", "path": "shift.mp4", "every_nth": 2, "colour": "grey"}
    with serve(line=write_line(tmp_path, sources=[source])) as served:
        until(lambda: served.client.get("/api/line").json()["sources"][0]["has_ended"])
        names = sorted(one.name for one in served.server.history.page())
        state = served.client.get("/api/line").json()["sources"][0]
    assert names == ["shift.mp4-000000", "shift.mp4-000002", "shift.mp4-000004"]
    assert state["decisions"] == 3


def test_a_wrong_description_or_a_missing_one_stops_the_start_in_one_line(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "line.yaml").write_text("sources: [{name: a, type: folder}]")
    with (
        pytest.raises(ServeError, match=r"line.yaml: key 'sources\[0\].path' is missing"),
        serve(line=tmp_path / "line.yaml"),
    ):
        pass
    with pytest.raises(ServeError, match="does not exist"), serve(line=tmp_path / "missing.yaml"):
        pass


def test_a_server_without_a_line_has_an_empty_one(served: Served) -> None:
    state = served.client.get("/api/line").json()
    assert state["sources"] == state["sinks"] == []
    assert not state["is_paused"]
    assert served.client.post("/api/line/trigger").status_code == 409
