from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from blemish.jpeg import learn_tables as learning
from blemish.jpeg.distortion import Tune
from blemish.jpeg.learn_tables import crop, learn_ladder, learn_tables, objective
from blemish.jpeg.rate_distortion import CoefficientImage, prepare
from blemish.jpeg.tables import Tables, read_ladder


def photograph(side: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    soft = rng.integers(30, 220, (5, 6, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(soft).resize((side, side), 3)).astype(np.float64)
    image += rng.normal(0, 12, (side, side, 1)) + rng.normal(0, 3, (side, side, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def images() -> list[CoefficientImage]:
    return [prepare(photograph(64, seed), "4:2:0") for seed in range(2)]


START = Tables(np.full(64, 60.0), np.full(64, 25.0), 1.0)


def test_the_gradient_is_the_slope_of_the_objective() -> None:
    noise = np.random.default_rng(0).normal(128, 30, (96, 96, 3))
    images = [prepare(np.clip(noise, 0, 255).astype(np.uint8), "4:2:0")]
    start = np.log(np.concatenate([START.luma, START.chroma]))
    _, gradient = objective(images, START, "psnr")
    for part in (slice(0, 64), slice(64, 128)):
        ends = []
        for move in (0.1, -0.1):
            x = start.copy()
            x[part] += move
            tables = Tables(np.exp(x[:64]), np.exp(x[64:]), START.lam)
            ends.append(objective(images, tables, "psnr")[0])
        assert gradient[part].sum() == pytest.approx((ends[0] - ends[1]) / 0.2, rel=0.1)


@pytest.mark.parametrize("tune", ["psnr", "ssimulacra2"])
def test_learned_tables_cost_less(images: list[CoefficientImage], tune: Tune) -> None:
    learned = learn_tables(images, START, tune, steps=12)
    assert objective(images, learned, tune)[0] < 0.95 * objective(images, START, tune)[0]
    assert learned.lam == START.lam
    assert learned.luma.mean() < 60
    assert min(learned.luma.min(), learned.chroma.min()) >= 1


def test_a_ladder_has_a_knot_for_each_price_with_finer_tables_for_dearer_errors(
    images: list[CoefficientImage],
) -> None:
    lines: list[str] = []
    ladder = ((1.0, 400.0), (50.0, 60.0), (100.0, 4.0))
    knots = learn_ladder(images, "psnr", ladder=ladder, first_steps=6, steps=3, report=lines.append)
    assert [(knot.quality, knot.lam) for knot in knots] == list(ladder)
    assert (np.diff([np.log(knot.luma).mean() for knot in knots]) < 0).all()
    assert len(lines) == 3


def test_crops_are_whole_mcus_from_the_middle() -> None:
    pixels = np.arange(100)[:, None] * np.ones((1, 30), int)
    assert crop(pixels, 64)[:, 0].tolist() == list(range(16, 80))
    assert crop(pixels, 64).shape == (64, 30)


def test_the_command_writes_a_ladder_and_keeps_the_other_tunes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    app = typer.Typer()
    app.command()(learning.main)
    monkeypatch.setattr(learning, "CROP", 32)
    for name, seed in (("a", 0), ("b", 1)):
        Image.fromarray(photograph(32, seed)).save(tmp_path / f"{name}.png")
    out = tmp_path / "tables.json"

    def run(*arguments: str) -> int:
        return CliRunner().invoke(app, [str(tmp_path), "--out", str(out), *arguments]).exit_code

    def quick(images: list[CoefficientImage], tune: Tune, **_: object) -> list[learning.Knot]:
        return learn_ladder(images, tune, ladder=((1, 500.0), (100, 2.0)), first_steps=2, steps=1)

    monkeypatch.setattr(learning, "learn_ladder", quick)
    assert run("--tune", "ms-ssim") == 0
    assert list(read_ladder(out).tunes) == ["ms-ssim"]
    before = read_ladder(out).tunes["ms-ssim"]
    assert run("--tune", "psnr") == 0
    assert list(read_ladder(out).tunes) == ["psnr", "ms-ssim"]
    assert read_ladder(out).tunes["ms-ssim"] == before
    assert not list(tmp_path.glob(".*"))


def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(learning.main)
    empty = CliRunner().invoke(app, [str(tmp_path), "--out", str(tmp_path / "out.json")])
    assert (empty.exit_code, "holds no PNG or TIFF photographs" in empty.output) == (2, True)
    Image.fromarray(photograph(32, 0)[..., 0]).save(tmp_path / "grey.png")
    grey = CliRunner().invoke(app, [str(tmp_path), "--out", str(tmp_path / "out.json")])
    assert (grey.exit_code, "holds grey photographs only" in grey.output) == (2, True)
    unknown = CliRunner().invoke(app, [str(tmp_path), "--tune", "lpips"])
    assert (unknown.exit_code, "tune 'lpips' is unknown" in unknown.output) == (2, True)


def test_decoded_jpegs_are_left_out_of_learning_and_reported(tmp_path: Path) -> None:
    from typer import Typer

    app = Typer()
    app.command()(learning.main)
    rng = np.random.default_rng(0)
    image = np.full((256, 256, 3), 120.0)
    for octave in range(1, 8):
        coarse = rng.normal(0, 14, (2**octave, 2**octave)).astype(np.float32)
        image += np.asarray(Image.fromarray(coarse).resize((256, 256), 3))[..., None]
    lossless = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    Image.fromarray(lossless).save(tmp_path / "photo.jpg", quality=75)
    jpeg = tmp_path / "photos" / "decoded.png"
    jpeg.parent.mkdir()
    Image.open(tmp_path / "photo.jpg").save(jpeg)
    refused = CliRunner().invoke(app, [str(jpeg.parent), "--out", str(tmp_path / "out.json")])
    assert refused.exit_code == 2
    assert f"{jpeg}: is left out, a decoded JPEG" in refused.output
    assert "all photographs are decoded JPEGs; take lossless sources, or halve them" in refused.output
    assert not (tmp_path / "out.json").exists()
    kept = learning.without_lattice({jpeg: np.asarray(Image.open(jpeg)), Path("lossless.png"): lossless})
    assert len(kept) == 1
    assert kept[0] is lossless
