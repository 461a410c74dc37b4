"""The six rows of Liu et al. 2022: runs of the smallest length, and what the page says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from blemish.errors import FileError, RecipeError, Stopped, UsageError
from blemish.jpeg.benchmark.baselines import PILLOW_420, PILLOW_444
from blemish.jpeg.benchmark.records import BdRate, CodecRecord
from blemish.jpeg.benchmark.run import evaluate
from blemish.jpeg.benchmark.summary import summarise
from blemish.jpeg.deep.recipe import deep_recipe_names, load_deep_recipe
from blemish.layers import pretrained
from blemish.recipes import override
from blemish.storage.training_record import Machine
from studies import liu2022, liu2022_figures, liu2022_page, liu2022_plan, liu2022_results, protocol, run_study
from studies.liu2022_page import over_images, over_seeds
from studies.liu2022_plan import ABLATIONS, CLAIMS, FULL, QUICK, RECIPES, WITHOUT_GPU, Length
from studies.liu2022_results import OverSeeds
from studies.protocol import Request

pytestmark = pytest.mark.usefixtures("plain_layout")

TINY = Length(
    images={"good": 3, "test_good": 2, "per_blemish": 0, "size": 64},
    settings=(
        "tables.initial=annex-k",
        "tables.pace=50",
        "loss.sigma=0",
        "patch.size=32",
        "training.batch=1",
        "training.steps=2",
        "training.validate_every=1",
        "training.learning_rate=1e-3",
        "training.device=cpu",
        "training.precision=float32",
        "lambdas=[0.001, 0.1]",
    ),
    attention={"none": ("training.steps=4",)},
    recipes={},
    seeds=(0,),
    ablated=("jpeg-tables",),
    qualities=(5, 50),
    bpp_range=(0.01, 20.0),
    crops=0,
    rounds=1,
)
VARIED = (
    liu2022_plan.Ablation("α = 1", "loss.alpha", 1),
    liu2022_plan.Ablation("σ = 0", "loss.sigma", 0),
    liu2022_plan.Ablation("γ = 0", "loss.gamma", 0),
)


@pytest.fixture
def tiny_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FULL", "WITHOUT_GPU", "QUICK"):
        monkeypatch.setattr(liu2022, name, TINY)
    monkeypatch.setattr(liu2022_plan, "ABLATIONS", VARIED)
    monkeypatch.delenv("BLEMISH_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-hub"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "no-hub"))
    for name in ("resnet152", "vgg19"):  # drawn once for all: ResNet-152 takes seconds
        made = cache(pretrained._MAKERS[name])
        monkeypatch.setitem(pretrained._MAKERS, name, lambda made=made: deepcopy(made()))
    monkeypatch.setattr("blemish.training.trainer.VALIDATION_PATCHES", 1)


@pytest.fixture
def holiday(tmp_path: Path) -> Path:
    """A data set: three photographs to train on and one to test."""
    for part, count in (("train", 3), ("test", 1)):
        folder = tmp_path / "holiday" / part
        folder.mkdir(parents=True)
        for seed in range(count):
            y, x = np.mgrid[:40, :56]
            waves = np.stack([128 + 80 * np.sin(x / (4 + seed + c)) * np.cos(y / 7) for c in range(3)], -1)
            noise = np.random.default_rng((count, seed)).normal(0, 8, waves.shape)
            Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8)).save(folder / f"{seed}.png")
    return tmp_path / "holiday"


def test_there_are_six_rows_and_each_is_a_recipe_of_the_paper() -> None:
    assert sorted(RECIPES) == sorted(deep_recipe_names())
    for claim in CLAIMS:
        assert claim.encoder in RECIPES
        assert claim.anchor in (*RECIPES, "pillow-444")


@pytest.mark.parametrize("length", [FULL, WITHOUT_GPU, QUICK])
def test_every_length_fits_every_recipe(length: Length) -> None:
    kinds = {load_deep_recipe(name).attention.name for name in RECIPES}
    assert length.attention.keys() <= kinds
    for recipe in (one.recipe for one in liu2022_plan.plan_fits(length, (0,), (), True)):
        assert recipe.training.steps % recipe.training.validate_every == 0
        assert recipe.loss.gamma in (0, 500)
    sides = {
        (one.recipe.patch.size, one.recipe.training.batch)
        for one in liu2022_plan.plan_fits(length, (0,), (), True)
    }
    assert len(sides) == 1, "or steps a second could not be compared"


def test_the_full_length_is_the_papers() -> None:
    for name in RECIPES:
        recipe = override(load_deep_recipe(name), list(FULL.settings))
        assert (recipe.training.steps, recipe.patch.size, recipe.tables.initial) == (20_000, 224, "uniform")
        assert (recipe.training.learning_rate, recipe.training.schedule) == (1e-6, "constant")
        loss = recipe.loss
        assert (loss.gamma, loss.sigma, loss.alpha, loss.beta) == (500, 1000, 10, 1)
    assert FULL.attention == {}


def test_the_loss_is_varied_where_it_can_be() -> None:
    names = {one.name for one in liu2022_plan.plan_fits(FULL, (0,), (), True)} - set(RECIPES)
    assert names == {
        f"{name}, {one.title}" for name in ("jpeg-vgg19", "jpeg-resnet152-block1") for one in ABLATIONS
    }
    without = liu2022_plan.plan_fits(FULL, (0,), (), False)
    assert {one.recipe.loss.gamma for one in without} == {0}
    assert {one.name for one in without} - set(RECIPES) == {
        f"{name}, σ = {sigma}" for name in ("jpeg-vgg19", "jpeg-resnet152-block1") for sigma in (0, 500)
    }


def test_seeds_are_fits_of_their_own() -> None:
    plan = liu2022_plan.plan_fits(FULL, (3, 5), (), False)
    assert [one.recipe.training.seed for one in plan] == [3] * 6 + [5] * 6 + [3] * 4
    assert len({one.folder for one in plan}) == len({one.name for one in plan}) == len(plan)
    assert "jpeg-lstm, seed 5" in {one.name for one in plan}


@pytest.mark.usefixtures("tiny_study")
def test_all_rows_beside_both_anchors(
    holiday: Path, tmp_path: Path, recorder: Callable[..., Any], without_drawings: Callable[..., None]
) -> None:
    out = tmp_path / "out"
    settings = ["tables.pace=40", "image.sampling='4:2:0'"]
    result = run_study("liu2022", out, data=holiday, settings=settings)
    stem = "liu2022-holiday"
    assert [path.name for path in result.files] == [
        f"{stem}.json", f"{stem}.md", f"{stem}.png", f"{stem}-curves.png"
    ]  # fmt: skip
    assert set(json.loads(result.files[0].read_text(encoding="utf-8"))["seconds_a_step"]) == set(RECIPES)
    text = result.files[0].read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    written = json.loads(text)
    assert written["command"].startswith("blemish study liu2022 --data holiday --set tables.pace=40")
    assert [row["name"] for row in written["rows"]] == [*RECIPES, "jpeg-tables, α = 1"]
    assert [row["steps"] for row in written["rows"]] == [4, 2, 2, 2, 2, 2, 4]
    assert {row["settings"]["tables"]["pace"] for row in written["rows"]} == {40}
    assert {row["settings"]["image"]["sampling"] for row in written["rows"]} == {"4:2:0"}
    starts = {row["recipe"]: row["attention_from"] for row in written["rows"]}
    assert starts == {
        "jpeg-tables": "–",
        **dict.fromkeys(RECIPES[1:], "scratch"),
    }
    for row in written["rows"]:
        assert 1 <= row["best_step"] <= row["steps"]
        assert all("bits per pixel" in look["measures"] for look in row["history"])
        assert [look["step"] for look in row["history"]] == list(range(1, row["steps"] + 1))

    evaluated = {one["name"]: one for one in written["evaluation"]["encoders"]}
    assert set(evaluated) == {
        "pillow-420", "pillow-444", "blemish-balanced", *RECIPES, "jpeg-tables, α = 1"
    }  # fmt: skip
    assert [point["quality"] for point in evaluated["jpeg-lstm"]["points"]] == [1, 100]
    assert not written["lpips"]

    page = result.files[1].read_text(encoding="utf-8")
    assert "No ImageNet weights were on this machine for ResNet-152 and VGG19" in page
    assert "LPIPS's pretrained network is not on this machine, so γ = 0" in page
    assert "| LSTM attention loses to VGG19's | jpeg-lstm beside jpeg-vgg19 |" in page
    assert "\n| jpeg-tables, α = 1 | 0 | 0 |" in page
    assert "0.126 s an encode beside 7.667 s of an end-to-end codec, 61 times as long" in page
    assert (
        "at most 2 to 4 steps of batch 1, Adam with a learning rate of 0.001, constant, log Q at 40" in page
    )
    assert (
        "our training is shorter, on smaller crops, with a larger learning rate and from JPEG's own" in page
    )
    for path in result.files[2:]:
        with Image.open(path) as image:
            assert image.width > 400

    recorded = recorder()
    without_drawings(liu2022, "draw_rates", "draw_steps")
    again = run_study("liu2022", out, data=holiday, settings=settings, observer=recorded)
    timed = {"seconds_a_step"}  # anew in each run
    assert {k: v for k, v in again.figures.items() if k not in timed} == {
        k: v for k, v in result.figures.items() if k not in timed
    }
    assert [stage for stage in recorded.stages if "Training" in stage or stage in RECIPES] == []
    assert "0 files to measure" in recorded.stages[0]

    with pytest.raises(UsageError, match=r"tables\.pace 40\.0, not 50\.0"):
        run_study("liu2022", out, data=holiday)


@pytest.mark.usefixtures("tiny_study")
def test_rates_are_of_the_files_as_they_are_now(holiday: Path, tmp_path: Path) -> None:
    """The journal keeps files of fits and images that are gone; they count for nothing."""
    request = Request("liu2022", tmp_path, holiday)
    work = request.work / "evaluation"
    ladder = {"qualities": (5, 50), "ssimulacra2": False, "lpips": False, "crops": 0}
    first = evaluate(holiday / "test", work, encoders=[], **ladder)  # type: ignore[arg-type]
    sizes = {(one.encoder, one.quality): one.bytes for one in liu2022_results.records_of(request, first)}
    Image.open(holiday / "train" / "1.png").save(holiday / "test" / "0.png")
    second = evaluate(holiday / "test", work, encoders=[], **ladder)  # type: ignore[arg-type]
    records = liu2022_results.records_of(request, second)
    assert len(records) == len(sizes) == 4
    assert all(sizes[one.encoder, one.quality] != one.bytes for one in records)
    renamed = second.encoders[0].model_copy(update={"description": "another"})
    other = second.model_copy(update={"encoders": (renamed, second.encoders[1])})
    assert {one.encoder for one in liu2022_results.records_of(request, other)} == {"pillow-444"}


def record(encoder: str, quality: int, size: int, psnr: float) -> CodecRecord:
    return CodecRecord(
        image="a", image_sha256="", encoder=encoder, description="", quality=quality, width=100, height=80,
        bytes=size, seconds=1.0, measures={"psnr_rgb": psnr},
    )  # fmt: skip


def test_a_claim_about_low_rates_is_judged_at_low_rates(tmp_path: Path) -> None:
    """An encoder that needs more bits than JPEG up to about 0.8 bits per pixel, and fewer above."""
    claim = next(claim for claim in CLAIMS if claim.bpp_range is not None)
    assert (claim.encoder, claim.anchor, claim.bpp_range) == ("jpeg-lstm", "pillow-444", (0.2, 0.45))
    psnr = np.arange(24.0, 38, 2)
    jpeg = np.geomspace(80, 1280, 7)  # bytes of 8000 pixels: 0.08 to 1.28 bits per pixel
    lstm = jpeg * np.geomspace(2.2, 0.8, 7)
    records = [
        record(name, quality, round(size), float(value))
        for name, sizes in (("pillow-444", jpeg), ("pillow-420", jpeg), ("jpeg-lstm", lstm))
        for quality, (size, value) in enumerate(zip(sizes, psnr, strict=True), start=1)
    ]
    evaluation = summarise(records, [PILLOW_420, PILLOW_444], bpp_range=(0.7, 1.5))
    results = liu2022_results.Results(Request("liu2022", tmp_path), [], evaluation, records, False, {})
    rates = results.rates(claim.anchor, claim.encoder, claim.bpp_range)
    assert rates["psnr_rgb"]["mean"] > 20
    rest = results.rate(claim.anchor, claim.encoder, "psnr_rgb")
    assert rest is not None
    assert rest.mean < 0
    assert liu2022_page.compared_in_words(claim) == "jpeg-lstm beside pillow-444, 0.2 to 0.45 bits per pixel"


def test_a_figure_without_any_measure_says_so(tmp_path: Path) -> None:
    """Of images that come back exactly, PSNR has no value; small ones have no MS-SSIM."""
    records = [
        record(name, quality, 100 * quality, 30.0).model_copy(update={"measures": {"psnr_rgb": None}})
        for name in ("pillow-420", "pillow-444")
        for quality in (1, 2)
    ]
    evaluation = summarise(records, [PILLOW_420, PILLOW_444])
    with Image.open(liu2022_figures.draw_rates(tmp_path / "a.png", evaluation, {"none": []})) as figure:
        assert figure.width > 400


def rate(mean: float, images: int = 24) -> BdRate:
    return BdRate(
        anchor="a", encoder="b", measure="ms_ssim", mean=mean, low=mean - 0.1, high=mean + 0.1, images=images
    )


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ((-6.0, -7.0, -5.0), "-6.0 % [-8.5, -3.5] over 3 seeds, fewer bits"),
        ((3.0, 4.0, 5.0), "+4.0 % [+1.5, +6.5] over 3 seeds, more bits"),
        ((-1.0, -2.0, 0.5), "-0.8 % [-4.0, +2.3] over 3 seeds, undecided"),
        ((-6.0, -6.1), "-6.0 % [-6.1, -5.9], 2 seeds"),  # however sure over images, it may be the seed
        ((-6.0,), "-6.0 % [-6.1, -5.9], 1 seed"),
    ],
)
def test_a_conclusion_needs_three_seeds_that_agree(means: tuple[float, ...], words: str) -> None:
    assert over_seeds(OverSeeds([rate(mean) for mean in means]), 24) == words


def test_intervals_over_seeds_are_students() -> None:
    means = [-2.0, -1.0, 1.5, 0.25]
    interval = OverSeeds([rate(mean) for mean in means]).interval
    assert interval is not None
    low, high = stats.t.interval(0.95, 3, loc=np.mean(means), scale=stats.sem(means))
    assert interval == pytest.approx((np.mean(means), low, high))


def test_trainings_of_different_lengths_and_few_images_have_no_conclusion() -> None:
    rates = [rate(mean) for mean in (-6.0, -6.1, -6.2)]
    assert over_seeds(OverSeeds(rates, (800, 800)), 24).endswith("over 3 seeds, fewer bits")
    assert over_seeds(OverSeeds(rates, (20_000, 800)), 24).endswith("over 3 seeds, 20000 beside 800 steps")
    few = [rate(mean, images=11) for mean in (-6.0, -6.1, -6.2)]
    assert over_seeds(OverSeeds(few), 24).endswith("over 3 seeds (11 of 24 images)")
    assert over_images(few[0], 24) == "-6.0 % [-6.1, -5.9] (11 of 24 images)"


def test_without_a_gpu_small_networks_have_the_papers_steps() -> None:
    plan = {one.name: one.recipe for one in liu2022_plan.plan_fits(WITHOUT_GPU, (0, 1, 2), (), False)}
    papers = {name for name in RECIPES if plan[name].training.steps == 20_000}
    assert papers == {"jpeg-tables", "jpeg-resnet152-block1", "jpeg-lstm", "jpeg-bilstm"}
    assert len(WITHOUT_GPU.seeds) >= liu2022_plan.FEWEST_SEEDS <= len(FULL.seeds)
    for figure in liu2022_plan.FIGURES:  # of those of the paper that need no LPIPS
        assert len([name for name in figure.fits if name in plan]) > 1


def test_a_training_like_the_papers_is_not_reported_as_different(tmp_path: Path) -> None:
    recipes = [load_deep_recipe("jpeg-lstm")]
    words = liu2022_page.training_beside_paper(Request("liu2022", tmp_path), recipes)
    assert "Beside the paper's" not in words
    assert "One network a recipe serves the λ 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1" in words
    single = override(recipes[0], ["lambdas=[0.01]", "training.steps=50"])
    words = liu2022_page.training_beside_paper(Request("liu2022", tmp_path, quick=True), [single])
    assert "One network" not in words
    assert words.endswith("Beside the paper's, our training is shorter, as --quick asks.")


@pytest.mark.parametrize(("device", "length"), [("cpu", "WITHOUT_GPU"), ("cuda", "FULL")])
def test_the_full_length_waits_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, holiday: Path, tmp_path: Path, device: str, length: str
) -> None:
    asked: list[Length] = []

    def note(length: Length, *rest: Any) -> None:
        asked.append(length)
        raise Stopped("enough")

    monkeypatch.setattr(
        protocol,
        "choose_machine",
        lambda: Machine(
            device=device, processor="test", precision="float32", native_bfloat16=False, torch="test"
        ),
    )
    monkeypatch.setattr(liu2022, "plan_fits", note)
    with pytest.raises(Stopped):
        run_study("liu2022", tmp_path / "out", data=holiday)
    assert asked == [getattr(liu2022, length)]


@pytest.mark.usefixtures("tiny_study")
def test_what_was_asked_is_checked_before_any_fit(holiday: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RecipeError, match=r"did you mean 'training\.steps'"):
        run_study("liu2022", out, data=holiday, settings=["training.step=5"])
    with pytest.raises(RecipeError, match="attention 'none' has no setting 'hidden'"):
        run_study("liu2022", out, data=holiday, settings=["attention.hidden=8"])
    (holiday / "test").rename(holiday / "tests")
    with pytest.raises(FileError, match="has no test folder"):
        run_study("liu2022", out, data=holiday)
    (holiday / "test").mkdir()
    with pytest.raises(FileError, match="holds no image"):
        run_study("liu2022", out, data=holiday)
    assert not out.exists()
