"""The rows of Xie et al. 2019: what is measured, and runs of the smallest length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor, nn

from blemish.data.modality import Modality
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.demo.painting import MODALITIES, write_paintings
from blemish.errors import FileError, RecipeError, Stopped
from blemish.inspection.detector import load
from blemish.models.contracts import Output
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from studies import run_study, xie2019, xie2019_figures, xie2019_page
from studies.xie2019 import FULL, QUICK, WITHOUT_GPU, Length
from studies.xie2019_measures import (
    Comparison,
    Material,
    Patches,
    by_distance,
    corner_distance,
    crossed_baselines,
    cut,
    local_ssim,
    patch_similarity,
    pigeonhole_interval,
)
from studies.xie2019_rows import CLAIMS, CROSSED, ROWS, SAME_RATE, WITH_DROPOUT

pytestmark = pytest.mark.usefixtures("plain_layout")

TINY = Length(
    paintings=2,
    unseen=1,
    size=192,
    settings=(
        "training.batch=2",
        "training.steps=2",
        "training.validate_every=1",
        "training.device=cpu",
        "training.precision=float32",
    ),
    seeds=(0,),
    patches=8,
)


@pytest.fixture
def tiny_study(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FULL", "WITHOUT_GPU", "QUICK"):
        monkeypatch.setattr(xie2019, name, TINY)
    monkeypatch.setattr("blemish.training.trainer.VALIDATION_PATCHES", 1)


@pytest.fixture(scope="module")
def altar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two scenes, and no others."""
    root = tmp_path_factory.mktemp("data") / "altar"
    write_paintings(root / "train", 2, size=192)
    return root


# -- what is compared ----------------------------------------------------------------------------------


def test_the_rows_are_the_papers_tables() -> None:
    assert [row.published for row in ROWS if 1 in row.tables] == [0.9366, 0.9349, 0.9271, 0.9377]
    assert [row.published for row in ROWS if 2 in row.tables] == [0.9377, 0.9469, 0.9450]
    assert all(row.published is None for row in ROWS if not row.tables)
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {name for claim in CLAIMS for name in (claim.above, claim.below)} <= set(names)
    assert set(CROSSED) <= set(names)


def test_the_papers_rows_are_trained_as_in_the_paper() -> None:
    rates = {
        row.name: (training.learning_rate, training.decay)
        for row in ROWS
        for training in [xie2019._recipe(row, FULL.settings).training]
        if row.tables
    }
    assert rates == {
        "stacked-ae": (6e-4, 0),
        **dict.fromkeys(("pen-nde", "pen-upde", "fp-cae"), (12e-4, 3e-5)),
        **dict.fromkeys(("fp-cae-concat", "fp-cae-add"), (8e-4, 4e-5)),
    }
    for row in ROWS:
        corrupted = bool(xie2019._recipe(row, ()).corruption)
        assert corrupted == (row.name == WITH_DROPOUT)


def test_the_control_differs_from_fp_cae_in_its_convolutions_alone() -> None:
    control = next(row for row in ROWS if row.name == SAME_RATE)
    ours, theirs = xie2019._recipe(control, ()), load_recipe("fp-cae")
    assert ours.training == theirs.training
    assert (ours.loss, ours.patch) == (theirs.loss, theirs.patch)
    assert ours.encoder.settings["convolution"] == "normal"


@pytest.mark.parametrize("length", [FULL, WITHOUT_GPU, QUICK])
def test_every_length_fits_every_row(length: Length) -> None:
    for row in ROWS:
        training = xie2019._recipe(row, length.settings).training
        assert training.steps % training.validate_every == 0
    assert length.size // 2 >= 3 * 32


# -- how alike -----------------------------------------------------------------------------------------


def test_local_ssim_is_equation_4_of_each_window() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((2, 3, 12, 14))
    y = np.clip(x + 0.2 * rng.standard_normal(x.shape), 0, 1)
    found = local_ssim(torch.from_numpy(x), torch.from_numpy(y), data_range=1.0).numpy()
    assert found.shape == (2, 3, 5, 7)
    for row, column in ((0, 0), (4, 6), (2, 3)):
        a, b = (values[1, 2, row : row + 8, column : column + 8] for values in (x, y))
        covariance = ((a - a.mean()) * (b - b.mean())).mean()
        expected = (
            (2 * a.mean() * b.mean() + 1e-4)
            * (2 * covariance + 9e-4)
            / ((a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4))
        )
        assert found[1, 2, row, column] == pytest.approx(expected, rel=1e-9)


