from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from blemish._version import __version__
from blemish.decision import read_records
from blemish.errors import ImageError
from blemish.inspection.detector import Detector, load
from blemish.observer import Observer
from blemish.recipes import recipe_names
from blemish.storage.run_lock import owned
from studies import StudyResult

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("few_resamples")

COMMANDS = ["demo", "fit", "inspect", "evaluate", "compare", "recipes", "study", "checks"]


# -- help and wrong usage ------------------------------------------------------------------------------


def test_help_names_every_command(blemish: Run) -> None:
    ran = blemish("--help")
    assert ran.code == 0
    assert all(re.search(rf"\b{name}\b", ran.out) for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_in_its_help(blemish: Run, command: str) -> None:
    ran = blemish(command, "--help")
    assert ran.code == 0
    assert re.search(rf"Examples?:\s+blemish {command}", ran.out)
    assert "--json" in ran.out


def test_version(blemish: Run) -> None:
    assert blemish("--version").out == f"blemish {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["fti"],
        ["fit"],
        ["fit", "good"],
        ["inspect", "model", "parts"],
        ["inspect", "model", "parts", "--out", "found", "--colour"],
        ["inspect", "model", "parts", "--out", "found", "--threshold", "high"],
        ["inspect", "model", "parts", "--out", "found", "--false-reject-rate", "5"],
    ],
)
def test_wrong_usage_ends_with_2(blemish: Run, words: list[str]) -> None:
    ran = blemish(*words)
    assert ran.code == 2
    assert ran.out == ""
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "sim-ae"], "unknown recipe 'sim-ae'; did you mean 'ssim-ae'?"),
        (["--set", "training.step=9"], "unknown key 'training.step'; did you mean 'training.steps'?"),
        (["--set", "training.steps=many"], "training.steps"),
        (["--set", "training.steps"], "write it as key=value"),
        (["--set", "encoder.latnt=9"], "did you mean 'latent'?"),
        (["--false-reject-rate", "0"], "--false-reject-rate 0: choose a number between 0 and 1"),
        (["--resume", "--overwrite"], "give one"),
        (
            ["--budget", "5 parsecs"],
            "--budget 5 parsecs: write seconds, minutes or hours, such as 90s, 5m or 1h",
        ),
    ],
)
def test_settings_that_cannot_work(
    blemish: Run, good: Path, tmp_path: Path, tiny_options: list[str], options: list[str], words: str
) -> None:
    ran = blemish("fit", good, "--out", tmp_path / "model", *tiny_options, *options)
    assert ran.code == 2
    assert words in ran.error
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("command", [["inspect", "model"], ["jpeg", "encode"]])
def test_parts_are_copied_of_archives_alone(
    blemish: Run, good: Path, tmp_path: Path, command: list[str]
) -> None:
    ran = blemish(*command, good, "--out", tmp_path / "found", "--parts", tmp_path / "copy")
    assert ran.code == 2
    assert "for archives; give --on too" in ran.error


def test_two_decision_options_exclude_each_other(
    blemish: Run, model: Path, good: Path, tmp_path: Path
) -> None:
    ran = blemish(
        "inspect", model, good, "--out", tmp_path / "f", "--threshold", 1, "--false-reject-rate", 0.5
    )
    assert (ran.code, "give one" in ran.error) == (2, True)


# -- fit -----------------------------------------------------------------------------------------------


def test_fit_makes_a_model_although_an_image_is_bad(
    blemish: Run, good: Path, tmp_path: Path, tiny_options: list[str], detector: Detector
) -> None:
    images = Path(shutil.copytree(good, tmp_path / "good"))
    (images / "bad.png").write_bytes(b"")
    ran = blemish("fit", images, "--out", tmp_path / "model", *tiny_options)
    assert ran.code == 1
    assert ran.skipped == [
        f"skipped {images / 'bad.png'}: is empty (0 bytes); save it again from its source, or remove it"
    ]
    assert "1 file was skipped" in ran.error
    # The bad image changes nothing of what is learned from the others.
    assert load(tmp_path / "model").file.weights_sha256 == detector.file.weights_sha256
    assert detector.guarantee in ran.out
    again = blemish("fit", images, "--out", tmp_path / "model", *tiny_options)
    assert again.code == 2
    assert "choose another --out or pass --overwrite" in again.error


