from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

import pytest
from pydantic import BaseModel

from blemish.errors import FileError, ModelError, UsageError
from blemish.storage.run_folder import (
    CLEARING_FILE,
    RunFolder,
    RunMark,
    refuse_contradiction,
    refuse_unwritable,
)

SETTINGS: dict[str, Any] = {"stride": 8, "weights_sha256": "ab", "scored_by": ["mean", 2]}


class Line(BaseModel):
    name: str


def run_in(folder: Path, **kind: Any) -> RunFolder:
    mark = RunMark("records.jsonl", "already holds a run; replace it with --overwrite")
    return RunFolder(folder, [mark], settings_file="settings.json", **kind)


def started(folder: Path, settings: dict[str, Any] = SETTINGS) -> RunFolder:
    """A run with one record and the file that the record vouches for."""
    run = run_in(folder)
    assert not run.claim(settings)
    (folder / "maps" / "deep").mkdir(parents=True)
    (folder / "maps" / "deep" / "a.png").touch()
    run.records("records.jsonl", Line).append(Line(name="deep/a.png"))
    return run


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_new_folder_holds_the_settings_first(tmp_path: Path) -> None:
    assert not run_in(tmp_path / "new" / "run").claim(SETTINGS)
    assert json.loads((tmp_path / "new" / "run" / "settings.json").read_text()) == SETTINGS


def test_an_earlier_run_is_refused_resumed_or_replaced(tmp_path: Path) -> None:
    run = started(tmp_path)
    with pytest.raises(UsageError) as refused:
        run_in(tmp_path).claim(SETTINGS)
    assert str(refused.value) == f"{tmp_path}: already holds a run; replace it with --overwrite"
    assert run.claim(SETTINGS, resume=True)
    assert run.records("records.jsonl", Line).records == [Line(name="deep/a.png")]
    assert not run.claim({**SETTINGS, "stride": 9}, overwrite=True)
    assert files(tmp_path) == {"settings.json", "maps", "maps/deep", "maps/deep/a.png"}
    assert json.loads((tmp_path / "settings.json").read_text())["stride"] == 9


def test_resuming_begins_where_nothing_was(tmp_path: Path) -> None:
    assert not run_in(tmp_path).claim(SETTINGS, resume=True)
    assert files(tmp_path) == {"settings.json"}


def test_both_options_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--resume goes on with what is there, --overwrite replaces it"):
        run_in(tmp_path / "run").claim(SETTINGS, resume=True, overwrite=True)
    assert not (tmp_path / "run").exists()
    for resume, overwrite in ((True, False), (False, True), (False, False)):
        refuse_contradiction(resume=resume, overwrite=overwrite)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stride": 9, "weights_sha256": "cd"}, "was made with another stride; use"),
        ({"weights_sha256": "cd"}, "was made with another weights; use"),
        ({"scored_by": ["mean", 3]}, "was made with another scored by; use"),
        ({"new": None, "size": 1}, "was made with another size; use"),
    ],
)
def test_the_first_setting_that_differs_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    run = started(tmp_path)
    before = (tmp_path / "settings.json").read_bytes()
    with pytest.raises(UsageError, match=named):
        run.claim({**SETTINGS, **change}, resume=True)
    assert (tmp_path / "settings.json").read_bytes() == before


def test_only_the_compared_settings_have_to_be_equal(tmp_path: Path) -> None:
    run = started(tmp_path)
    assert run.claim({**SETTINGS, "stride": 9}, resume=True, compared=("weights_sha256",))
    with pytest.raises(UsageError, match="another weights"):
        run.claim({**SETTINGS, "weights_sha256": "cd"}, resume=True, compared=("weights_sha256",))


def test_tuples_are_equal_to_the_lists_that_json_makes_of_them(tmp_path: Path) -> None:
    run = started(tmp_path)
    assert run.claim({**SETTINGS, "scored_by": ("mean", 2)}, resume=True)


def test_words_of_ones_own(tmp_path: Path) -> None:
    run = started(tmp_path)
    own = run_in(tmp_path, other="was drawn with another {key}", unreadable=("is no JSON", "remove it"))
    with pytest.raises(UsageError, match="was drawn with another scored_by"):
        own.claim({"scored_by": 1}, resume=True)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(FileError) as failure:
        own.claim(SETTINGS, resume=True)
    assert str(failure.value) == f"{tmp_path / 'settings.json'}: is no JSON; remove it"
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(UsageError, match="another stride"):
        run.claim(SETTINGS, resume=True)


