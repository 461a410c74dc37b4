from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.errors import FileError, RecipeError, Stopped, UsageError
from blemish.jpeg.deep.fit import fit_jpeg, fit_jpeg_once
from blemish.jpeg.deep.model import DeepEncoder
from blemish.jpeg.deep.recipe import load_deep_recipe
from blemish.observer import Observer
from blemish.recipes import override
from blemish.storage.model_folder import weights_of

TINY = (
    "loss.gamma=0",
    "loss.sigma=0",
    "tables.initial=annex-k",
    "patch.size=32",
    "training.batch=2",
    "training.steps=6",
    "training.validate_every=3",
    "training.learning_rate=1e-3",
    "tables.pace=50",
    "training.device=cpu",
    "training.precision=float32",
    "lambdas=[0.001, 0.1]",
)


@pytest.fixture(autouse=True)
def few_held_out_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.training.trainer.VALIDATION_PATCHES", 4)


def draw(path: Path, seed: int, height: int = 40, width: int = 56) -> Path:
    y, x = np.mgrid[:height, :width]
    waves = np.stack([128 + 80 * np.sin(x / (4 + seed + c)) * np.cos(y / 7) for c in range(3)], -1)
    noise = np.random.default_rng(seed).normal(0, 8, waves.shape)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(4):
        draw(tmp_path / "photos" / f"{seed}.png", seed)
    return tmp_path / "photos"


def fit(photos: Path, recipe: str = "jpeg-tables", *settings: str, **options: Any) -> DeepEncoder:
    return fit_jpeg(photos, recipe, settings=[*TINY, *settings], **options)


def test_training_lowers_the_held_out_loss_and_reports_its_terms(photos: Path) -> None:
    encoder = fit(photos, "jpeg-tables", "training.steps=60", "training.validate_every=20")
    history = encoder.file.training.history
    assert [look.step for look in history] == [20, 40, 60]
    assert history[-1].validation < 0.9 * history[0].validation
    for look in history:
        assert look.terms.keys() == {"mse", "rate"}
        assert look.terms["mse"] + look.terms["rate"] == pytest.approx(look.validation, rel=1e-5)


@pytest.mark.parametrize("recipe", ["jpeg-tables", "jpeg-lstm"])
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    photos: Path, tmp_path: Path, recorder: Callable[..., Any], recipe: str
) -> None:
    whole = fit(photos, recipe)
    with pytest.raises(Stopped, match="step 4 of 6"):
        fit(photos, recipe, out=tmp_path / "model", observer=recorder(stop_after=4 + 3))
    with pytest.raises(UsageError, match="go on with --resume"):
        fit(photos, recipe, out=tmp_path / "model")
    resumed = fit(photos, recipe, out=tmp_path / "model", resume=True)
    assert weights_of(resumed.model) == weights_of(whole.model)
    assert resumed.file.training.history == whole.file.training.history
    assert not (tmp_path / "model" / "checkpoint").exists()


def test_a_checkpoint_of_other_settings_is_refused(
    photos: Path, tmp_path: Path, recorder: Callable[..., Any]
) -> None:
    out = tmp_path / "model"
    with pytest.raises(Stopped):
        fit(photos, out=out, observer=recorder(stop_after=6))
    with pytest.raises(FileError, match=r"another lambdas"):
        fit(photos, "jpeg-tables", "lambdas=[0.01]", out=out, resume=True)


def test_a_refused_setting_leaves_the_checkpoint(photos: Path, tmp_path: Path) -> None:
    state = tmp_path / "model" / "checkpoint" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    with pytest.raises(RecipeError):
        fit(photos, "jpeg-lstm", "attention.hidden=0", out=tmp_path / "model", overwrite=True)
    assert state.exists()


