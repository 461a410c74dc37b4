from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import pytorch_msssim
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from blemish.jpeg import quality as measuring

Pixels = NDArray[np.uint8]


def pair(
    height: int = 176, width: int = 190, *, grey: bool = False, noise: float = 8
) -> tuple[Pixels, Pixels]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 60 * np.sin(x / 9 + c) * np.cos(y / 7) for c in range(3)]
    original = np.stack(waves, -1) + rng.normal(0, 5, (height, width, 3))
    noisy = original + rng.normal(0, noise, original.shape)
    both = [np.clip(image, 0, 255).astype(np.uint8) for image in (original, noisy)]
    return (both[0][..., 0], both[1][..., 0]) if grey else (both[0], both[1])


def test_psnr_against_scikit_image() -> None:
    x, y = pair()
    expected = peak_signal_noise_ratio(x, y, data_range=255)
    assert measuring.measure(x, y, ["psnr_rgb"])["psnr_rgb"] == pytest.approx(expected)


def test_psnr_of_luma_is_that_of_pillows_grey() -> None:
    x, y = pair(noise=20)
    grey = [np.asarray(Image.fromarray(image).convert("L")) for image in (x, y)]
    found = measuring.measure(x, y, ["psnr_y"])["psnr_y"]
    assert found == pytest.approx(peak_signal_noise_ratio(grey[0], grey[1], data_range=255), abs=0.05)


def test_colour_errors_that_cancel_in_luma_leave_it() -> None:
    x = np.full((8, 8, 3), 100, np.uint8)
    y = x + np.array([0, 0, 50], np.uint8)
    assert measuring.luma_mse(x, y) == pytest.approx((0.114 * 50) ** 2)
    assert measuring.mse(x, y) == pytest.approx(50**2 / 3)


def test_grey_is_its_own_luma() -> None:
    x, y = pair(grey=True)
    found = measuring.measure(x, y, ["psnr_rgb", "psnr_y"])
    assert found["psnr_rgb"] == found["psnr_y"]


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [(176, 190), (161, 203)])
def test_ms_ssim_against_pytorch_msssim(grey: bool, size: tuple[int, int]) -> None:
    x, y = pair(*size, grey=grey, noise=25)
    batches = [
        torch.from_numpy(image[None] if grey else image.transpose(2, 0, 1))[None].float() for image in (x, y)
    ]
    expected = pytorch_msssim.ms_ssim(batches[0], batches[1], data_range=255)
    assert measuring.ms_ssim(x, y) == pytest.approx(float(expected), abs=2e-6)


def test_ms_ssim_of_an_image_too_small_is_none() -> None:
    x, y = pair(160, 300)
    assert measuring.ms_ssim(x, y) is None


def test_equal_images() -> None:
    x, _ = pair()
    found = measuring.measure(x, x, ["mse", "psnr_rgb", "psnr_y", "ms_ssim", "ssimulacra2"])
    assert found["mse"] == 0
    assert found["psnr_rgb"] is None
    assert found["psnr_y"] is None
    assert found["ms_ssim"] == pytest.approx(1)
    assert found["ssimulacra2"] == pytest.approx(100)


@pytest.mark.parametrize("grey", [False, True])
def test_ssimulacra2_falls_with_noise(grey: bool) -> None:
    found = [measuring.ssimulacra2(*pair(noise=noise, grey=grey)) for noise in (2, 10, 40)]
    assert found == sorted(found, reverse=True)  # type: ignore[type-var]
    assert 100 > found[0] > 50 > found[2]  # type: ignore[operator]


def test_ssimulacra2_of_an_image_too_small_is_none() -> None:
    x, y = np.zeros((8, 9, 3), np.uint8), np.full((8, 9, 3), 200, np.uint8)
    found = measuring.ssimulacra2(x, y)
    assert found is not None
    assert found < 90
    assert measuring.measure(x[:7], y[:7], ["ssimulacra2"]) == {"ssimulacra2": None}
    assert measuring.ssimulacra2(x[:, :7], y[:, :7]) is None


def test_lpips_without_its_network_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found, missing = measuring.measures()
    assert "lpips" not in found
    assert [one.name for one in missing] == ["LPIPS"]
    assert measuring.LPIPS_TRUNK in missing[0].remedy
    trunk = tmp_path / "hub" / "checkpoints" / measuring.LPIPS_TRUNK
    trunk.parent.mkdir(parents=True)
    trunk.touch()
    assert "lpips" in measuring.measures()[0]


def test_the_folder_of_networks_is_torchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert measuring._hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"
    monkeypatch.delenv("TORCH_HOME")
    assert measuring._hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_slow_measures_can_be_left_out() -> None:
    found, missing = measuring.measures(ssimulacra2=False, lpips=False)
    assert found == ["mse", "psnr_rgb", "psnr_y", "ms_ssim"]
    assert missing == []


def test_psnr_of_one_level() -> None:
    assert measuring.psnr(1.0) == pytest.approx(20 * math.log10(255))


def test_lpips_of_an_image_too_small_for_its_network_is_none() -> None:
    x, y = pair(measuring.SMALLEST_LPIPS - 1, 60)
    assert measuring.measure(x, y, ["lpips"]) == {"lpips": None}


def test_the_smallest_image_of_lpips_is_the_smallest_that_alexnet_takes() -> None:
    from blemish.layers import torchvision_operators as torchvision_operators  # isort: skip
    from torchvision.models import alexnet

    features = alexnet(weights=None).features[:-1]  # LPIPS takes no notice of the last pooling
    side = measuring.SMALLEST_LPIPS
    assert features(torch.zeros(1, 3, side, side)).shape[2:] == (1, 1)
    with pytest.raises(RuntimeError):
        features(torch.zeros(1, 3, side - 1, side))
