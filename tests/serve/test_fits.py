"""Fits from the page: their states, on the disk and after a restart; ``blemish fit`` itself runs in tests/serve/page/test_fit.py."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from blemish.errors import MissingExtraError, ServeError
from blemish.inspection.detector import Detector
from blemish.serve import fits as module
from blemish.serve.confirmed_defects import JudgedParts
from blemish.serve.fit_process import FitProgress, is_alive, new_lines
from blemish.serve.fits import FitConflictError, FitNotFoundError, FitRequest, Fits, FitState
from blemish.serve.good_images import GoodImageFolder
from blemish.serve.model_versions import ModelVersions
from blemish.serve.verdicts import JudgedImage
from tests.serve.serving import png
from tests.serve.test_good_images import decision

Draw = Callable[..., NDArray[np.uint8]]
ASKED = FitRequest(model="waves", budget="1m", false_reject_rate=0.1)

PROGRAM = """
import shutil, signal, sys, time
from pathlib import Path
command, words = sys.argv[3], sys.argv[4:]
out, finished = Path(words[words.index("--out") + 1]), Path(sys.argv[1]) / command
signal.signal(signal.SIGTERM, lambda *_: (print("blemish: stopped; go on with: blemish fit", file=sys.stderr), sys.exit(1)))
print(f"beginning to {command} {words[0]}\\n  step 1 of 4, 0:03 left at most, mse 0.1, 5 images/s", file=sys.stderr, flush=True)
hold = Path(sys.argv[2])
while hold.exists():
    time.sleep(0.02)
if (Path(sys.argv[1]) / "error").exists():
    sys.exit(print("skipped a.png: is damaged; convert it\\nblemish: too few images; add some", file=sys.stderr) or 1)
