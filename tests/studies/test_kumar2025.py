"""The twelve rows of Kumar et al. 2025: the published tables, and runs of the smallest length."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blemish.errors import FileError, Stopped, UsageError
from blemish.recipes import load_recipe, override
from blemish.storage.training_record import Machine
from blemish.training.try_recipe import check_recipe
from studies import kumar2025, protocol, run_study
from studies.kumar2025 import PUBLISHED, RECIPES, Extension, Length, Variation, published_category
from studies.refit import refit
from studies.supplement import page_of

pytestmark = pytest.mark.usefixtures("plain_layout")

# (good, defective) test images of MVTec AD.
TESTED = {"hazelnut": (40, 70), "bottle": (20, 63), "pill": (26, 141), "screw": (41, 119), "tile": (33, 84)}
FEW = ("dae-mse", "cae-ssim", "dae-vgg16-mse")
TINY = Length(
    images={"good": 12, "test_good": 2, "per_blemish": 1, "size": 64},
    settings=(
        "training.batch=8",
        "training.validate_every=1",
        "training.device=cpu",
        "training.precision=float32",
        "image.size=32",
        "patch.size=32",
        "patch.stride=32",
    ),
    encoders={"kumar": ("training.steps=2",), "vgg16": ("training.steps=1",)},
    seeds=(0, 1),
    pretrained_seeds=(1,),
    varied=("dae-mse", "cae-ssim"),
)
VARIED = (
    Variation("noise", "corruption.0.sigma", (2,), ("dae-mse",)),
    Variation("latent", "bottleneck.0.latent", (0.25,), ("cae-ssim",)),
)


@pytest.fixture
def tiny_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, narrow_vgg16: None) -> None:
    monkeypatch.setattr(kumar2025, "RECIPES", FEW)
    monkeypatch.setattr(kumar2025, "FULL", TINY)
    monkeypatch.setattr(kumar2025, "WITHOUT_GPU", TINY)
    monkeypatch.setattr(kumar2025, "QUICK", TINY._replace(varied=(), seeds=(0,), pretrained_seeds=(0,)))
    monkeypatch.setattr(kumar2025, "VARIATIONS", VARIED)
    monkeypatch.delenv("BLEMISH_WEIGHTS", raising=False)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "no-hub"))


@pytest.fixture
def screw(dataset: Path, tmp_path: Path) -> Path:
    """A data set by the name of a published category."""
    return Path(shutil.copytree(dataset, tmp_path / "mvtec_screw"))


def test_there_are_twelve_rows_and_each_is_a_recipe_of_the_paper() -> None:
    assert len(set(RECIPES)) == 12
    for name in RECIPES:
        recipe = load_recipe(name)
        assert recipe.paper.startswith("Kumar, Malik, Puglisi 2025")
        assert recipe.threshold.rule == "train-mean"
        assert recipe.image.size == recipe.patch.size == recipe.patch.stride == 256
        assert recipe.residual.name == recipe.loss[0].name == name.rsplit("-", 1)[1]
        assert (recipe.encoder.name == "kumar") == (len(name.split("-")) == 2)


@pytest.mark.parametrize("category", sorted(TESTED))
def test_published_accuracy_is_that_of_the_two_published_ratios(category: str) -> None:
    """A slip in copying would show here; the paper's own rounding leaves 0.04 in one cell."""
    good, defective = TESTED[category]
    for row in PUBLISHED[category].values():
        right = row.good_accepted * good + row.bad_rejected * defective
        assert row.accuracy == pytest.approx(right / (good + defective), abs=0.045)


def test_best_published_accuracy_on_screws() -> None:
    best = max(PUBLISHED["screw"], key=lambda recipe: PUBLISHED["screw"][recipe].accuracy)
    assert (best, PUBLISHED["screw"][best].accuracy) == ("dae-vgg16-ssim", 0.76)


@pytest.mark.parametrize(
    ("folder", "category"),
    [("mvtec_screw", "screw"), ("Screw", "screw"), ("MVTec-AD tile", "tile"), ("pill_small", "pill"),
     ("magnetic_tile", None), ("screws", None), (None, None)],
)  # fmt: skip
def test_the_category_is_that_of_the_folder(folder: str | None, category: str | None) -> None:
    assert published_category(folder) == category