def test_an_existing_model_is_replaced_only_on_request(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    first = fit(photos, out=out)
    with pytest.raises(UsageError, match="--overwrite"):
        fit(photos, out=out)
    other = fit(photos, "jpeg-tables", "training.seed=1", out=out, overwrite=True)
    assert weights_of(other.model) != weights_of(first.model)
    with pytest.raises(UsageError, match="give one"):
        fit(photos, out=out, overwrite=True, resume=True)
    with pytest.raises(UsageError, match="give out"):
        fit(photos, resume=True)


def test_a_tenth_is_held_out_and_no_test_image_is_read(photos: Path) -> None:
    encoder = fit(photos)
    split = encoder.file.split
    assert (len(split["train"]), len(split["validation"])) == (3, 1)
    assert sorted(split["train"] + split["validation"]) == [f"{seed}.png" for seed in range(4)]
    rows = [f"{seed}.png,{'test' if seed == 2 else 'train'}" for seed in range(4)]
    (photos / "list.csv").write_text("\n".join(["path,split", *rows]), encoding="utf-8")
    listed = fit(photos / "list.csv")
    assert "2.png" not in listed.file.split["train"] + listed.file.split["validation"]


def test_bad_images_are_reported_and_the_others_are_trained_on(
    photos: Path, recorder: Callable[..., Any]
) -> None:
    draw(photos / "small.png", 0, 12, 90)
    (photos / "torn.png").write_bytes((photos / "0.png").read_bytes()[:300])
    Image.fromarray(np.zeros((50, 50), np.uint16)).save(photos / "deep.png")
    Image.open(photos / "0.png").convert("L").save(photos / "grey.png")
    recorded = recorder()
    encoder = fit(photos, observer=recorded)
    problems = sorted(str(problem) for problem in recorded.problems)
    assert [line.split(":")[0].rsplit("/")[-1] for line in problems] == ["deep.png", "small.png", "torn.png"]
    assert all("\n" not in line for line in problems)
    assert "--set patch.size" in problems[1]
    assert encoder.file.fingerprint.count == 5


def test_too_few_images_and_wrong_ones(photos: Path) -> None:
    for seed in range(1, 4):
        (photos / f"{seed}.png").unlink()
    with pytest.raises(FileError, match="holds one photograph"):
        fit(photos)
    with pytest.raises(FileError, match="holds no photograph that can be used"):
        fit(photos, "jpeg-tables", "patch.size=128")
    for seed in range(4):
        Image.fromarray(np.zeros((50, 50), np.uint16)).save(photos / f"{seed}.png")
    with pytest.raises(FileError, match="8 bits"):
        fit(photos)


@pytest.mark.parametrize(
    ("recipe", "setting", "words"),
    [
        ("jpeg-lstn", "training.steps=1", "did you mean 'jpeg-lstm'"),
        ("jpeg-lstm", "training.step=1", "did you mean 'training.steps'"),
        ("jpeg-lstm", "attention.hiden=3", "hiden"),
        ("jpeg-lstm", "loss.sigma=1", "MS-SSIM"),
        ("jpeg-tables", "attention.name=vgg91", "vgg91"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_work(
    photos: Path, tmp_path: Path, recipe: str, setting: str, words: str
) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        fit(photos, recipe, setting, out=tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_without_lpips_the_error_names_a_way_to_train(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(RecipeError, match=r"^jpeg-tables: LPIPS is not here: .*--set loss\.gamma=0$"):
        fit(photos, "jpeg-tables", "loss.gamma=500")


def test_without_pretrained_weights_the_error_names_a_way_to_train(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BLEMISH_WEIGHTS", raising=False)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(FileError, match=r"--set attention\.weights=none"):
        fit(photos, "jpeg-vgg19")


def test_a_finished_fit_is_not_done_again(photos: Path, tmp_path: Path, recorder: Callable[..., Any]) -> None:
    recipe = override(load_deep_recipe("jpeg-tables"), list(TINY))
    model = tmp_path / "model"
    recorded = recorder()
    first = fit_jpeg_once(photos, recipe, model, title="tables", observer=recorded)
    assert recorded.stages[0] == "tables"
    before = (model / "model.json").read_bytes()
    again = recorder()
    second = fit_jpeg_once(photos, recipe, model, title="tables", observer=again)
    assert again.stages == []
    assert (model / "model.json").read_bytes() == before
    assert weights_of(second.model) == weights_of(first.model)
    other = override(recipe, ["lambdas=[0.5]"])
    with pytest.raises(UsageError, match=r"lambdas \[0\.001, 0\.1\], not \[0\.5\]"):
        fit_jpeg_once(photos, other, model, title="tables", observer=again)
    draw(photos / "9.png", 9)
    with pytest.raises(UsageError, match="other photographs"):
        fit_jpeg_once(photos, recipe, model, title="tables", observer=again)


def test_a_stopped_fit_resumes(photos: Path, tmp_path: Path, recorder: Callable[..., Any]) -> None:
    recipe = override(load_deep_recipe("jpeg-tables"), list(TINY))
    model = tmp_path / "model"
    with pytest.raises(Stopped):
        fit_jpeg_once(photos, recipe, model, title="t", observer=recorder(stop_after=6))
    on = fit_jpeg_once(photos, recipe, model, title="t", observer=recorder())
    assert weights_of(on.model) == weights_of(fit(photos).model)


# -- the command ---------------------------------------------------------------------------------------

OPTIONS = [word for setting in TINY for word in ("--set", setting)]


def test_fit_in_words_and_as_json(blemish: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    ran = blemish("jpeg", "fit", photos, "--recipe", "jpeg-lstm", "--out", tmp_path / "model", *OPTIONS)
    assert (ran.code, ran.err.splitlines()[0]) == (0, f"Reading the photographs in {photos}")
    assert ran.out.startswith(f"Model: {tmp_path / 'model'} (best of 6 steps at ")
    ran = blemish(
        "jpeg", "fit", photos, "--recipe", "jpeg-lstm", "--out", tmp_path / "model", *OPTIONS, "--overwrite", "--json"
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["recipe"], found["lambdas"]) == ("jpeg-lstm", [0.001, 0.1])
    assert found["training"]["steps"] == 6
    assert blemish("jpeg", "fit", photos, "--out", tmp_path / "model").code == 2


def test_the_command_gives_the_weights_that_the_library_gives(
    blemish: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    blemish("jpeg", "fit", photos, "--out", tmp_path / "model", *OPTIONS)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights_of(fit(photos).model)


def test_a_stopped_command_prints_the_command_to_resume(
    blemish: Callable[..., Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter(range(1000))
    monkeypatch.setattr("blemish.cli.console.ConsoleObserver.should_stop", lambda self: next(asked) >= 7)
    ran = blemish("jpeg", "fit", photos, "--out", tmp_path / "model", *OPTIONS)
    assert ran.code == 1
    assert ran.error.endswith("--resume")
    assert "go on with: blemish jpeg fit" in ran.error


def test_listing_recipes_loads_no_torch() -> None:
    code = (
        "import sys; from blemish.cli.jpeg import app; app(['recipes'], standalone_mode=False);"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"


def test_recipes_are_listed(blemish: Callable[..., Any]) -> None:
    found = json.loads(blemish("jpeg", "recipes", "--json").out)
    assert [recipe["name"] for recipe in found] == sorted(recipe["name"] for recipe in found)
    assert {"jpeg-tables", "jpeg-vgg19", "jpeg-lstm"} <= {recipe["name"] for recipe in found}
    lines = blemish("jpeg", "recipes").out.splitlines()
    assert len(lines) == len(found)
    assert all("Liu, Liu, Mantravadi 2022" in line or "Strümpler" in line for line in lines)


@pytest.mark.parametrize("command", ["fit", "recipes"])
def test_help_has_an_example(blemish: Callable[..., Any], command: str) -> None:
    ran = blemish("jpeg", command, "--help")
    assert ran.code == 0
    assert f"blemish jpeg {command}" in ran.out
    assert "--json" in ran.out


def test_decoded_jpegs_are_reported_before_the_training(photos: Path, tmp_path: Path) -> None:
    class Stages(Observer):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def stage(self, text: str) -> None:
            self.lines.append(text)

    rng = np.random.default_rng(0)
    image = np.full((256, 256, 3), 120.0)
    for octave in range(1, 8):
        coarse = rng.normal(0, 14, (2**octave, 2**octave)).astype(np.float32)
        image += np.asarray(Image.fromarray(coarse).resize((256, 256), 3))[..., None]
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(tmp_path / "a.jpg", quality=75)
    Image.open(tmp_path / "a.jpg").save(photos / "decoded.png")
    seen = Stages()
    fit(photos, observer=seen)
    assert sum("1 of 5 photographs looked at are decoded JPEGs" in line for line in seen.lines) == 1
    (photos / "decoded.png").unlink()
    clean = Stages()
    fit(photos, observer=clean)
    assert not [line for line in clean.lines if "are decoded JPEGs" in line]