shutil.copytree(finished, out, dirs_exist_ok=True)
"""
"""Does in a moment what ``blemish fit`` and ``blemish export`` do in minutes: prints lines, and leaves a model."""


class Bench:
    """Fits in a folder, with that program in place of blemish."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hold = folder / "hold"
        """While this file is there, processes wait."""
        self.changes: list[FitState] = []
        self.commands: list[list[str]] = []
        self.good = GoodImageFolder(folder / "good" / "waves", max_pixels=10_000)
        self.versions = ModelVersions(folder / "models" / "waves")
        self.judged = JudgedParts([], [])
        self.fits = self.opened()

    def opened(self) -> Fits:
        """As a server opens it."""
        return Fits(
            self.folder / "fits",
            lambda _: self.good,
            lambda _: self.versions,
            lambda _: self.judged,
            self.changes.append,
        )

    def begin(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        self.commands.append(list(command))
        with log.open("ab") as lines:
            words = [sys.executable, "-c", PROGRAM, str(self.folder / "finished"), str(self.hold), *command]
            return subprocess.Popen(words, stderr=lines, start_new_session=True)

    def wait(self, number: int, state: str, fits: Fits | None = None) -> FitState:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            found = (fits or self.fits).fit(number)
            if found.state == state:
                return found
            time.sleep(0.02)
        raise AssertionError(f"fit {number} is {found.state}, not {state}: {found.progress}")

    def wait_for_line(self, number: int) -> None:
        until = time.monotonic() + 20
        while self.fits.fit(number).progress.total != 4:
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.fixture
def bench(
    tmp_path: Path,
    fitted: tuple[Detector, Path],
    exported: tuple[Detector, Path],
    draw: Draw,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    (tmp_path / "finished").mkdir()
    (tmp_path / "finished" / "fit").symlink_to(fitted[1])
    (tmp_path / "finished" / "export").symlink_to(exported[1])
    found = Bench(tmp_path)
    for number in range(4):
        found.good.add(png(draw(number)), f"{number}.png")
    monkeypatch.setattr(module, "begin", found.begin)
    yield found
    found.hold.unlink(missing_ok=True)
    found.fits.close()


def test_a_fit_becomes_a_version_that_does_not_run_yet(bench: Bench, exported: tuple[Detector, Path]) -> None:
    bench.versions.adopt(exported[0].with_false_reject_rate(0.5).save(bench.folder / "first"))
    begun = bench.fits.start(ASKED)
    assert (begun.id, begun.state, begun.images) == (1, "running", 4)
    found = bench.wait(1, "finished")
    assert found.version == 2
    assert bench.versions.version(2).origin == "fit 1"
    assert bench.versions.running() == bench.versions.version(1)
    folder = bench.folder / "fits" / "1"
    assert bench.commands == [
        ["fit", str(folder / "good"), "--out", str(folder / "model"), "--resume", "--budget", "1m", "--false-reject-rate", "0.1"],
        ["export", str(folder / "model"), str(folder / "good"), "--out", str(folder / "exported"), "--overwrite"],
    ]  # fmt: skip
    assert bench.changes[-1].state == "finished"
    assert {change.step for change in bench.changes} == {"fit", "export"}
    assert not found.can_resume
    with pytest.raises(FitConflictError, match="fit 1 is finished"):
        bench.fits.resume(1)


def test_confirmed_defects_choose_and_images_for_tests_stay_unseen(bench: Bench, draw: Draw) -> None:
    def judged(number: int, label: str) -> JudgedImage:
        content = png(draw(number, dot=label != "good"))
        path = bench.folder / f"{number}.png"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return JudgedImage(
            decision(number, rejected=True).model_copy(update={"image_sha256": digest}), label, path
        )

    asked = ASKED.model_copy(update={"use_defects": True})
    defects = [judged(number, "../dent" if number % 2 else "scratch") for number in range(50, 56)]
    seen_as_good = judged(57, "dent")
    bench.good.add(seen_as_good.image.read_bytes(), "57.png")
    bench.judged = JudgedParts([*defects[:4], seen_as_good], [judged(0, "good")])
    with pytest.raises(
        FitConflictError, match="there are 4 confirmed defects of waves to choose by; judge more, 5 at"
    ):
        bench.fits.start(asked)
    assert list(bench.fits.folder.glob("*")) == []
    bench.judged = bench.judged._replace(to_choose=[*defects, seen_as_good])
    with pytest.raises(FitConflictError, match="ssim-ae has nothing for defects to choose from"):
        bench.fits.start(asked.model_copy(update={"recipe": "ssim-ae"}))
    begun = bench.fits.start(asked)
    bench.wait(1, "finished")
    folder = bench.folder / "fits" / "1"
    words = bench.commands[0]
    assert words[words.index("--defects") + 1] == str(folder / "defects")
    copied = {path.relative_to(folder / "defects").as_posix() for path in (folder / "defects").rglob("*.png")}
    assert copied == {f"{'dent' if number % 2 else 'scratch'}/{number:09}.png" for number in range(50, 56)}
    # Five good images were collected, and one of them is for tests.
    assert (begun.images, begun.defects, len(list((folder / "good").iterdir()))) == (4, 6, 4)
    bench.fits.start(ASKED)
    bench.wait(2, "finished")
    assert not any("--defects" in command for command in bench.commands[2:])


def test_one_fit_at_a_time_with_its_progress(bench: Bench) -> None:
    bench.hold.touch()
    bench.fits.start(ASKED)
    bench.wait_for_line(1)
    progress = bench.fits.fit(1).progress
    assert (progress.stage, progress.done, progress.total) == ("beginning to fit good", 1, 4)
    with pytest.raises(FitConflictError, match="fit 1 runs; wait for its end, or stop it"):
        bench.fits.start(ASKED)
    bench.hold.unlink()
    bench.wait(1, "finished")
    bench.fits.start(ASKED)
    bench.wait(2, "finished")
    assert [fit.id for fit in bench.fits.all()] == [2, 1]


def test_good_images_that_come_meanwhile_are_not_in_the_fit(bench: Bench, draw: Draw) -> None:
    bench.hold.touch()
    bench.fits.start(ASKED)
    bench.good.add(png(draw(9)), "9.png")
    assert len(list((bench.folder / "fits" / "1" / "good").iterdir())) == 4
    bench.good.clear()
    assert len(list((bench.folder / "fits" / "1" / "good").iterdir())) == 4


def test_a_fit_is_stopped_and_resumed(bench: Bench) -> None:
    bench.hold.touch()
    bench.fits.start(ASKED)
    bench.wait_for_line(1)
    bench.fits.stop(1)
    stopped = bench.wait(1, "stopped")
    assert stopped.can_resume
    assert stopped.progress.error is None
    with pytest.raises(FitConflictError, match="there is nothing to stop"):
        bench.fits.stop(1)
    bench.hold.unlink()
    bench.fits.resume(1)
    assert bench.wait(1, "finished").version == 1


def test_a_fit_that_fails_has_the_line_of_blemish(bench: Bench) -> None:
    (bench.folder / "finished" / "error").touch()
    bench.fits.start(ASKED)
    failed = bench.wait(1, "failed")
    assert failed.progress.error == "too few images; add some"
    assert failed.progress.problems == ["a.png: is damaged; convert it"]
    assert bench.versions.all() == []


def test_a_fit_is_found_again_after_the_server_was_killed(bench: Bench) -> None:
    bench.hold.touch()
    bench.fits.start(ASKED)
    bench.wait_for_line(1)
    again = bench.opened()  # the first is as good as killed: nobody asked it to close
    found = again.fit(1)
    assert found.state == "running"
    bench.hold.unlink()
    assert bench.wait(1, "finished", again).version == 1
    again.close()


def test_a_fit_that_ended_with_its_server_can_be_resumed(bench: Bench) -> None:
    bench.hold.touch()
    bench.fits.start(ASKED)
    bench.wait_for_line(1)
    state = bench.folder / "fits" / "1" / "fit.json"
    running = json.loads(state.read_text())
    bench.fits.close()
    state.write_text(
        json.dumps({**running, "process": 2**22 + 1})
    )  # as before the kill, of a process that is gone
    again = bench.opened()
    assert bench.wait(1, "interrupted", again).can_resume
    bench.hold.unlink()
    again.resume(1)
    bench.wait(1, "finished", again)
    again.close()


def test_closing_leaves_a_fit_to_be_resumed(bench: Bench) -> None:
    bench.hold.touch()
    bench.fits.start(ASKED)
    bench.wait_for_line(1)
    bench.fits.close()
    assert bench.fits.fit(1).state == "interrupted"
    assert json.loads((bench.folder / "fits" / "1" / "fit.json").read_text())["state"] == "interrupted"


def test_a_warm_start_goes_on_from_the_fit_of_the_running_version(bench: Bench) -> None:
    asked = ASKED.model_copy(update={"warm_start": True})
    with pytest.raises(ServeError, match="was made by no fit on this page"):
        bench.fits.start(asked)
    bench.fits.start(ASKED)
    bench.wait(1, "finished")
    bench.versions.promote(1)
    assert bench.fits.start(asked).warm_start == "1"
    bench.wait(2, "finished")
    words = bench.commands[2]
    assert words[words.index("--continue") + 1] == str(bench.folder / "fits" / "1" / "model")


def test_a_fit_needs_images_and_torch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.good.clear()
    with pytest.raises(FitConflictError, match="there are 0 good images of waves"):
        bench.fits.start(ASKED)
    with pytest.raises(FitNotFoundError, match="there is no fit 5"):
        bench.fits.fit(5)
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(
        MissingExtraError, match=r"a fit needs torch, which this machine lacks; .*train,export"
    ):
        bench.fits.start(ASKED)
    assert not module.availability().is_available


@pytest.mark.parametrize(
    "wrong",
    [{"budget": "long"}, {"budget": "-1m"}, {"recipe": "/etc/passwd"}, {"recipe": "nonsense"}, {"settings": ["a"]}, {"false_reject_rate": 1.0}],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FitRequest.model_validate({"model": "waves", **wrong})


def test_progress_is_read_from_the_lines_of_the_command() -> None:
    progress = FitProgress()
    for line in (
        "reading 4 images\n",
        "  2 of 4, 0:01 left\n",
        "skipped b.png: is damaged; convert it\n",
        "training\n",
    ):
        progress.take(line)
    assert (progress.stage, progress.done, progress.problems) == (
        "training",
        None,
        ["b.png: is damaged; convert it"],
    )
    progress.take("  step 7 of 9, 0:01 left at most, ssim 0.1234, held out 0.2 (best 0.1), 12 images/s\n")
    assert (progress.done, progress.total) == (7, 9)
    progress.take("blemish: finished, but 1 file was skipped, see above\n")
    progress.take("blemish: stopped after step 3; go on with: blemish fit good --out model --resume\n")
    assert progress.error is None
    progress.take("blemish: the disk is full; free some space\n")
    assert progress.error == "the disk is full; free some space"


def test_only_whole_lines_are_read(tmp_path: Path) -> None:
    log = tmp_path / "fit.log"
    assert list(new_lines(log, 0)) == []
    log.write_bytes(b"one\ntwo\nthr")
    assert list(new_lines(log, 0)) == [("one\n", 4), ("two\n", 8)]
    log.write_bytes(b"one\ntwo\nthree\n")
    assert list(new_lines(log, 8)) == [("three\n", 14)]


def test_another_process_with_that_number_is_none(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        assert not is_alive(other.pid, tmp_path)
    finally:
        other.kill()
        other.wait()
    assert not is_alive(other.pid, tmp_path)
