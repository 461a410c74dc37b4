from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from blemish.jpeg import selection
from blemish.jpeg.entropy import picture_bits
from blemish.jpeg.file import to_bytes
from blemish.jpeg.selection import assemble, decoded_plane, prepare, select
from blemish.jpeg.tables import Tables
from blemish.jpeg.transform import planes_of
from blemish.jpeg.tuning import TUNES, Tune


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Soft colours, an edge, and grain that grows to the right: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    soft = rng.integers(30, 220, (5, 6, 3)).astype(np.uint8)
    picture = np.asarray(Image.fromarray(soft).resize((width, height), 3)).astype(np.float64)
    picture[height // 2 :, width // 3 : width // 2] += 40
    picture += rng.normal(0, 1, (height, width, 1)) * np.linspace(1, 20, width)[:, None]
    picture += rng.normal(0, 4, (height, width, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def flat_tables(step: float, lam: float) -> Tables:
    return Tables(np.full(64, step), np.full(64, step), lam)


def test_what_is_decoded_is_what_was_transformed() -> None:
    picture = prepare(photograph(20, 30), "4:2:0")
    for component, plane in zip(picture.components, planes_of(photograph(20, 30), "4:2:0"), strict=True):
        levels = np.round(component.dct * 16).astype(np.int16)
        assert decoded_plane(levels, np.full(64, 1 / 16), component) == pytest.approx(plane, abs=0.2)


@pytest.mark.parametrize("tune", TUNES)
def test_what_is_chosen_costs_less_than_rounding(tune: Tune) -> None:
    picture = prepare(photograph(96, 112), "4:2:0")
    tables = flat_tables(20, 45.0)
    chosen = select(picture, tables, tune)

    def cost(levels: list[np.ndarray]) -> float:
        planes = tuple(
            selection.Chosen(plane.target, plane.weights, each)
            for plane, each in zip(chosen, levels, strict=True)
        )
        distortion = sum(
            float((plane.weights * (plane.target - 20.0 * plane.levels) ** 2).sum()) for plane in planes
        )
        return distortion + tables.lam * picture_bits(assemble(picture, planes, tables))

    rounded = [np.round(plane.target / 20).astype(np.int16) for plane in chosen]
    assert cost([plane.levels for plane in chosen]) < 0.95 * cost(rounded)


def test_luma_makes_up_for_what_chroma_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photograph(64, 64)
    picture = prepare(pixels, "4:2:0")
    tables = Tables(np.full(64, 2.0), np.full(64, 60.0), 1.0)

    def squared_error() -> float:
        data = to_bytes(assemble(picture, select(picture, tables, "psnr"), tables))
        decoded = np.asarray(Image.open(io.BytesIO(data)), np.float64)
        return float(((decoded - pixels) ** 2).mean())

    with_it = squared_error()
    monkeypatch.setattr(selection, "_compensation", lambda *_: np.float32(0))
    assert with_it < 0.95 * squared_error()


def test_weights_of_different_pictures_are_on_one_scale() -> None:
    for seed, tune in ((0, "ms-ssim"), (1, "ms-ssim"), (0, "balanced")):
        picture = prepare(photograph(96, 112, seed), "4:2:0")
        luma = select(picture, flat_tables(12, 10.0), tune)[0]
        kept = luma.weights[:, 1:][luma.levels[:, 1:] != 0]
        assert 0.5 < np.exp(np.log(kept).mean()) < 2


def test_pictures_too_small_for_a_window_are_tuned_for_psnr() -> None:
    picture = prepare(photograph(10, 40), "4:2:0")
    tables = flat_tables(12, 20.0)
    for tuned, plain in zip(select(picture, tables, "ms-ssim"), select(picture, tables, "psnr"), strict=True):
        assert (tuned.levels == plain.levels).all()


def test_grey_has_one_plane_at_full_size() -> None:
    picture = prepare(photograph(24, 16)[..., 0], "4:2:0")
    tables = flat_tables(9, 5.0)
    coefficients = assemble(picture, select(picture, tables, "balanced"), tables)
    assert (len(coefficients.planes), coefficients.sampling) == (1, "4:4:4")