@pytest.mark.usefixtures("tiny_study")
def test_all_rows_beside_the_published_ones(
    screw: Path, tmp_path: Path, recorder: Callable[..., Any], without_drawings: Callable[..., None]
) -> None:
    out = tmp_path / "out"
    result = run_study("kumar2025", out, data=screw, settings=["training.learning_rate=0.002"])
    stem = "kumar2025-mvtec_screw"
    assert [path.relative_to(out).as_posix() for path in result.files] == [
        f"{stem}.json", f"{stem}.md", f"{stem}-work/{stem}.png", f"{stem}-curves.png"
    ]  # fmt: skip

    written = json.loads(result.files[0].read_text(encoding="utf-8"))
    assert written["command"] == (
        "blemish study kumar2025 --data mvtec_screw --set training.learning_rate=0.002"
    )
    assert str(tmp_path) not in result.files[0].read_text(encoding="utf-8")
    rows = written["rows"]
    assert [(row["recipe"], row["seed"]) for row in rows] == [
        ("dae-mse", 0),
        ("dae-mse", 1),
        ("cae-ssim", 0),
        ("cae-ssim", 1),
        ("dae-vgg16-mse", 1),
    ]
    assert written["seeds"] == [0, 1]
    assert {row["settings"]["training"]["learning_rate"] for row in rows} == {0.002}
    assert [row["steps"] for row in rows] == [2, 2, 2, 2, 1]
    for row in rows:
        figures = {key: figure["value"] for key, figure in row["image"]["all"]["figures"].items()}
        right = 4 * figures["good_accepted"] + 5 * figures["bad_rejected"]
        assert figures["accuracy"] == pytest.approx(right / 9)
    assert written["published"]["category"] == "screw"
    assert written["published"]["tables"]["pill"]["cae-ssim"]["good_accepted"] == 0.58

    assert {(row["name"], row["residual"]) for row in written["baselines"]} == {
        (name, residual)
        for name in ("flat grey", "blurred by 4 pixels", "mean training image")
        for residual in ("mse", "ssim")
    }
    varied = {(row["recipe"], row["varied"], row["value"], row["usual"]) for row in written["sensitivity"]}
    assert varied == {
        ("dae-mse", "noise", 0.1, True),
        ("dae-mse", "noise", 0.2, False),
        ("cae-ssim", "latent", 32.0, False),
        ("cae-ssim", "latent", 128.0, True),
    }
    sigmas = [
        row["settings"]["corruption"][0]["sigma"]
        for row in written["sensitivity"]
        if row["varied"] == "noise"
    ]
    assert sigmas == [0.1, 0.2]

    table = result.files[1].read_text(encoding="utf-8")
    (line,) = [line for line in table.splitlines() if line.startswith("| dae-vgg16-mse |")]
    assert line.split(" | ")[1:5] == ["scratch", "1", "1", "0.002"]
    assert "Images of 32 × 32 pixels, at most 1 to 2 steps of batch 8, " in table
    assert "our training is on smaller images and with a larger learning rate, " in table
    assert line.endswith("| 0.10 | 0.92 | 0.68 |")
    flat = written["baselines"][0]["pixel"]["auroc"]
    (line,) = [line for line in table.splitlines() if line.startswith("| flat grey, mse |")]
    assert f"| {flat:.2f} |" in line
    assert "recipes have a pixel AUROC" in table
    assert "No ImageNet weights were on this machine for vgg16:" in table
    assert "accuracy 0.56" in table  # 5 of the 9 test images are defective
    with Image.open(result.files[2]) as examples, Image.open(result.files[3]) as curves:
        assert examples.height > examples.width > 500
        assert curves.width > 500

    recorded = recorder()
    without_drawings(kumar2025, "draw_examples", "draw_curves")
    again = run_study(
        "kumar2025", out, data=screw, settings=["training.learning_rate=0.002"], observer=recorded
    )
    assert again.figures == result.figures
    assert recorded.stages == []

    # One recipe is fitted again, as if it had changed since.
    older = {**written, "rows": [row | {"threshold": -1.0, "held_out": None} for row in rows]}
    given = (out / f"{stem}.json", older, screw, ["dae-vgg16-mse"], tmp_path / "again")
    fitted, curves_path = refit(*given, recorder())
    assert curves_path.exists()
    assert [row["threshold"] for row in fitted["rows"]] == [-1.0] * 4 + [rows[4]["threshold"]]
    assert fitted["rows"][4]["held_out"] == rows[4]["held_out"]
    assert fitted["rows"][4]["category"] == "mvtec_screw"
    assert fitted["refitted"]["command"].endswith("--data mvtec_screw --recipes dae-vgg16-mse")
    assert "Rows of dae-vgg16-mse were fitted again since, by version" in page_of(given[0], fitted)
    with pytest.raises(UsageError, match="has no row of cae-mse; name others with --recipes"):
        refit(given[0], older, screw, ["cae-mse"], tmp_path / "again", recorder())
    with pytest.raises(UsageError, match="is of the data set mvtec_screw; give its folder with --data"):
        refit(given[0], older, tmp_path, ["dae-mse"], tmp_path / "again", recorder())