def test_too_few_images_end_with_2_before_training(
    blemish: Run, good: Path, tmp_path: Path, tiny_options: list[str]
) -> None:
    ran = blemish("fit", good, "--out", tmp_path / "model", *tiny_options, "--false-reject-rate", 0.01)
    assert ran.code == 2
    assert "at least 198 good images, or pass --false-reject-rate 0.077" in ran.error
    assert "Training" not in ran.err


def test_ctrl_c_while_fitting_prints_the_command_to_resume(
    blemish: Run, good: Path, tmp_path: Path, tiny_options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from blemish.cli.console import ConsoleObserver

    def stage(observer: ConsoleObserver, text: str) -> None:
        show(observer, text)
        if text.startswith("Training"):
            os.kill(os.getpid(), signal.SIGINT)

    show = ConsoleObserver.stage
    out = tmp_path / "my model"
    words = ["fit", str(good), "--out", str(out), *tiny_options, "--set", "training.steps=12"]
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(ConsoleObserver, "stage", stage)
        ran = blemish(*words)
    assert signal.getsignal(signal.SIGINT) is before
    assert ran.code == 1
    last = ran.err.splitlines()[-1]
    stopped = re.fullmatch(r"blemish: stopped at step (\d+) of 12; go on with: blemish (.*)", last)
    assert stopped, ran.err
    assert not (out / "model.json").exists()
    assert shlex.split(stopped[2]) == [*words, "--resume"]
    ran = blemish(*shlex.split(stopped[2]))
    assert ran.code == 0
    assert load(out).file.training.steps == 12


@pytest.mark.parametrize(("asked", "goes_on"), [(2, "--overwrite"), (26, "--resume")])
def test_the_command_to_resume_a_replacement_works(
    blemish: Run,
    good: Path,
    model: Path,
    tiny_options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    asked: int,
    goes_on: str,
) -> None:
    """Stopped while reading there is no checkpoint to go on from; stopped while training there is."""
    from blemish.cli.console import ConsoleObserver

    words = ["fit", str(good), "--out", str(model), *tiny_options, "--set", "training.seed=3"]
    answers = iter([False] * asked)
    with monkeypatch.context() as patch:
        patch.setattr(ConsoleObserver, "should_stop", lambda _: next(answers, True))
        ran = blemish(*words, "--overwrite")
    assert ran.code == 1
    line = ran.error.split("go on with: blemish ")[1]
    assert shlex.split(line) == [*words, goes_on]
    assert blemish(*shlex.split(line)).code == 0
    assert load(model).recipe.training.seed == 3


def test_an_interrupt_ends_with_one_line(
    blemish: Run, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("blemish.training.fit.fit", interrupted)
    ran = blemish("fit", good, "--out", tmp_path / "model")
    assert ran.code == 1
    assert ran.error == "blemish: interrupted; what was finished is on disk"
    assert ran.err.splitlines() == [ran.error]


@pytest.mark.parametrize("words", [["demo"], ["study", "bergmann2018"]])
def test_skipped_files_end_the_demo_and_studies_with_1(
    blemish: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    problem = ImageError(tmp_path / "a.png", "is empty", "remove it")

    def run(*_: object, observer: Observer, **__: object) -> Any:
        observer.problem(problem)
        return MagicMock()

    monkeypatch.setattr("blemish.demo.run.run_demo", run)
    monkeypatch.setattr("studies.run_study", lambda *_, **options: run(**options) and StudyResult({}, "", ()))
    ran = blemish(*words, "--out", tmp_path)
    assert ran.code == 1
    assert ran.skipped == [f"skipped {problem}"]
    assert ran.error == "blemish: finished, but 1 file was skipped, see above"


# -- figures -------------------------------------------------------------------------------------------


def test_json_is_all_that_is_on_standard_output(
    blemish: Run, good: Path, dataset: Path, tmp_path: Path, tiny_options: list[str], detector: Detector
) -> None:
    model = tmp_path / "model"
    fit = json.loads(blemish("fit", good, "--out", model, *tiny_options, "--json").out)
    assert fit["threshold"] == detector.threshold
    assert fit["guarantee"] == detector.guarantee
    ran = blemish("inspect", model, good, "--out", tmp_path / "found", "--json")
    assert ran.err == ""
    records = {record["path"]: record for record in json.loads(ran.out)}
    assert [records[name]["score"] for name in detector.file.split["calibration"]] == list(
        detector.file.calibration.scores
    )
    on_disk = read_records(tmp_path / "found" / "inspections.jsonl")
    assert {record.path: record.score for record in on_disk} == {
        path: record["score"] for path, record in records.items()
    }
    evaluation = json.loads(blemish("evaluate", model, dataset, "--json").out)
    assert evaluation["image"]["all"]["good"] == 4
    recipes = json.loads(blemish("recipes", "--json").out)
    assert {"l2-ae", "ssim-ae"} <= {recipe["name"] for recipe in recipes}
    checks = json.loads(blemish("checks", "--json").out)
    assert {"name", "found", "ok", "remedy", "mend"} == set(checks[0])


def test_a_fit_with_a_budget_and_a_warm_start(
    blemish: Run, good: Path, model: Path, tmp_path: Path, draw: Any, save: Any
) -> None:
    more = Path(shutil.copytree(good, tmp_path / "more"))
    for seed in range(5):
        save(more / f"new {seed}.png", draw(800 + seed))
    ran = blemish("fit", more, "--continue", model, "--budget", "0.3s", "--out", tmp_path / "newer", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["training"]["budget"] == 0.3
    newer = load(tmp_path / "newer")
    assert [one.weights_sha256 for one in newer.file.lineage] == [load(model).file.weights_sha256]
    ran = blemish("fit", more, "--continue", model, "--recipe", "l2-ae", "--out", tmp_path / "other")
    assert (ran.code, "leave --recipe out" in ran.error) == (2, True)
    ran = blemish("fit", more, "--continue", tmp_path / "none", "--out", tmp_path / "other")
    assert ran.error.startswith(f"blemish: {tmp_path / 'none'}: does not exist; give the folder")
    assert not (tmp_path / "other").exists()


def test_the_decision_can_be_changed_at_inspection(
    blemish: Run, model: Path, good: Path, tmp_path: Path, detector: Detector
) -> None:
    looser = blemish("inspect", model, good, "--out", tmp_path / "a", "--false-reject-rate", 0.5)
    assert looser.code == 0
    assert "at most 50 %" in looser.out
    by_hand = blemish("inspect", model, good, "--out", tmp_path / "b", "--threshold", 0)
    assert by_hand.out.startswith("24 of 24 images rejected. The threshold 0 was set by hand")
    strict = blemish("inspect", model, good, "--out", tmp_path / "c", "--false-reject-rate", 0.01)
    assert strict.code == 2
    assert "99 or more good images" in strict.error
    assert not (tmp_path / "c").exists()


def test_evaluate_prints_figures_and_writes_only_when_asked(
    blemish: Run, model: Path, dataset: Path, tmp_path: Path
) -> None:
    ran = blemish("evaluate", model, dataset)
    assert ran.code == 0
    assert "AUPRO" in ran.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    ran = blemish("evaluate", model, dataset, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "report.html").exists()
    ran = blemish("evaluate", model, dataset, "--out", tmp_path / "out")
    assert (ran.code, "--overwrite" in ran.error) == (2, True)


def test_compare(blemish: Run, dataset: Path, tmp_path: Path, tiny: list[str]) -> None:
    settings = [word for key in [*tiny, "threshold.false_reject_rate=0.2"] for word in ("--set", key)]
    words = ["compare", dataset, "--recipes", "l2-ae", "--out", tmp_path / "out", *settings]
    ran = blemish(*words, "--json")
    assert [run["recipe"] for run in json.loads(ran.out)["runs"]] == ["l2-ae"]
    assert "l2-ae" in blemish(*words).out
    ran = blemish(*words, "--seeds", "one")
    assert (ran.code, "whole numbers" in ran.error) == (2, True)


def test_checks_end_with_1_when_something_is_missing(blemish: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = blemish("checks")
    assert ran.code == 0
    assert all(line.startswith("ok") for line in ran.out.splitlines())
    from importlib import metadata

    real = metadata.version

    def version(name: str) -> str:
        if name == "scipy":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr("blemish.checks.metadata.version", version)
    ran = blemish("checks")
    assert ran.code == 1
    (line,) = [line for line in ran.out.splitlines() if not line.startswith("ok")]
    assert re.fullmatch(r"--  scipy +missing; type: pip install 'scipy'", line)


def test_checks_without_torch_say_what_asks_for_it(blemish: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import util

    real = util.find_spec
    monkeypatch.setattr("blemish.checks.util.find_spec", lambda name: None if name == "torch" else real(name))
    ran = blemish("checks")
    assert ran.code == 0  # exported models are inspected without torch
    (line,) = [line for line in ran.out.splitlines() if line.startswith("ok  torch ")]
    assert re.search(r"not installed; only .* for it: .*pip install -e '\.\[train\]'", line)
    assert "Training would run on" not in ran.out


def test_recipes_name_their_papers(blemish: Run) -> None:
    ran = blemish("recipes")
    assert ran.code == 0
    assert re.search(r"^ssim-ae +SSIM autoencoder\..*arXiv:1807\.02011", ran.out, re.MULTILINE)


def test_recipes_name_what_they_need(blemish: Run) -> None:
    found = {recipe["name"]: recipe for recipe in json.loads(blemish("recipes", "--json").out)}
    assert set(found) == set(recipe_names())
    lines = blemish("recipes").out.splitlines()
    assert [line.split()[0] for line in lines] == list(recipe_names())
    for line in lines:
        recipe = found[line.split()[0]]
        assert recipe["paper"] in line
        assert line.endswith(f"Needs: {', '.join(recipe['needs'])}.")


def test_a_study_receives_the_options(blemish: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def run(name: str, out: Path, **options: Any) -> StudyResult:
        asked.update(options, name=name, out=out)
        return StudyResult({"rows": []}, "| a table |", (out / "kumar2025.json",))

    monkeypatch.setattr("studies.run_study", run)
    words = ["study", "kumar2025", "--data", tmp_path / "screw", "--out", tmp_path, "--seeds", "0,2"]
    ran = blemish(*words, "--set", "training.steps=5", "--set", "image.size=64")
    assert ran.out == f"| a table |\nWritten: {tmp_path / 'kumar2025.json'}\n"
    assert (asked["name"], asked["data"], asked["quick"]) == ("kumar2025", tmp_path / "screw", False)
    assert (asked["seeds"], asked["settings"]) == ([0, 2], ["training.steps=5", "image.size=64"])
    assert json.loads(blemish(*words, "--quick", "--json").out) == {"rows": []}
    assert asked["quick"] is True
    blemish("study", "kumar2025")
    assert (asked["data"], asked["seeds"], asked["out"]) == (None, None, Path("studies/results"))
    ran = blemish("study", "kumar2025", "--seeds", "one")
    assert (ran.code, "whole numbers" in ran.error) == (2, True)


def test_unknown_study(blemish: Run, tmp_path: Path) -> None:
    ran = blemish("study", "bergman", "--out", tmp_path)
    assert ran.code == 2
    assert "did you mean 'bergmann2018'?" in ran.error


def test_a_folder_without_a_model_is_refused(blemish: Run, good: Path, tmp_path: Path) -> None:
    ran = blemish("inspect", good, good, "--out", tmp_path / "found")
    assert ran.code == 1
    assert ran.error.startswith(f"blemish: {good}: holds no model.json")


def test_warnings_of_pillow_are_not_shown(blemish: Run) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        blemish("--version")
        warnings.warn_explicit(
            "Corrupt EXIF data", UserWarning, "TiffImagePlugin.py", 1, "PIL.TiffImagePlugin"
        )
    assert shown == []


# -- what no function foresaw --------------------------------------------------------------------------

BLEMISH = [sys.executable, "-m", "blemish"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["fit", "images", "--out", ""], "the argument '' after --out is empty"),
        (["fit", "", "--out", "model"], "the argument '' after fit is empty"),
        (["jpeg", "encode", "images", "--out="], "the argument '--out=' is empty"),
    ],
)
def test_an_empty_argument_is_no_folder(
    blemish: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = blemish(*words)
    assert ran.code == 2
    assert named in ran.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory; use smaller images"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory; use smaller"),
        (OSError(28, "No space left on device", "a.png"), "a.png: No space left on device; check the disk"),
        (ZeroDivisionError("division\nby zero"), r"unexpected ZeroDivisionError at test_app.py:"),
    ],
)
def test_an_unexpected_error_is_one_line_that_says_how_to_report_it(
    blemish: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("blemish.recipes.recipe_names", fail)
    ran = blemish("recipes")
    assert ran.code == 1
    assert words in ran.error
    if isinstance(error, ZeroDivisionError):
        assert "division\\nby zero; this is a defect of Blemish: please report it" in ran.error
        monkeypatch.setenv("BLEMISH_TRACEBACK", "1")
        assert "Traceback" in blemish("recipes").err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_results_that_cannot_be_printed_are_reported() -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [*BLEMISH, "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ran.returncode == 1
    assert (
        ran.stderr
        == "blemish: standard output: No space left on device; check the disk, the path and its permissions\n"
    )


def test_names_are_printed_where_the_system_knows_ascii_alone(tmp_path: Path) -> None:
    (tmp_path / "ü.png").write_bytes(b"no image")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [*BLEMISH, "jpeg", "encode", str(tmp_path), "--out", str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 1
    assert b"Traceback" not in ran.stderr
    assert rb"\udcc3\udcbc.png" in ran.stderr
    assert b"set PYTHONUTF8=1" in ran.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_end_leaves_a_checkpoint_to_resume_from(
    good: Path, tmp_path: Path, tiny_options: list[str], number: signal.Signals
) -> None:
    out = tmp_path / "model"
    words = ["fit", str(good), "--out", str(out), *tiny_options, "--set", "training.steps=100000"]
    with subprocess.Popen([*BLEMISH, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Training"):
                time.sleep(1)
                process.send_signal(number)
                break
        rest = process.stderr.read()
    assert process.returncode == 1
    assert re.search(
        r"blemish: stopped at step \d+ of 100000; go on with: blemish fit .* --resume\n$", rest
    ), rest
    assert (out / "checkpoint" / "state.json").exists()
    assert not (out / ".blemish.lock").exists()


SETTINGS = [
    "training.steps=99999999999999999999999",
    "training.seed=18446744073709551616",
    "patch.size=100000",
    "image.size=1000000",
    "encoder.latent=1000000000",
    "corruption=[{name: blocks, size: 24, count: 1000000000}]",
    "score.sigma=1e300",
    "score.sigma=1e6",
    "training.batch=1000000000",
    "training.batch=60000",
    "training.patience=1e300",
    "training.learning_rate=.inf",
    "image.channels=1000000000",
    "training.budget=1e300",
    "name=../../elsewhere",
    "name=''",
    "training.seed=" + "[" * 5000,
]


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting[:40] for setting in SETTINGS])
def test_absurd_settings_are_refused_before_any_work(
    blemish: Run, good: Path, tmp_path: Path, setting: str
) -> None:
    ran = blemish("fit", good, "--recipe", "ssim-ae", "--out", tmp_path / "model", "--set", setting)
    assert ran.code == 2
    assert "unexpected" not in ran.error
    assert "Reading" not in ran.err
    assert not (tmp_path / "model").exists()


def test_a_recipe_is_not_named_like_a_path(blemish: Run, dataset: Path, tmp_path: Path) -> None:
    text = resources.files("blemish.recipes").joinpath("ssim-ae.yaml").read_text(encoding="utf-8")
    for name in ("PWNCMP/evil", "../../evil", ".", "a\\\\b", "a\\tb"):
        (tmp_path / "evil.yaml").write_text(
            re.sub(r"(?m)^name: .*$", f'name: "{name}"', text), encoding="utf-8"
        )
        ran = blemish("compare", dataset, "--recipes", tmp_path / "evil.yaml", "--out", tmp_path / "cmp")
        assert ran.code == 2
        assert "is no name: write at most" in ran.error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.yaml"]


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "{good}", "--recipe", "ssim-ae"],
        ["fit", "{good}", "--recipe", "ssim-ae", "--overwrite"],
        ["inspect", "{model}", "{good}"],
        ["inspect", "{model}", "{good}", "--resume"],
        ["evaluate", "{model}", "{dataset}"],
        ["features", "{model}", "{good}"],
        ["calibrate", "{model}", "{good}"],
        ["compare", "{dataset}", "--recipes", "l2-ae"],
        ["jpeg", "encode", "{good}"],
        ["jpeg", "evaluate", "{good}"],
        ["jpeg", "fit", "{good}", "--recipe", "jpeg-lstm"],
    ],
    ids=" ".join,
)
def test_no_command_writes_into_a_folder_that_another_run_owns(
    blemish: Run, good: Path, model: Path, dataset: Path, tmp_path: Path, words: list[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    given = [word.format(good=good, model=model, dataset=dataset) for word in words]
    with owned(out):
        ran = blemish(*given, "--out", out)
    assert ran.code == 2
    assert re.search(r"out: is in use by .* \(process \d+ on .*, since .*\); wait for its end", ran.error)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_images_are_not_replaced_in_a_folder_that_another_run_owns(
    blemish: Run, tmp_path: Path, draw: Callable[..., Any], save: Callable[..., Path]
) -> None:
    save(tmp_path / "photos" / "a.jpg", draw(0))
    with owned(tmp_path / "photos"):
        ran = blemish("jpeg", "encode", tmp_path / "photos", "--in-place")
    assert ran.code == 2
    assert "photos: is in use by" in ran.error