def test_only_what_an_earlier_run_wrote_is_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.touch()
    folder = tmp_path / "run"
    run = started(folder)
    (folder / "mine.txt").touch()
    (folder / "maps" / "mine").mkdir()
    (folder / "maps" / "mine" / "b.png").touch()
    (folder / "tiles.zarr").mkdir()
    (folder / "tiles.zarr" / "0").touch()
    asked = []

    def written() -> list[str]:
        asked.append(True)
        return [
            "maps/deep/a.png",
            "tiles.zarr",
            "../outside.png",
            str(outside),
            "never.png",
            "mine.txt/below",
        ]

    run.claim(SETTINGS, resume=True, written=written)
    assert not asked
    run.claim(SETTINGS, overwrite=True, written=written, emptied=("maps", "none"))
    assert files(folder) == {"settings.json", "mine.txt", "maps", "maps/mine", "maps/mine/b.png"}
    assert outside.exists()


@pytest.mark.parametrize("stop_at", range(4))
@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {}])
def test_a_removal_that_is_stopped_is_finished_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int, how: dict[str, bool]
) -> None:
    run = started(tmp_path)
    removed: list[str] = []
    remove = run.remove

    def stopping(name: str | PurePath) -> None:
        if len(removed) == stop_at:
            raise KeyboardInterrupt
        removed.append(str(name))
        remove(name)

    monkeypatch.setattr(run, "remove", stopping)
    with pytest.raises(KeyboardInterrupt):
        run.clear(["maps/deep/a.png"])
    monkeypatch.undo()
    # Nothing vouches for a file that may be gone.
    assert removed == ["records.jsonl", "settings.json", "maps/deep/a.png"][:stop_at]
    assert not run.claim(SETTINGS, written=list, **how)
    assert not (tmp_path / "maps" / "deep" / "a.png").exists()
    assert not (tmp_path / "records.jsonl").exists()
    assert (tmp_path / "settings.json").exists()
    assert not (tmp_path / CLEARING_FILE).exists()


@pytest.mark.parametrize(
    "text", ["", "[", "{}", '{"files": 1, "folders": []}', '{"files": ["../x"], "folders": ["/"]}']
)
def test_an_edited_list_of_removals_removes_nothing_else(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "x").touch()
    (folder / CLEARING_FILE).write_text(text)
    RunFolder(folder).claim()
    assert (tmp_path / "x").exists()
    assert list(folder.iterdir()) == []


def test_a_file_that_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    run = started(tmp_path)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(
        FileError, match=r"records\.jsonl: cannot be replaced \(Permission denied\); choose another"
    ):
        run.claim(SETTINGS, overwrite=True, written=lambda: ["maps/deep/a.png"])
    assert (tmp_path / "records.jsonl").exists()


def test_a_finished_run_is_not_resumed_and_an_unfinished_one_is(tmp_path: Path) -> None:
    finished = RunMark("model.json", "already holds a finished model; pass --overwrite", resumable=False)
    unfinished = RunMark("checkpoint/state", "holds the checkpoint of an unfinished fit; go on with --resume")
    run = RunFolder(tmp_path, [finished, unfinished])
    assert not run.claim(resume=True)
    assert files(tmp_path) == set()
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "state").touch()
    assert run.claim(resume=True)
    with pytest.raises(UsageError, match="holds the checkpoint"):
        run.claim()
    (tmp_path / "model.json").touch()
    assert run.claim(
        resume=True
    )  # a model beside it is the one that an interrupted --overwrite has yet to replace
    with pytest.raises(UsageError, match="finished model"):
        run.claim()
    (tmp_path / "checkpoint" / "state").unlink()
    with pytest.raises(UsageError, match="finished model"):
        run.claim(resume=True)


def test_a_vouching_file_is_whole_or_not_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.vouch("results.json", {"auroc": 0.5})
    with pytest.raises(ValueError, match="Out of range"):
        run.vouch("results.json", {"auroc": float("nan")})
    assert json.loads((tmp_path / "results.json").read_text()) == {"auroc": 0.5}


@pytest.mark.parametrize("error", [FileError, ModelError])
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, error: type[FileError]
) -> None:
    (tmp_path / "file").touch()
    for below in ("file", "file/below/it"):
        with pytest.raises(
            error, match="file: is a file, so nothing can be written here; choose another --out"
        ):
            refuse_unwritable(tmp_path / below, error)
    with pytest.raises(error, match=r"cannot be used \(File name too long\); choose another --out"):
        refuse_unwritable("a" * 300, error)
    refuse_unwritable(tmp_path / "new" / "folder", error)
    assert not (tmp_path / "new").exists()
