from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from blemish.jpeg import prices as pricing
from blemish.jpeg import rate_distortion as selection
from blemish.jpeg.chroma import halved_for_upsampling
from blemish.jpeg.coefficients import Sampling
from blemish.jpeg.distortion import COLOUR, TUNES, Tune, upsample
from blemish.jpeg.entropy import image_bits
from blemish.jpeg.file import to_bytes
from blemish.jpeg.rate_distortion import Chosen, CoefficientImage, assemble, decoded_plane, prepare, select
from blemish.jpeg.tables import Tables
from blemish.jpeg.transform import planes_of
from blemish.jpeg.tuning import TUNINGS, fixed_chroma


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Soft colours, an edge, and grain that grows to the right: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    soft = rng.integers(30, 220, (5, 6, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(soft).resize((width, height), 3)).astype(np.float64)
    image[height // 2 :, width // 3 : width // 2] += 40
    image += rng.normal(0, 1, (height, width, 1)) * np.linspace(1, 20, width)[:, None]
    image += rng.normal(0, 4, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def flat_tables(step: float, lam: float) -> Tables:
    return Tables(np.full(64, step), np.full(64, step), lam)


def test_decoding_inverts_the_transform() -> None:
    image = prepare(photograph(20, 30), "4:2:0")
    y, *chroma = planes_of(photograph(20, 30), "4:4:4")
    planes = (y, *map(halved_for_upsampling, chroma))
    for component, plane in zip(image.components, planes, strict=True):
        levels = np.round(component.dct * 16).astype(np.int16)
        assert decoded_plane(levels, np.full(64, 1 / 16), component) == pytest.approx(plane, abs=0.2)


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("size", [(100, 60), (33, 47)])
def test_results_do_not_depend_on_strips(
    size: tuple[int, int], sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = photograph(*size)
    tables = flat_tables(20, 45.0)

    def choose() -> tuple[CoefficientImage, tuple[Chosen, ...]]:
        image = prepare(pixels, sampling)
        return image, select(image, tables, "balanced")

    whole, of_whole = choose()
    monkeypatch.setattr(selection, "_PIXELS_AT_ONCE", 1)  # an MCU row each
    monkeypatch.setattr(pricing, "_BLOCKS_AT_ONCE", 7)
    strips, of_strips = choose()
    np.testing.assert_array_equal(whole.luma, strips.luma)
    for one, other in zip(whole.components, strips.components, strict=True):
        np.testing.assert_allclose(one.dct, other.dct, atol=1e-3)
    for a, b in zip(of_whole, of_strips, strict=True):
        np.testing.assert_allclose(a.target, b.target, atol=1e-2)
        assert (a.levels == b.levels).mean() > 0.999  # a tie may fall either way


@pytest.mark.parametrize("tune", TUNES)
def test_chosen_levels_cost_less_than_rounded_ones(tune: Tune) -> None:
    image = prepare(photograph(96, 112), "4:2:0")
    tables = flat_tables(20, 45.0)
    chosen = select(image, tables, tune)

    def cost(levels: list[np.ndarray]) -> float:
        planes = tuple(
            selection.Chosen(plane.target, plane.weights, each)
            for plane, each in zip(chosen, levels, strict=True)
        )
        distortion = sum(
            float((plane.weights * (plane.target - 20.0 * plane.levels) ** 2).sum()) for plane in planes
        )
        return distortion + tables.lam * image_bits(assemble(image, planes, tables))

    rounded = [np.round(plane.target / 20).astype(np.int16) for plane in chosen]
    assert cost([plane.levels for plane in chosen]) < 0.95 * cost(rounded)


def test_luma_makes_up_for_what_chroma_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photograph(64, 64)
    image = prepare(pixels, "4:2:0")
    tables = Tables(np.full(64, 2.0), np.full(64, 60.0), 1.0)

    def squared_error() -> float:
        data = to_bytes(assemble(image, select(image, tables, "psnr"), tables))
        decoded = np.asarray(Image.open(io.BytesIO(data)), np.float64)
        return float(((decoded - pixels) ** 2).mean())

    with_it = squared_error()
    monkeypatch.setattr(selection, "_compensation", lambda *_: np.float32(0))
    assert with_it < 0.95 * squared_error()


def test_chroma_makes_up_for_what_luma_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = photograph(64, 64).astype(np.float32)
    pixels = np.asarray(Image.fromarray(smooth.astype(np.uint8)).resize((128, 128), 3))
    image = prepare(pixels, "4:4:4")
    tables = Tables(np.full(64, 60.0), np.full(64, 2.0), 1.0)

    def squared_error() -> float:
        data = to_bytes(assemble(image, select(image, tables, "psnr"), tables))
        decoded = np.asarray(Image.open(io.BytesIO(data)), np.float64)
        return float(((decoded - pixels) ** 2).mean())

    with_it = squared_error()
    monkeypatch.setattr(selection, "TO_CHROMA", np.zeros(2))
    assert with_it < 0.95 * squared_error()


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_prices_of_errors_add_up_to_the_squared_error_of_rgb(sampling: Sampling) -> None:
    """Under ``psnr``, with what halving has lost, by the pixels that a decoder gives, unclipped and not rounded."""
    pixels = photograph(96, 112)
    pixels[::5, ::3, 0] = 200  # fine colour, which halving loses
    image = prepare(pixels, sampling)
    tables = Tables(np.full(64, 30.0), np.full(64, 50.0), 60.0)
    chosen = select(image, tables, "psnr")
    found = chosen[0].distortion(tables.luma) + sum(plane.distortion(tables.chroma) for plane in chosen[1:])
    planes = [
        decoded_plane(plane.levels, tables.chroma if index else tables.luma, component)
        for index, (plane, component) in enumerate(zip(chosen, image.components, strict=True))
    ]
    if sampling == "4:2:0":
        planes[1:] = [upsample(plane, *pixels.shape[:2]) for plane in planes[1:]]
    errors = np.stack([*planes]) - np.stack(planes_of(pixels, "4:4:4"))
    expected = float(np.einsum("ihw,ij,jhw->", errors, COLOUR, errors))
    assert found == pytest.approx(expected, rel=0.05)  # Cb and Cr share a small part, which is left out


def test_compensation_is_as_strong_as_the_share_that_asks_for_it() -> None:
    """Where SSIMULACRA2 has all of the price, luma stays where it is; where it has none, it goes all the way."""
    image = prepare(photograph(96, 112), "4:2:0")
    tables = flat_tables(20, 45.0)
    shifts = {}
    for own in (0.0, 1.0, 1e6):
        mixed = replace(
            TUNINGS["balanced"], squared=1.0, ms_ssim=0.0, chroma_squared=1.0, chroma_ms_ssim=0.0,
            ssimulacra2=own, luma_scales=(1.0,) * 5, chroma_scales=((0.0,) * 5,) * 2, compensation=1.0,
        )  # fmt: skip
        with pytest.MonkeyPatch.context() as monkey:
            monkey.setitem(TUNINGS, "balanced", mixed)
            luma = select(image, tables, "balanced")[0]
        shifts[own] = float(np.abs(luma.target - image.components[0].dct).mean())
    assert shifts[0.0] > 1.3 * shifts[1.0] > 100 * shifts[1e6]


def test_weights_of_different_images_are_on_one_scale() -> None:
    for seed, tune in ((0, "ms-ssim"), (1, "ms-ssim"), (0, "balanced"), (1, "ssimulacra2")):
        image = prepare(photograph(96, 112, seed), "4:2:0")
        luma = select(image, flat_tables(12, 10.0), tune)[0]
        kept = luma.weights[:, 1:][luma.levels[:, 1:] != 0]
        assert 0.5 < np.exp(np.log(kept).mean()) < 2


@pytest.mark.parametrize("tune", TUNES)
def test_images_too_small_for_a_window_are_tuned_for_psnr(tune: Tune) -> None:
    image = prepare(photograph(10, 40), "4:2:0")
    tables = flat_tables(12, 20.0)
    for tuned, plain in zip(select(image, tables, tune), select(image, tables, "psnr"), strict=True):
        assert (tuned.levels == plain.levels).all()


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_for_ssimulacra2_luma_stays_and_chroma_has_prices_of_its_own(sampling: Sampling) -> None:
    image = prepare(photograph(96, 112), sampling)
    tables = flat_tables(20, 45.0)
    luma, cb, cr = select(image, tables, "ssimulacra2")
    assert luma.target is image.components[0].dct
    for plane, own in zip((cb, cr), fixed_chroma(TUNINGS["ssimulacra2"], sampling)[1:], strict=True):
        ratio = plane.weights / own
        assert ratio == pytest.approx(ratio[0, 0], rel=1e-5)  # the same in each block, flat or rough
    importance = np.ones(image.components[0].blocks, np.float32)
    importance[:4, :4] = 9
    weighted = select(image, tables, "ssimulacra2", importance)[1].weights / cb.weights
    assert weighted[0] == pytest.approx(9, rel=1e-5)
    assert weighted[-1] == pytest.approx(1, rel=1e-5)


def test_grey_has_one_plane_at_full_size() -> None:
    image = prepare(photograph(24, 16)[..., 0], "4:2:0")
    tables = flat_tables(9, 5.0)
    coefficients = assemble(image, select(image, tables, "balanced"), tables)
    assert (len(coefficients.planes), coefficients.sampling) == (1, "4:4:4")
