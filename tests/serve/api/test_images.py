"""Images of decisions: as they came, maps as numbers, overlays; from memory, from the disk, and after a restart."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.data.maps import read_map
from blemish.inspection.detector import Detector, load
from blemish.report import overlay
from blemish.serve.contracts import Frame
from blemish.serve.history import KeepRule
from blemish.serve.recent_images import RecentImages
from tests.serve.serving import Serve, Served, png

Draw = Callable[..., NDArray[np.uint8]]


def check_images(served: Served, number: int, content: bytes, exported: Path, tmp_path: Path) -> None:
    links = f"/api/decisions/{number}"
    image = served.client.get(f"{links}/image")
    assert (image.content, image.headers["content-type"]) == (content, "image/png")
    path = tmp_path / "sent.png"
    path.write_bytes(content)
    expected = load(exported).inspect(path)
    shown = served.client.get(f"{links}/map")
    (tmp_path / "map.png").write_bytes(shown.content)
    count = 8 * expected.pixel_threshold / 65535
    np.testing.assert_allclose(read_map(tmp_path / "map.png"), expected.map, atol=count)
    drawn = np.asarray(Image.open(io.BytesIO(served.client.get(f"{links}/overlay").content)))
    whole = overlay(expected.loaded.pixels, expected.map, expected.region_threshold, expected.regions)
    assert drawn.shape == whole.shape
    assert np.mean(np.abs(drawn.astype(int) - whole)) < 1


def test_images_come_from_memory_and_after_a_restart_from_the_disk(
    serve: Serve, exported: tuple[Detector, Path], draw: Draw, tmp_path: Path
) -> None:
    content = png(draw(3, dot=True))
    with serve(home=tmp_path / "home") as served:
        found = served.post(content, name="../x.png").json()["results"][0]
        assert found["links"]["image"] == f"/api/decisions/{found['id']}/image"
        assert found["record"]["kept"]
        check_images(served, found["id"], content, exported[1], tmp_path)
    with serve(home=tmp_path / "home") as served:
        assert len(served.server.service.recent) == 0
        check_images(served, found["id"], content, exported[1], tmp_path)


def test_the_last_images_are_shown_though_they_are_not_kept(
    serve: Serve, exported: tuple[Detector, Path], draw: Draw, tmp_path: Path
) -> None:
    content = png(draw(3, dot=True))
    rule = KeepRule(all=False, rejects=False)
    with serve(home=tmp_path / "home", keep=rule) as served:
        number = served.post(content).json()["results"][0]["id"]
        assert not (tmp_path / "home" / "images").exists()
        check_images(served, number, content, exported[1], tmp_path)
    with serve(home=tmp_path / "home", keep=rule) as served:
        for kind in ("image", "map", "overlay"):
            answer = served.client.get(f"/api/decisions/{number}/{kind}")
            assert answer.status_code == 404
            assert "by the rule: none" in answer.json()["remedy"]


def test_old_images_go_by_the_rule_and_decisions_stay(serve: Serve, draw: Draw, tmp_path: Path) -> None:
    with serve(home=tmp_path, retention={"image_bytes": 0}) as served:
        number = served.post(png(draw(3))).json()["results"][0]["id"]
        served.server.clean_up()
        assert not list((tmp_path / "images").rglob("*.png"))
        assert served.client.get(f"/api/decisions/{number}").json()["kept"] is False


def test_a_full_disk_under_the_images_loses_no_decision(
    serve: Serve, draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(home=tmp_path) as served:
        (tmp_path / "images").write_text("in the way")
        answer = served.post(png(draw(3)))
        assert answer.status_code == 200
        assert answer.json()["results"][0]["record"]["kept"] is False
        assert served.server.kept.problem is not None


def test_the_history_as_tables(serve: Serve, draw: Draw) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    with serve() as served:
        for seed in range(3):
            served.post(png(draw(seed)), name=f"={seed}.png")
        answer = served.client.get("/api/history.csv")
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
        assert [row["name"] for row in rows] == ["'=0.png", "'=1.png", "'=2.png"]
        table = pyarrow.read_table(io.BytesIO(served.client.get("/api/history.parquet").content))
        assert table.num_rows == 3
        one = served.client.get("/api/history.csv", params={"text": "=1"}).content.decode("utf-8-sig")
        assert len(list(csv.DictReader(io.StringIO(one)))) == 1


def test_memory_holds_few_images_and_never_more_bytes_than_allowed(
    exported: tuple[Detector, Path], serve: Serve, draw: Draw
) -> None:
    with serve() as served:
        outcomes = [
            served.server.service.inspect(frame)
            for frame in map(_frame, (png(draw(seed)) for seed in range(4)))
        ]
    one = outcomes[0].detection.map.nbytes
    few = RecentImages(count=2, size=10**9)
    small = RecentImages(count=100, size=3 * one)
    for outcome in outcomes:
        for images in (few, small):
            images.add(outcome.decision, _frame(b"x"), outcome.detection)
    assert [few.get(outcome.decision.id) is not None for outcome in outcomes] == [False, False, True, True]
    assert [small.get(outcome.decision.id) is not None for outcome in outcomes] == [False, False, True, True]
    none = RecentImages(count=9, size=one - 1)
    none.add(outcomes[0].decision, _frame(b""), outcomes[0].detection)
    assert len(none) == 0


def _frame(content: bytes) -> Frame:
    return Frame(content, "a.png")
