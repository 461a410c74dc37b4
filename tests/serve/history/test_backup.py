"""Backup and restore: of one moment, with its images, beside a server that goes on."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from blemish.errors import FileError, HistoryError
from blemish.serve.contracts import Frame, NewVerdict
from blemish.serve.history import History, HistoryFilter, KeptImages
from blemish.serve.history.backup import back_up, read_manifest, restore
from tests.serve.history.made import many

MAP = np.ones((2, 2), np.float32)


def filled(folder: Path, count: int = 12) -> History:
    images, history = KeptImages(folder / "images"), History.open(folder)
    new = [
        images.keep(Frame(b"BM" + one.request.encode(), "x"), MAP, one) if place % 2 else one
        for place, one in enumerate(many(count))
    ]
    history.add(new, {"hook": "rejected"})
    owed = history.due("hook")
    history.delivered(owed[-1].id)
    history.add_verdict(3, NewVerdict(is_right=False, note="why"))
    return history


def test_a_restored_history_is_the_one_that_was_backed_up(tmp_path: Path) -> None:
    with filled(tmp_path / "home") as history:
        manifest = back_up(tmp_path / "home", tmp_path / "home" / "images", tmp_path / "backup")
        assert (manifest.decisions, manifest.last, manifest.images) == (12, 12, 6)
        before, owed = history.page(), history.due("hook")
        history.add(many(5, begin=100))
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == [
        "backup.json",
        "history.sqlite3",
        "images",
    ]
    assert read_manifest(tmp_path / "backup") == manifest

    assert restore(tmp_path / "backup", tmp_path / "new", tmp_path / "new" / "images") == manifest
    images = KeptImages(tmp_path / "new" / "images")
    with History.open(tmp_path / "new") as again:
        assert again.page() == before
        assert again.due("hook") == owed
        assert again.verdicts(3)[0].note == "why"
        assert again.page(HistoryFilter(text="frame_000003")) == [before[8]]
        for one in before:
            assert images.read(one)[0] == (b"BM" + one.request.encode() if one.kept else None)
        # It goes on where it ended: no number is given twice, to nobody.
        added = again.add(many(5, begin=200), {"hook": "rejected"})
        assert [one.id for one in added] == [13, 14, 15, 16, 17]
        again.delivered(*(one.id for one in again.due("hook")))
        assert again.owed() == []


def test_a_backup_beside_a_server_that_writes_is_of_one_moment(tmp_path: Path) -> None:
    stop = threading.Event()
    with filled(tmp_path / "home") as history:

        def write() -> None:
            begin = 1000
            while not stop.is_set():
                history.add(many(3, begin=begin))  # always three at once
                begin += 3

        writer = threading.Thread(target=write)
        writer.start()
        try:
            manifests = [
                back_up(tmp_path / "home", tmp_path / "home" / "images", tmp_path / f"backup {place}")
                for place in range(3)
            ]
        finally:
            stop.set()
            writer.join()
    for place, manifest in enumerate(manifests):
        with History.open(tmp_path / f"backup {place}", exclusive=False) as copy:
            assert manifest.decisions % 3 == 0
            assert copy.count() == len(copy.page(limit=100_000)) == manifest.decisions


def test_an_image_that_is_removed_meanwhile_is_not_in_the_backup(tmp_path: Path) -> None:
    with filled(tmp_path / "home") as history:
        images = KeptImages(tmp_path / "home" / "images")
        gone = images.image(history.decision(2))
        assert gone is not None
        for path in gone.parent.glob(f"{gone.stem}*"):
            path.unlink()
        manifest = back_up(tmp_path / "home", tmp_path / "home" / "images", tmp_path / "backup")
    assert manifest.images == 5
    with History.open(tmp_path / "backup", exclusive=False) as copy:
        assert [one.id for one in copy.page() if one.kept] == [12, 10, 8, 6, 4]


def test_places_that_are_taken_are_refused(tmp_path: Path) -> None:
    filled(tmp_path / "home").close()
    images = tmp_path / "home" / "images"
    back_up(tmp_path / "home", images, tmp_path / "backup")
    with pytest.raises(FileError, match="exists already; name a new folder"):
        back_up(tmp_path / "home", images, tmp_path / "backup")
    with pytest.raises(HistoryError, match="there is a history already; move it away"):
        restore(tmp_path / "backup", tmp_path / "home", images)
    with (
        History.open(tmp_path / "other"),
        pytest.raises(HistoryError, match="is in use by"),
    ):
        restore(tmp_path / "backup", tmp_path / "other", images)


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is no backup of a history"):
        restore(tmp_path, tmp_path / "new", tmp_path / "images")
    with pytest.raises(HistoryError, match="there is no history"):
        back_up(tmp_path / "nothing", tmp_path / "images", tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_history_is_not_backed_up_over_a_good_one(tmp_path: Path) -> None:
    filled(tmp_path / "home", 600).close()
    file = tmp_path / "home" / "history.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        page, size = connection.execute("SELECT rootpage, (SELECT * FROM pragma_page_size) FROM sqlite_master "
                                        "WHERE name = 'decisions_by_score'").fetchone()  # fmt: skip
    content = bytearray(file.read_bytes())
    content[(page - 1) * size : page * size] = b"\xff" * size
    file.write_bytes(bytes(content))
    with pytest.raises(HistoryError, match="damaged"):
        back_up(tmp_path / "home", tmp_path / "home" / "images", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
