from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.decision import read_records, roc_auc
from blemish.demo import run as demo
from blemish.demo.generated import FAMILIES
from blemish.demo.painting import MASKS, MODALITIES
from blemish.demo.run import (
    DEFAULT_FAMILY,
    PLANS,
    Demonstration,
    PaintingDemonstration,
    run_demo,
    run_painting_demo,
)
from blemish.errors import FileError, Stopped, UsageError
from blemish.evaluation.baselines import BASELINES
from blemish.recipes import load_recipe, override
from blemish.training.fit_settings import DEFAULT_RECIPE

pytestmark = pytest.mark.usefixtures("few_resamples")
SMALL = {"good": 8, "test_good": 3, "per_blemish": 1, "size": 64}
PAINTED = {"good": 2, "test": 2, "size": 96}
TINY = (
    "training.steps=4",
    "training.batch=4",
    "training.validate_every=2",
    "training.device=cpu",
    "training.precision=float32",
    "threshold.false_reject_rate=0.2",
)


@pytest.fixture(scope="module")
def settings(tiny: list[str]) -> tuple[str, ...]:
    return (*tiny, "threshold.false_reject_rate=0.25")


@pytest.fixture(scope="module")
def checkerboard(
    tmp_path_factory: pytest.TempPathFactory, settings: tuple[str, ...], recorder: type
) -> tuple[Demonstration, Path]:
    """A demo that was stopped and went on, and its folder; to be changed in copies alone."""
    out = tmp_path_factory.mktemp("checkerboard") / "demo"
    with pytest.raises(Stopped):
        run_demo(out, family="checkerboard", settings=settings, observer=recorder(10), **SMALL)
    return run_demo(out, family="checkerboard", settings=settings, **SMALL), out


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory, recorder: type) -> tuple[PaintingDemonstration, Path]:
    """The same of the painting."""
    out = tmp_path_factory.mktemp("painting") / "demo"
    with pytest.raises(Stopped):
        run_painting_demo(out, settings=TINY, observer=recorder(5), **PAINTED)
    return run_painting_demo(out, settings=TINY, **PAINTED), out


def test_demo_ends_in_a_report_and_is_not_repeated(
    checkerboard: tuple[Demonstration, Path], settings: tuple[str, ...], recorder: type
) -> None:
    result, out = checkerboard
    page = result.report.read_text(encoding="utf-8")
    assert result.report == out / "found" / "checkerboard" / "report.html"
    assert "ROC of images" in page
    assert set(result.evaluation.image) == {"all", "stroke", "dot"}
    assert result.evaluation.image["all"].good == 3
    assert not list((out / "images").glob(".*"))

    recorded = recorder()
    again = run_demo(out, family="checkerboard", settings=settings, observer=recorded, **SMALL)
    assert [stage.split()[0] for stage in recorded.stages] == ["Evaluating"]
    assert again.evaluation.image == result.evaluation.image
    with pytest.raises(UsageError, match="another seed; choose another --out"):
        run_demo(out, family="checkerboard", seed=1, settings=settings, **SMALL)
    with pytest.raises(UsageError, match=r"fitted with encoder\.latent 8, not 9; choose another --out"):
        run_demo(out, family="checkerboard", settings=(*settings, "encoder.latent=9"), **SMALL)


def test_the_default_recipe_is_shown_beside_what_needs_no_learning(tmp_path: Path, quick: list[str]) -> None:
    small = {"good": 40, "test_good": 6, "per_blemish": 2, "size": 128}
    result = run_demo(tmp_path, settings=quick, **small)
    assert result.detector.recipe.name == DEFAULT_RECIPE
    assert result.detector.file.preprocessing.crop is not None
    records = read_records(tmp_path / "found" / "rod" / "inspections.jsonl")
    found = sum(record.is_anomalous for record in records if record.label != "good")
    rejected = sum(record.is_anomalous for record in records if record.label == "good")
    assert (len(records), result.found) == (18, found)
    figures = result.figures()["demo"]
    assert (figures["found"], figures["defective"]) == (found, 12)
    assert (figures["rejected"], figures["good"]) == (rejected, 6)
    lines = result.in_words().splitlines()
    assert lines[0] == f"{found} of 12 defects found."
    assert lines[1].startswith(f"{rejected} of 6 good images rejected")
    assert lines[1].endswith("Promised: at most 5 % of good images.")
    assert [one.name for one in result.baselines] == list(BASELINES)
    for one in result.baselines:
        assert (one.defective, one.good) == (12, 6)
        assert f"{one.name} {one.found}" in lines[2]
        assert one.name in result.report.read_text(encoding="utf-8")


def test_every_family_has_a_plan() -> None:
    assert set(PLANS) == set(FAMILIES)
    for plan in PLANS.values():
        override(load_recipe(plan.recipe), list(plan.settings))