@pytest.mark.parametrize(("device", "length"), [("cpu", "WITHOUT_GPU"), ("cuda", "FULL")])
def test_the_full_length_waits_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, screw: Path, tmp_path: Path, device: str, length: str
) -> None:
    asked: list[tuple[str, ...]] = []

    def note(*args: Any) -> None:
        asked.append(args[4])
        raise Stopped("enough")

    monkeypatch.setattr(
        protocol,
        "choose_machine",
        lambda: Machine(
            device=device, processor="test", precision="float32", native_bfloat16=False, torch="test"
        ),
    )
    monkeypatch.setattr(kumar2025, "comparison", note)
    with pytest.raises(Stopped):
        run_study("kumar2025", tmp_path / "out", data=screw)
    assert asked == [getattr(kumar2025, length).settings]


@pytest.mark.usefixtures("tiny_study")
def test_quick_draws_its_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kumar2025, "RECIPES", FEW[::2])
    result = run_study("kumar2025", tmp_path, quick=True)
    assert result.files[0].name == "kumar2025-quick.json"
    assert result.figures["dataset"] == "generated"
    assert result.figures["published"]["category"] is None
    assert result.figures["sensitivity"] == []
    assert "| paper: " not in result.table
    assert {row["seed"] for row in result.figures["rows"]} == {0}


@pytest.mark.usefixtures("tiny_study")
def test_the_root_of_mvtec_gives_both_tables_whole(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_drawings: Callable[..., None]
) -> None:
    """All categories of the paper that are there; what else lies in the root is left alone."""
    monkeypatch.setattr(kumar2025, "RECIPES", FEW[::2])
    monkeypatch.setattr(kumar2025, "WITHOUT_GPU", TINY._replace(varied=(), seeds=(0,), pretrained_seeds=(0,)))
    without_drawings(kumar2025, "draw_examples", "draw_curves")
    root = tmp_path / "mvtec"
    for name in ("screw", "tile", "carpet"):
        shutil.copytree(dataset, root / name)
    result = run_study("kumar2025", tmp_path / "out", data=root)
    figures = result.figures
    assert [(row["category"], row["recipe"]) for row in figures["rows"]] == [
        (category, recipe) for category in ("screw", "tile") for recipe in FEW[::2]
    ]
    assert set(figures["brightness_auroc"]) == {"screw", "tile"}
    assert {row["category"] for row in figures["baselines"]} == {"screw", "tile"}
    text = result.table
    assert "## Tables 1 and 2: overall accuracy" in text
    assert "| recipe | screw | screw, paper | tile | tile, paper |" in text
    accuracies = [row["image"]["all"]["figures"]["accuracy"]["value"] for row in figures["rows"]]
    assert f"| dae-mse | {accuracies[0]:.2f} | 0.71 | {accuracies[2]:.2f} | 0.34 |" in text
    assert "\n## tile\n" in text
    shutil.rmtree(root / "tile" / "test")
    with pytest.raises(FileError):
        run_study("kumar2025", tmp_path / "other", data=root)
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("tiny_study")
def test_extensions_stand_beside_the_recipe_that_they_extend(
    screw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_drawings: Callable[..., None]
) -> None:
    monkeypatch.setattr(kumar2025, "RECIPES", ("dae-ssim",))
    length = TINY._replace(varied=(), seeds=(0,), pretrained_seeds=(0,), extended=True)
    monkeypatch.setattr(kumar2025, "WITHOUT_GPU", length)
    attention = Extension("attention", "dae-ssim", "dae-ssim", ("bottleneck=[{name: attention}]",))
    monkeypatch.setattr(kumar2025, "extensions", lambda: (attention,))
    without_drawings(kumar2025, "draw_examples", "draw_curves")
    waiting = run_study("kumar2025", tmp_path / "out", data=screw, rows=1)
    assert waiting.figures["missing"] == ["dae-ssim, seed 0"]
    assert "1 of 2 fits is missing" in waiting.table
    result = run_study("kumar2025", tmp_path / "out", data=screw, rows=1)
    (row,) = result.figures["extensions"]
    assert row["settings"]["bottleneck"] == [{"name": "attention"}]
    base = result.figures["rows"][0]["pixel"]["auroc"]
    (line,) = [line for line in result.table.splitlines() if line.startswith("| attention | dae-ssim | 1 |")]
    assert line.endswith(f"| {int(row['pixel']['auroc'] > base)} of 1 |")


def test_every_extension_is_a_recipe_that_can_be_built() -> None:
    for extension in kumar2025.extensions():
        settings = [*extension.settings, "image.size=64", "patch.size=64", "patch.stride=64"]
        if "encoder.weights=package" in settings:
            settings.remove("encoder.weights=package")
            settings.append("encoder.weights=none")
        check_recipe(override(load_recipe(extension.recipe), settings))
        assert extension.beside in RECIPES