def test_local_ssim_knows_equals_opposites_and_its_range() -> None:
    x = torch.rand(1, 1, 16, 16)
    ones = torch.ones(1, 1, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(local_ssim(x, x, data_range=1.0), ones)
    assert local_ssim(x, 1 - x, data_range=1.0).max() < 0
    flat = torch.full((1, 1, 16, 16), 0.999)
    torch.testing.assert_close(local_ssim(flat, flat, data_range=1.0), ones)
    y = (x + 0.1 * torch.rand_like(x)).clamp(0, 1)
    torch.testing.assert_close(
        local_ssim(x, y, data_range=1.0),
        local_ssim(255 * x, 255 * y, data_range=255.0),
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_distance_is_equation_6() -> None:
    d = corner_distance(32)
    assert d.shape == (25, 25)
    for y1, x1 in ((0, 0), (24, 0), (3, 20), (12, 12), (7, 15)):
        assert d[y1, x1] == min(x1, 32 - (x1 + 8)) + min(y1, 32 - (y1 + 8))
    assert [tuple(place) for place in np.argwhere(d == 0)] == [(0, 0), (0, 24), (24, 0), (24, 24)]
    assert d.max() == 24
    np.testing.assert_array_equal(d, d.T)


def test_means_by_distance_are_those_of_the_windows() -> None:
    local = torch.rand(3, 2, 25, 25, dtype=torch.float64)
    d = corner_distance(32)
    found = by_distance(local, d)
    assert found.shape == (3, 25)
    for distance in (0, 1, 13, 24):
        expected = local.numpy()[:, :, d == distance].mean(axis=(1, 2))
        np.testing.assert_allclose(found[:, distance].numpy(), expected)


class Spoiling(nn.Module):
    """Gives images back with noise in the top left corner."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Output:
        y = x.clone()
        y[..., :8, :8] = 0.5
        return Output(y, x)


def test_an_altered_corner_shows_at_distance_0() -> None:
    sensors = [Modality(name="rgb", channels=3), Modality(name="xray", channels=1)]
    pixels = torch.rand(5, 4, 32, 32).numpy()
    found = patch_similarity(Spoiling(), pixels, sensors)  # type: ignore[arg-type]
    assert found.ssim.shape == (5, 2)
    assert found.local.shape == (5, 25)
    np.testing.assert_allclose(found.local[:, 0], 0.75, atol=0.05)  # one of four corners has nothing alike
    np.testing.assert_allclose(found.local[:, 24], 1, atol=1e-5)
    nothing = patch_similarity(Spoiling(), pixels[:0], sensors)  # type: ignore[arg-type]
    assert (nothing.ssim.shape, nothing.local.shape) == ((0, 2), (0, 25))


def test_the_interval_covers_seeds_and_patches() -> None:
    rng = np.random.default_rng(1)
    by_patch = np.tile(rng.standard_normal(400), (3, 1))
    low, high = pigeonhole_interval(by_patch)
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(400), rel=0.15)
    assert low < by_patch.mean() < high
    by_seed = np.repeat(rng.standard_normal((50, 1)), 20, axis=1)
    low, high = pigeonhole_interval(by_seed)
    assert high - low == pytest.approx(2 * 1.96 * by_seed.std() / np.sqrt(50), rel=0.2)
    assert pigeonhole_interval(by_seed) == (low, high)


def test_a_comparison_says_what_its_interval_allows() -> None:
    words = [
        Comparison(0.01, low, high, 3, 3, 2, 2).in_words().rpartition(", ")[2]
        for low, high in ((0.001, 0.02), (-0.001, 0.02), (-0.02, -0.001))
    ]
    assert words == ["yes", "undecided", "no"]


# -- scenes and patches --------------------------------------------------------------------------------


def test_patches_are_of_the_columns_that_were_asked_for_and_whole(altar: Path) -> None:
    readers = [SceneReader(scene) for scene in find_scenes(altar / "train")]
    patches = cut([(reader, slice(96, 192)) for reader in readers], 32, 100)
    assert patches.pixels.shape == (2 * 6 * 3, 11, 32, 32)
    assert patches.scene.tolist() == [0] * 18 + [1] * 18
    np.testing.assert_array_equal(patches.pixels[18 + 4], readers[1].read(32, 128, 32, 32))
    few = cut([(reader, slice(96, 192)) for reader in readers], 32, 8)
    assert few.scene.tolist() == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(few.pixels[0], patches.pixels[0])
    np.testing.assert_array_equal(few.pixels[-1], patches.pixels[-1])


def test_patches_with_absent_values_are_left_out(tmp_path: Path) -> None:
    pixels = np.full((64, 96), 0.5, np.float32)
    pixels[:, ::2] = 0.25
    pixels[40, 40] = np.nan
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels)
    (scene,) = find_scenes(tmp_path)
    patches = cut([(SceneReader(scene), slice(0, 96))], 32, 100)
    assert len(patches.pixels) == 5
    assert np.isfinite(patches.pixels).all()


def test_left_halves_are_the_left_halves(altar: Path, tmp_path: Path) -> None:
    readers, modalities, _ = xie2019.opened_scenes(altar, 32, Observer())
    folder = xie2019._left_halves(tmp_path / "left", readers, Observer())
    scenes = find_scenes(folder)
    assert [scene.name for scene in scenes] == [reader.name for reader in readers]
    for scene, whole in zip(scenes, readers, strict=True):
        with SceneReader(scene) as half:
            assert [(one.name, one.channels) for one in half.modalities] == list(MODALITIES.items())
            assert (half.height, half.width) == (192, 96)
            np.testing.assert_array_equal(half.read(0, 0, 192, 96), whole.read(0, 0, 192, 96))
    assert [path.name for path in tmp_path.iterdir()] == ["left"]
    assert [modality.grey for modality in modalities] == [None] * 5


def test_a_modality_that_is_a_mixture_of_the_others_is_predicted_by_regression() -> None:
    rng = np.random.default_rng(0)
    training, shown = rng.random((2, 8, 3, 16, 16), np.float32)
    for patches in (training, shown):
        patches[:, 2] = 0.3 * patches[:, 0] + 0.5 * patches[:, 1] + 0.1
    tested = Material(
        Patches(shown, np.zeros(8, np.intp), ("one",)), Patches(shown[:0], np.zeros(0, np.intp), ())
    )
    modalities = [Modality(name="rgb", channels=2), Modality(name="mixed", channels=1)]
    found = crossed_baselines(tested, training, modalities)
    assert found["linear regression"]["mixed"] == pytest.approx(1, abs=1e-4)
    assert found["constant"]["mixed"] < 0.1  # type: ignore[operator]
    assert found["constant"]["rgb"] < found["linear regression"]["rgb"] < 0.9  # type: ignore[operator]


# -- whole runs ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_study")
def test_all_rows_on_generated_paintings(
    tmp_path: Path,
    recorder: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    without_drawings: Callable[..., None],
) -> None:
    out = tmp_path / "out"
    first = run_study("xie2019", out, quick=True)
    stem = "xie2019-quick"
    assert [path.name for path in first.files] == [
        f"{stem}.json", f"{stem}.md", f"{stem}-corners.png", f"{stem}-curves.png", f"{stem}.png",
        f"{stem}-crossed.png",
    ]  # fmt: skip
    assert all(path.parent == out for path in first.files)
    text = first.files[0].read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    written = json.loads(text)
    assert written["command"] == "blemish study xie2019 --quick"
    assert [row["row"] for row in written["rows"]] == [row.name for row in ROWS]
    parameters = {row["row"]: row["parameters"] for row in written["rows"]}
    assert parameters["fp-cae-concat"] == 996_043
    assert parameters["fp-cae-add"] == 893_643
    assert len({parameters[name] for name in ("stacked-ae", "pen-nde", "pen-upde", "fp-cae")}) == 1
    assert (written["test_patches"], written["unseen_patches"]) == (8, 8)
    assert len(written["local"]["ssim"]["fp-cae"]) == len(written["local"]["distance"]) == 25
    for row in written["rows"]:
        assert row["steps"] == 2
        assert -1 <= row["ssim"] <= 1
        assert np.mean(list(row["ssim_by_modality"].values())) == pytest.approx(row["ssim"])
        assert row["ssim_unseen"] != row["ssim"]
        crossed = row["ssim_from_others"]
        assert (crossed is not None) == (row["row"] in CROSSED)
        assert crossed is None or set(crossed) == set(MODALITIES)
    from_others = written["baselines_from_others"]
    assert {name: set(values) for name, values in from_others.items()} == {
        "constant": set(MODALITIES),
        "linear regression": set(MODALITIES),
    }
    page = first.files[1].read_text(encoding="utf-8")
    linear = from_others["linear regression"]["xray"]
    shown = next(line for line in page.partition("## Without a network")[2].splitlines() if "xray" in line)
    assert shown.rstrip(" |").endswith(f"{linear:.3f}")
    by_row = {row["row"]: row for row in written["rows"]}
    for claim in written["claims"]:
        if claim["figure"] == "ssim":
            difference = by_row[claim["above"]]["ssim"] - by_row[claim["below"]]["ssim"]
        else:
            difference = by_row[claim["above"]]["local_ssim"][0] - by_row[claim["below"]]["local_ssim"][0]
        assert claim["difference"] == pytest.approx(difference, abs=1e-9)
        assert claim["low"] <= claim["difference"] <= claim["high"]
        assert (claim["of_seeds"], claim["of_panels"]) == (1, 2)

    # What is finished is not done again, and gives the same figures.
    monkeypatch.setattr("blemish.training.fit.fit", None)
    without_drawings(xie2019, "draw_corners", "draw_curves", "draw_patches", "draw_crossed")
    again = run_study("xie2019", out, quick=True, observer=recorder())
    assert again.figures == first.figures


@pytest.mark.usefixtures("tiny_study")
def test_a_data_set_keeps_its_images_to_itself(
    altar: Path, tmp_path: Path, recorder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One row of each kind: of each table, of our own, and with each modality from the others.
    few = [row for row in ROWS if row.name in ("stacked-ae", "fp-cae", "fp-cae-concat", WITH_DROPOUT)]
    names = {row.name for row in few}
    claims = [claim for claim in CLAIMS if {claim.above, claim.below} <= names]
    for module in (xie2019, xie2019_figures, xie2019_page):
        monkeypatch.setattr(module, "ROWS", few)
    for module in (xie2019, xie2019_page):
        monkeypatch.setattr(module, "CLAIMS", claims)
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        run_study("xie2019", out, data=altar, observer=recorder(stop_after=20))
    result = run_study("xie2019", out, data=altar, seeds=[3], settings=["training.steps=1"])
    stem = "xie2019-altar"
    assert sorted(path.name for path in out.iterdir()) == [
        f"{stem}-corners.png", f"{stem}-curves.png", f"{stem}-work", f"{stem}.json", f"{stem}.md"
    ]  # fmt: skip
    assert (out / f"{stem}-work" / f"{stem}.png").is_file()
    written = result.figures
    assert written["command"] == "blemish study xie2019 --data altar --seeds 3 --set training.steps=1"
    assert written["unseen_patches"] == 0
    assert {row["ssim_unseen"] for row in written["rows"]} == {None}
    table = result.files[1].read_text(encoding="utf-8")
    assert "Ghent Altarpiece" in table
    assert "unseen" in table
    model = load(out / f"{stem}-work" / "models" / "fp-cae-3")
    assert model.file.fingerprint.width.max == 96


def test_what_cannot_be_halved_or_compared_is_refused(
    altar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileError, match=r"empty: has no train folder; lay it out as train/"):
        run_study("xie2019", tmp_path / "out", data=empty)
    with pytest.raises(RecipeError, match=r"training\.stepz"):
        run_study("xie2019", tmp_path / "out", data=altar, settings=["training.stepz=1"])
    narrow = tmp_path / "narrow"
    write_paintings(narrow / "train", 1, size=128)
    with pytest.raises(FileError, match=r"is 128 pixels wide.* give scenes of 192 pixels at least"):
        run_study("xie2019", tmp_path / "out", data=narrow)
    lacking = tmp_path / "lacking"
    write_paintings(lacking / "train", 2, size=192)
    (lacking / "train" / "painting-001" / "xray.tif").unlink()
    with pytest.raises(FileError, match="painting-001: has no xray, which the autoencoder of normal"):
        run_study("xie2019", tmp_path / "out", data=lacking)
    assert not (tmp_path / "out").exists()


def test_dropout_can_be_switched_off_for_all() -> None:
    row = next(row for row in ROWS if row.name == WITH_DROPOUT)
    assert override(xie2019._recipe(row, ()), ["corruption=[]"]).corruption == ()