def test_half_drawn_images_are_drawn_again(
    tmp_path: Path, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from blemish.demo import generated

    real = generated._write_png
    drawn: list[Path] = []

    def interrupted(path: Path, image: object) -> None:
        drawn.append(path)
        if len(drawn) == 4:
            raise KeyboardInterrupt
        real(path, image)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(generated, "_write_png", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path, family="checkerboard", settings=settings, **SMALL)
    assert not (tmp_path / "images" / "checkerboard").exists()
    assert run_demo(tmp_path, family="checkerboard", settings=settings, **SMALL).report.exists()


def test_what_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="weave, checkerboard, part, rod, surface, figures, mouldings, painting"
    ):
        run_demo(tmp_path, family="cloth")
    with pytest.raises(UsageError, match="did you mean 'weave'"):
        run_demo(tmp_path, family="weaves")
    with pytest.raises(UsageError, match="did you mean 'painting'"):
        run_demo(tmp_path, family="paintings")
    with pytest.raises(FileError, match="choose another --out"):
        run_demo("a" * 300)
    mine = tmp_path / "images" / "rod" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(FileError, match="choose another --out"):
        run_demo(tmp_path, **SMALL)
    assert mine.exists()


def test_a_folder_that_cannot_be_renamed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(FileError, match=r"rod: cannot be made \(Permission denied\); choose another --out"):
        run_demo(tmp_path, **SMALL)


def test_the_painting_ends_in_a_report_and_is_not_repeated(
    painting: tuple[PaintingDemonstration, Path], recorder: type
) -> None:
    result, out = painting
    assert result.report == out / "found" / "painting" / "report.html"
    page = result.report.read_text(encoding="utf-8")
    assert "cross-modal residual of each modality" in page
    assert [record.path for record in result.records] == ["painting-000", "painting-001"]
    assert not list((out / "images").glob(".*"))
    assert set(result.auroc) == set(MASKS)
    assert all(list(found) == list(MODALITIES) for found in result.auroc.values())
    truth, cross = [], []
    for record in result.records:
        mask = out / "images" / "painting" / "test" / record.path / "masks" / "craquelure.png"
        truth.append(np.asarray(Image.open(mask)) > 0)
        cross.append(result.inspection.map(record.path, "cross")[list(MODALITIES).index("xray")])
    expected = roc_auc(np.stack(truth), np.stack(cross))
    assert result.auroc["craquelure"]["xray"] == pytest.approx(expected)
    assert f"xray {expected:.2f}" in result.in_words()
    assert result.figures()["cross_modal_auroc"] == result.auroc
    assert {mask: set(found) for mask, found in result.linear_auroc.items()} == {
        mask: set(MODALITIES) for mask in MASKS
    }
    assert result.figures()["linear_regression_auroc"] == result.linear_auroc

    recorded = recorder()
    again = run_painting_demo(out, settings=TINY, observer=recorded, **PAINTED)
    assert [stage.split()[0] for stage in recorded.stages] == ["Inspecting"]
    assert again.auroc == result.auroc
    with pytest.raises(UsageError, match="another seed; choose another --out"):
        run_painting_demo(out, seed=1, settings=TINY, **PAINTED)
    with pytest.raises(UsageError, match=r"fitted with training\.batch 4, not 5; choose another --out"):
        run_painting_demo(out, settings=(*TINY, "training.batch=5"), **PAINTED)


def test_the_command_tells_what_was_found(
    blemish: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkerboard: tuple[Demonstration, Path],
    settings: tuple[str, ...],
) -> None:
    families: list[str] = []
    shutil.copytree(checkerboard[1], tmp_path, dirs_exist_ok=True)

    def small(out: Path, family: str, **options: Any) -> Any:
        families.append(family)
        return run_demo(out, family="checkerboard", settings=settings, **options, **SMALL)

    monkeypatch.setattr(demo, "run_demo", small)
    ran = blemish("demo", "--out", tmp_path)
    assert ran.code == 0
    assert families == [DEFAULT_FAMILY]
    assert re.search(r"^\d of 2 defects found\.$", ran.out, re.MULTILINE)
    assert re.search(
        r"^\d of 3 good images rejected \(.* %\)\. Promised: at most 25 % of", ran.out, re.MULTILINE
    )
    assert f"Report: {tmp_path / 'found' / 'checkerboard' / 'report.html'}" in ran.out
    figures = json.loads(blemish("demo", "--out", tmp_path, "--json").out)
    assert figures["demo"]["good"] == figures["image"]["all"]["good"] == 3


def test_the_command_shows_what_the_painting_hides(
    blemish: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    painting: tuple[PaintingDemonstration, Path],
) -> None:
    shutil.copytree(painting[1], tmp_path, dirs_exist_ok=True)
    real = demo.run_painting_demo
    small = partial(real, settings=TINY, **PAINTED)
    monkeypatch.setattr(demo, "run_painting_demo", small)
    ran = blemish("demo", "--family", "painting", "--out", tmp_path)
    assert ran.code == 0
    assert "underdrawing  visible 0." in ran.out
    assert f"Report: {tmp_path / 'found' / 'painting' / 'report.html'}" in ran.out
    figures = json.loads(blemish("demo", "--family", "painting", "--out", tmp_path, "--json").out)
    assert set(figures) == {"cross_modal_auroc", "linear_regression_auroc", "records"}
    assert len(figures["records"]) == PAINTED["test"]
