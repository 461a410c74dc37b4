from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from blemish.jpeg.coefficients import Sampling
from blemish.jpeg.distortion import TUNES, chroma_response, upsample
from blemish.jpeg.entropy import UNZIGZAG
from blemish.jpeg.transform import DCT
from blemish.jpeg.tuning import TUNINGS, fixed_chroma

TUNING = TUNINGS["ssimulacra2"]


def pixels_of(blocks: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(N, 64) coefficients in zigzag order -> their pixels."""
    dct = blocks[:, UNZIGZAG].reshape(rows, columns, 8, 8).astype(np.float32)
    return (DCT.T @ dct @ DCT).swapaxes(1, 2).reshape(rows * 8, columns * 8)


def test_every_tune_has_its_proportions_and_what_it_is_named_after_counts() -> None:
    assert set(TUNINGS) == set(TUNES)
    assert TUNINGS["psnr"].squared > 0 == TUNINGS["psnr"].ms_ssim == TUNINGS["psnr"].ssimulacra2
    assert TUNINGS["ms-ssim"].ms_ssim > 0
    assert TUNINGS["ssimulacra2"].ssimulacra2 > TUNINGS["ssimulacra2"].squared
    assert min(TUNINGS["balanced"].squared, TUNINGS["balanced"].ms_ssim, TUNINGS["balanced"].ssimulacra2) > 0


def test_squared_error_of_chroma_is_that_of_the_upsampled_plane() -> None:
    squared, cb, cr = fixed_chroma(TUNINGS["psnr"], "4:2:0")
    np.testing.assert_allclose(squared, chroma_response("4:2:0"))
    assert not cb.any()
    assert not cr.any()


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("place", [0, 4, 24, 63])
def test_the_price_of_chroma_is_that_of_what_is_left_of_its_error_at_each_scale(
    place: int, sampling: Sampling
) -> None:
    factor = 2 if sampling == "4:2:0" else 1
    block = np.zeros((1, 64), np.float32)
    block[0, place] = 1
    plane = np.zeros((256 // factor, 256 // factor), np.float32)
    plane[128 // factor :, 128 // factor :][:8, :8] = pixels_of(block, 1, 1)
    if factor == 2:
        plane = upsample(plane, 256, 256)
    expected = np.zeros(2)
    for scale, prices in enumerate(zip(*TUNING.chroma_scales, strict=True)):
        side = 2**scale
        error = plane.reshape(256 // side, side, 256 // side, side).mean((1, 3), dtype=np.float64)
        mean = ndimage.gaussian_filter(error, 1.5, mode="constant", radius=5)
        expected += np.array(prices) * ((error**2).sum() - (mean**2).sum()) * side**2
    _, *prices_of = fixed_chroma(TUNING, sampling)
    assert [own[place] for own in prices_of] == pytest.approx(expected.tolist(), rel=0.01, abs=1e-3)


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_no_frequency_of_chroma_is_free(sampling: Sampling) -> None:
    # means of 2 × 2 pixels do not see some of them
    _, *prices_of = fixed_chroma(TUNING, sampling)
    assert min(own.min() for own in prices_of) > 0.05 * min(own[1:].mean() for own in prices_of)
