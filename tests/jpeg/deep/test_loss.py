from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import pytorch_msssim
import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.jpeg.deep.loss import Lpips, distortion, rate
from blemish.jpeg.deep.recipe import LossSettings
from blemish.jpeg.quality import LPIPS_TRUNK


@pytest.fixture
def trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where LPIPS looks for its trunk; the file is not there."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints" / LPIPS_TRUNK


@pytest.fixture
def drawn(trunk: Path) -> Path:
    """A trunk of the official layout that holds other numbers."""
    torchvision: Any = import_module("torchvision")
    with torch.device("meta"):
        layout = torchvision.models.alexnet().state_dict()
    torch.manual_seed(0)
    trunk.parent.mkdir(parents=True)
    torch.save(
        {
            key: 0.05 * torch.randn(value.shape) if "features" in key else torch.zeros(()).expand(value.shape)
            for key, value in layout.items()
        },
        trunk,
    )
    return trunk


def pair(side: int = 64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.rand(2, 3, side, side)
    noise = torch.tensor([0.02, 0.2]).view(2, 1, 1, 1) * torch.randn_like(x)
    return x, (x + noise).clamp(0, 1)


def test_mse_is_in_levels_of_255() -> None:
    x, y = pair()
    terms = distortion(x, y, LossSettings(gamma=0, sigma=0), Lpips())
    expected = [((a * 255 - b * 255) ** 2).mean().item() for a, b in zip(x, y, strict=True)]
    assert terms["mse"].tolist() == pytest.approx(expected, rel=1e-5)


def test_ms_ssim_is_that_of_the_reference_under_its_weight() -> None:
    x, y = pair(176)
    terms = distortion(x, y, LossSettings(gamma=0, sigma=700), Lpips())
    expected = pytorch_msssim.ms_ssim(x, y, data_range=1.0, size_average=False)
    torch.testing.assert_close(1 - terms["ms-ssim"] / 700, expected, atol=1e-5, rtol=0)


def test_a_weight_of_zero_leaves_the_term_out_and_asks_for_nothing(trunk: Path) -> None:
    x, y = pair()
    assert list(distortion(x, y, LossSettings(gamma=0, sigma=0), Lpips())) == ["mse"]


def test_missing_lpips_is_one_line_with_two_remedies(trunk: Path) -> None:
    x, y = pair()
    with pytest.raises(UsageError) as caught:
        distortion(x, y, LossSettings(gamma=500, sigma=0), Lpips())
    message = str(caught.value)
    assert LPIPS_TRUNK in message
    assert message.endswith("or train without it by --set loss.gamma=0")
    assert "\n" not in message
    assert not trunk.parent.exists()  # nothing was downloaded


def test_lpips_is_that_of_torchmetrics_and_has_a_gradient(drawn: Path) -> None:
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    x, y = pair()
    y.requires_grad_()
    lpips = Lpips()
    terms = distortion(x, y, LossSettings(gamma=300, sigma=0), lpips)
    for index in range(2):
        expected = learned_perceptual_image_patch_similarity(
            x[index : index + 1], y[index : index + 1], net_type="alex", normalize=True
        )
        assert terms["lpips"][index].item() == pytest.approx(300 * expected.item(), rel=1e-4)
    terms["lpips"].sum().backward()
    assert y.grad is not None
    assert bool(y.grad.isfinite().all())
    assert all(float(grad.abs().max()) > 0 for grad in y.grad)
    assert lpips(x, x).abs().max() < 1e-6


def test_the_two_readings_of_the_rate() -> None:
    torch.manual_seed(0)
    luma, chroma = torch.rand(2, 3, 4, 8, 8), torch.rand(2, 2, 2, 8, 8)
    tables = torch.randint(1, 256, (2, 2, 8, 8)).float()
    for index in range(2):
        weights = LossSettings(alpha=7, beta=3)
        reciprocal = sum(1 / float(q) for q in tables[index].flatten())
        mean_l, mean_c = float(luma[index].mean()), float(chroma[index].mean())
        found = rate((luma, chroma), tables, weights)[index]
        assert float(found) == pytest.approx(7 * reciprocal + 3 * (mean_l + mean_c), rel=1e-5)
        # the released code's mean is over Y, Cb and Cr
        weights = LossSettings(alpha=7, beta=3, reading="strumpler2020")
        found = rate((luma, chroma), tables, weights)[index]
        assert float(found) == pytest.approx(7 * reciprocal + mean_l + 2 * mean_c, rel=1e-5)


def test_the_rate_falls_with_coarser_tables_and_less_attention() -> None:
    maps = torch.full((1, 1, 1, 8, 8), 0.5, requires_grad=True)
    tables = torch.full((1, 2, 8, 8), 16.0, requires_grad=True)
    rate((maps, maps), tables, LossSettings()).sum().backward()
    assert tables.grad is not None
    assert maps.grad is not None
    torch.testing.assert_close(tables.grad, torch.full_like(tables, -10 / 16**2))
    torch.testing.assert_close(maps.grad, torch.full_like(maps, 2 / 64))
