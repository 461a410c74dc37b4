"""Synthetic anomalies: their shapes, strengths and blending, and the label derived from them."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor

from blemish.data.maps import write_image
from blemish.errors import FileError, ImageError, RecipeError
from blemish.models import Autoencoder, build, contact_sheet
from blemish.models.anomaly_fillings import blend_seamlessly, blur, inpaint_smooth, mix_detail
from blemish.models.anomaly_shapes import Draws, perlin, sample_areas, sample_locations, spread
from blemish.models.contact_sheet import GAP
from blemish.models.synthetic_anomalies import (
    FILLINGS,
    SyntheticAnomalies,
    anomaly_mask,
    read_textures,
    synthesise_anomalies,
)
from blemish.recipes import parse_recipe

NAN = float("nan")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def textures(count: int, channels: int = 1, height: int = 64, width: int = 64, seed: int = 1) -> Tensor:
    noise = torch.randn(count, channels, height, width, generator=seeded(seed))
    return (0.5 + 0.5 * blur(noise, 1)).clamp(0, 1)


def model(corruption: str = "synthetic-anomalies", channels: int = 1) -> Autoencoder:
    recipe = {
        "name": "small",
        "title": "Small",
        "paper": "none",
        "expect": "little",
        "patch": {"size": 32, "stride": 32},
        "corruption": [{"name": corruption}],
        "encoder": {"name": "bergmann"},
        "decoder": {"name": "bergmann"},
        "loss": [{"name": "mse"}],
        "residual": {"name": "mse"},
    }
    return build(parse_recipe(recipe, "small"), channels)


def test_perlin_noise_interpolates_the_gradients_of_its_lattice() -> None:
    noise = perlin(torch.tensor([7.0]), 20, 30, seeded())
    generator = seeded()
    phase = torch.rand(2, 1, generator=generator)[:, 0].tolist()
    points = math.ceil(30 / 7) + 2
    theta = (torch.rand(1, points, points, generator=generator) * 2 * math.pi)[0].tolist()

    def fade(s: float) -> float:
        return 6 * s**5 - 15 * s**4 + 10 * s**3

    for row, column in ((0, 0), (3, 17), (11, 6), (19, 29)):
        y, x = row / 7 + phase[0], column / 7 + phase[1]
        top, left = math.floor(y), math.floor(x)
        corner = [
            [
                math.sin(theta[top + i][left + j]) * (y - top - i)
                + math.cos(theta[top + i][left + j]) * (x - left - j)
                for j in (0, 1)
            ]
            for i in (0, 1)
        ]
        upper, lower = (a + fade(x - left) * (b - a) for a, b in corner)
        expected = math.sqrt(2) * (upper + fade(y - top) * (lower - upper))
        assert noise[0, 0, row, column].item() == pytest.approx(expected, abs=1e-5)


def test_perlin_noise_fills_its_range_and_is_smoother_with_larger_cells() -> None:
    noise = perlin(torch.tensor([4.0] * 20 + [32.0] * 20), 64, 48, seeded())
    assert noise.shape == (40, 1, 64, 48)
    assert 0.8 < noise.abs().max() <= 1
    assert abs(noise.mean()) < 0.02
    steps = noise.diff(dim=-1).abs().mean((1, 2, 3))
    assert steps[:20].mean() / steps[20:].mean() == pytest.approx(8, rel=0.3)


def test_most_locations_lie_on_the_object_and_some_on_the_background() -> None:
    x = torch.full((400, 1, 64, 96), 0.8)
    x[..., 16:32, 32:64] = textures(1)[..., 16:32, :32]
    at = sample_locations(x, seeded())
    assert (at >= 0).all()
    assert (at < torch.tensor([64, 96])).all()
    on = ((at >= torch.tensor([16, 32])) & (at < torch.tensor([32, 64]))).all(1).float().mean()
    assert 0.75 < on < 0.99
    plain = sample_locations(torch.full((400, 1, 64, 96), 0.8), seeded())
    assert (plain.mean(0) - torch.tensor([31.5, 47.5])).abs().max() < 4


def test_areas_have_the_requested_size() -> None:
    x = textures(300, height=96, width=128)
    for size in (0.1, 0.3):
        sampled = sample_areas(x, size, size, seeded())
        area = sampled.mask.sum((1, 2, 3))
        disc = math.pi / 4 * (size * 96) ** 2
        # Roughness and the border of the image change the area; scratches are thin.
        assert 0.3 * disc < area.median() < 1.2 * disc
        assert area.max() < 3 * disc
        rows = torch.arange(96).view(1, 1, -1, 1) - sampled.centre[:, 0].view(-1, 1, 1, 1)
        columns = torch.arange(128).view(1, 1, 1, -1) - sampled.centre[:, 1].view(-1, 1, 1, 1)
        reach = torch.hypot(rows, columns).mul(sampled.mask > 0).amax((1, 2, 3))
        assert reach.max() < 3 * size * 96
    small, large = (
        torch.quantile(sample_areas(x, 0.02, 0.25, seeded()).mask.sum((1, 2, 3)), q) for q in (0.1, 0.9)
    )
    assert large > 15 * small


def test_the_mask_of_an_area_has_a_soft_edge_and_depth_inside() -> None:
    sampled = sample_areas(textures(100), 0.1, 0.3, seeded())
    assert sampled.mask.min() == 0
    assert sampled.mask.max() == 1
    assert ((sampled.mask > 0) & (sampled.mask < 1)).any((1, 2, 3)).float().mean() > 0.95
    assert (sampled.mask[sampled.depth > 0] >= 0.5).all()
    assert (sampled.depth[sampled.mask == 0] == 0).all()
    assert sampled.depth.max() > 0.9
    chosen = torch.tensor([3, 5])
    assert torch.equal(sampled.select(chosen).mask, sampled.mask[chosen])


def test_blur_is_two_box_means_over_pixels_inside_the_image() -> None:
    x = torch.zeros(1, 1, 15, 15)
    x[..., 7, 7] = 1
    y = blur(x, 2)
    assert y.sum().item() == pytest.approx(1, abs=1e-6)
    assert y[0, 0, 7, 7].item() == pytest.approx(1 / 25, abs=1e-7)
    assert y[0, 0, 3, 11].item() == pytest.approx(1 / 625, abs=1e-7)
    torch.testing.assert_close(blur(torch.full((1, 2, 3, 5), 0.3), 4), torch.full((1, 2, 3, 5), 0.3))


def test_smooth_inpainting_is_close_to_harmonic_interpolation() -> None:
    rows, columns = torch.meshgrid(torch.arange(41.0), torch.arange(53.0), indexing="ij")
    values = (torch.sin(rows / 9) + columns / 20)[None, None]
    hole = torch.hypot(rows - 18, columns - 25) < 9
    known = (~hole).float()[None, None]
    found = inpaint_smooth(torch.where(hole, 7.0, values), known)
    assert torch.equal(found[..., ~hole], values[..., ~hole])
    exact = values.clone()
    exact[..., hole] = values.mean()
    for _ in range(1500):
        mean = (exact.roll(1, 2) + exact.roll(-1, 2) + exact.roll(1, 3) + exact.roll(-1, 3)) / 4
        exact[..., hole] = mean[..., hole]
    around = values[..., torch.hypot(rows - 18, columns - 25) < 11]
    contrast = around.max() - around.min()
    assert (found - exact).abs().max() < 0.12 * contrast
    assert (found - exact).abs().mean() < 0.01 * contrast
    torch.testing.assert_close(
        inpaint_smooth(torch.full_like(values, 0.4), known), torch.full_like(values, 0.4)
    )


def test_a_seamlessly_blended_patch_has_no_step_at_its_border() -> None:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 48), torch.linspace(0, 1, 48), indexing="ij")
    x = (0.2 + 0.4 * rows * columns)[None, None]
    patch = (0.7 - 0.3 * columns + 0.05 * torch.sin(12 * rows))[None, None]
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., 14:31, 12:35] = 1

    def step(pasted: Tensor) -> float:
        """Largest step across the border above the slopes of both images."""
        y = x + mask * (pasted - x)
        across = [y.diff(dim=axis)[mask.diff(dim=axis) != 0].abs().max() for axis in (2, 3)]
        slope = max(float(image.diff(dim=axis).abs().max()) for image in (x, patch) for axis in (2, 3))
        return max(float(value) for value in across) - slope

    blended = blend_seamlessly(x, patch, mask)
    assert step(patch) > 0.25
    assert step(blended) < 0.03
    # Inside, the detail of the patch is preserved.
    inner = (slice(None), slice(None), slice(18, 27), slice(17, 30))
    detail = (blended - blur(blended, 1))[inner] - (patch - blur(patch, 1))[inner]
    assert detail.abs().max() < 0.01
    assert (patch - x)[inner].abs().mean() > 5 * (blended - patch - (x - patch).mean())[inner].std()


def test_mixing_keeps_the_stronger_detail() -> None:
    x, flat = textures(1), torch.full((1, 1, 64, 64), 0.3)
    y = mix_detail(x, flat)
    torch.testing.assert_close(y - 0.3, x - blur(x, 2))
    assert torch.equal(mix_detail(flat, x), blur(x, 2) + (x - blur(x, 2)))


def test_the_label_marks_visible_changes() -> None:
    target = textures(3, channels=3)
    assert anomaly_mask(target, target).sum() == 0
    seen = target.clone()
    seen[1, 2, 20:30, 40:44] = 1 - seen[1, 2, 20:30, 40:44].round()  # a strong change in one channel
    label = anomaly_mask(seen, target)
    assert label.shape == (3, 1, 64, 64)
    assert label[1, 0, 20:30, 40:44].all()
    assert label[1].sum() <= 12 * 6
    assert label[1, 0, 19:31, 39:45].sum() == label.sum()
    # In units of the spread of the image: brightness and contrast have no effect.
    assert torch.equal(anomaly_mask(0.2 + 0.3 * seen, 0.2 + 0.3 * target), label)
    faint = target.clone()
    faint[:, :, 20:30, 40:44] += 0.12 * spread(target)
    assert anomaly_mask(faint, target).sum() == 0
    faint[:, :, 20:30, 40:44] += 0.06 * spread(target)
    assert anomaly_mask(faint, target)[..., 21:29, 41:43].all()


def test_gaps_in_a_label_are_closed() -> None:
    target = textures(1)
    seen = target.clone()
    seen[..., 10:20, 10:14] += 1
    seen[..., 10:20, 18:22] += 1
    label = anomaly_mask(seen, target)
    assert label[..., 10:20, 10:22].all()
    assert label.sum() == 12 * 14


def test_constant_images_and_absent_values_have_labels() -> None:
    target = torch.full((2, 1, 16, 16), 0.5)
    target[1] = NAN
    seen = target.clone()
    assert anomaly_mask(seen, target).sum() == 0
    seen[:, :, 4:8, 4:8] += 0.01
    label = anomaly_mask(seen, target)
    assert label[0, 0, 4:8, 4:8].all()
    assert label[1].sum() == 0


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(64, 64), (33, 47), (17, 16), (5, 7)])
def test_images_of_any_channels_and_size_stay_valid(channels: int, size: tuple[int, int]) -> None:
    x = textures(12, channels, *size)
    before = x.clone()
    y = synthesise_anomalies(x, clean=0.0, generator=seeded())
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.isfinite().all()
    assert y.min() >= 0
    assert y.max() <= 1
    assert torch.equal(x, before)
    assert (y != x).flatten(1).any(1).float().mean() > 0.8


@pytest.mark.parametrize("filling", sorted(set(FILLINGS), key=lambda filling: filling.__name__))
def test_every_filling_changes_images_and_accepts_a_constant_one(filling: object) -> None:
    assert callable(filling)
    x = textures(6, 3)
    sampled = sample_areas(x, 0.2, 0.3, seeded())
    filled = filling(x, x, sampled, Draws(x, seeded(2)))
    assert filled.shape == x.shape
    assert (sampled.mask * (filled - x)).abs().amax((1, 2, 3)).min() > 0.02
    flat = torch.full_like(x, 0.5)
    torch.testing.assert_close(filling(flat, flat, sampled, Draws(x, seeded(2))), flat)


def test_the_clean_share_and_the_number_of_anomalies_are_respected() -> None:
    x = textures(400, height=32, width=32)
    untouched = (synthesise_anomalies(x, clean=0.3, generator=seeded()) == x).flatten(1).all(1).float().mean()
    assert abs(untouched - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 400) + 0.02
    assert torch.equal(synthesise_anomalies(x, clean=1.0, generator=seeded()), x)
    one, three = (
        (synthesise_anomalies(x, clean=0.0, most=most, generator=seeded()) != x).float().mean()
        for most in (1, 3)
    )
    assert three / one == pytest.approx(2, rel=0.3)  # 1, 2 or 3, on average 2, some of which overlap


def test_strengths_range_from_obvious_to_barely_visible() -> None:
    x = textures(300)
    change = (synthesise_anomalies(x, clean=0.0, most=1, generator=seeded()) - x).abs().amax(
        (1, 2, 3)
    ) / spread(x).flatten()
    faint, median, strong = (torch.quantile(change, q).item() for q in (0.1, 0.5, 0.9))
    assert 0.02 < faint < 0.5
    assert 0.7 < median < 2.5
    assert strong > 2


def test_draws_come_from_the_given_or_the_global_generator() -> None:
    x = textures(6)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    y = synthesise_anomalies(x, generator=seeded(5))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(synthesise_anomalies(x, generator=seeded(5)), y)
    assert not torch.equal(synthesise_anomalies(x, generator=seeded(6)), y)
    first = synthesise_anomalies(x)
    torch.set_rng_state(state)
    assert torch.equal(synthesise_anomalies(x), first)


def test_absent_values_stay_absent_and_are_never_copied() -> None:
    x = textures(8, 4)
    x[2, 1], x[4, :, 10:30] = NAN, NAN
    y = synthesise_anomalies(x, clean=0.0, generator=seeded())
    assert torch.equal(y.isnan(), x.isnan())


def test_anomalies_are_the_same_under_half_precision() -> None:
    x = textures(4)
    exact = SyntheticAnomalies()(x, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(SyntheticAnomalies()(x, seeded()), exact)


def test_sizes_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"smallest 0\.3 exceeds largest 0\.1"):
        SyntheticAnomalies(smallest=0.3, largest=0.1)


def stripes(height: int, width: int, channels: int = 1) -> Tensor:
    """Texture of black and white lines, which no grey image has."""
    return (torch.arange(width) // 2 % 2).float().expand(channels, height, width)


@lru_cache
def smooth_and_corrupted(channels: int) -> tuple[Tensor, Tensor]:
    """Soft images of little contrast, and the same with anomalies that use no textures."""
    x = 0.5 + 0.02 * textures(80, channels, 48, 48)
    own = synthesise_anomalies(x, clean=0.0, generator=seeded())
    torch.testing.assert_close(synthesise_anomalies(x, clean=0.0, textures=[], generator=seeded()), own)
    return x, own


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [(80, 90), (40, 200), (7, 9)])
def test_textures_add_structure_that_the_images_lack(channels: int, size: tuple[int, int]) -> None:
    x, own = smooth_and_corrupted(channels)
    textured = synthesise_anomalies(x, clean=0.0, textures=[stripes(*size, channels)], generator=seeded())

    def striped(y: Tensor) -> Tensor:
        """Whether images have black beside white, more than any change of tone."""
        return (y.flatten(1).amin(1) < 0.1) & (y.flatten(1).amax(1) > 0.9)

    assert not striped(own).any()
    assert striped(textured).float().mean() > 0.04  # opaque plain textures among two fillings of eleven
    assert textured.min() >= 0
    assert textured.max() <= 1


def test_a_folder_of_textures_is_read_at_the_first_corruption(tmp_path: Path) -> None:
    folder = tmp_path / "textures"
    anomalies = SyntheticAnomalies(
        clean=0.0, textures=str(folder)
    )  # the folder is missing, as on another machine
    x = 0.5 + 0.02 * textures(40)
    with pytest.raises(FileError, match=r"textures: does not exist; check the path"):
        anomalies(x, seeded())
    folder.mkdir()
    with pytest.raises(FileError, match="holds no image"):
        anomalies(x, seeded())
    write_image(folder / "a.png", (255 * stripes(70, 90, 3)).byte().numpy())
    textured = anomalies(x, seeded())
    torch.testing.assert_close(
        textured,
        synthesise_anomalies(x, clean=0.0, textures=[stripes(70, 90)], generator=seeded()),
        atol=1e-5,
        rtol=0,
    )
    (folder / "a.png").unlink()
    torch.testing.assert_close(anomalies(x, seeded()), textured)
    (folder / "b.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"b\.png"):
        read_textures(str(folder), 1)
    (folder / "b.png").unlink()
    tifffile.imwrite(folder / "c.tif", np.zeros((5, 9, 9), np.uint8), metadata={"axes": "CYX"})
    with pytest.raises(ImageError, match=r"c\.tif: an image of 5 channels .*; remove it from the textures"):
        read_textures(str(folder), 1)


def test_textures_have_the_channels_of_the_images_and_a_bounded_size(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", (200 * stripes(1200, 600, 3) + number).byte().numpy())
    for channels in (1, 3, 5):
        found = read_textures(str(tmp_path), channels)
        assert [tuple(one.shape) for one in found] == [(channels, 1024, 512)] * 3
        assert all((one[0] == one[-1]).all() for one in found)


def test_a_contact_sheet_shows_good_image_corrupted_image_and_mask() -> None:
    x = textures(3, 3, 32, 40)
    network = model(channels=3)
    state = torch.get_rng_state()
    sheet = contact_sheet(network, x)
    assert sheet is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert sheet.shape == (3 * 32 + 2 * GAP, 3 * 40 + 2 * GAP, 3)
    assert sheet.dtype == np.uint8
    columns = [left + x for left in (0, 40 + GAP, 80 + 2 * GAP) for x in range(40)]
    good, corrupted, label = (sheet[top : top + 32, columns] for top in (0, 32 + GAP, 64 + 2 * GAP))
    assert (np.delete(sheet, columns, axis=1) == 255).all()
    np.testing.assert_array_equal(good[:, :40], (255 * x[0]).round().byte().permute(1, 2, 0).numpy())
    assert set(np.unique(label)) == {0, 255}
    differ, labelled = (good != corrupted).any(-1), label[..., 0] == 255
    assert differ[labelled].mean() > 0.6 > 0.1 > differ[~labelled].mean()
    np.testing.assert_array_equal(sheet, contact_sheet(model(channels=3), x))
    assert contact_sheet(model("gaussian", 3), x) is None


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (4, [0, 1, 2]), (2, None)])
def test_a_contact_sheet_of_any_channels(channels: int, shown: list[int] | None) -> None:
    x = textures(1, channels, 32, 32)
    sheet = contact_sheet(model(channels=channels), x)
    assert sheet is not None
    expected = x[0, shown] if shown else x[0].mean(0).expand(3, -1, -1)
    np.testing.assert_array_equal(sheet[:32], (255 * expected).round().byte().permute(1, 2, 0).numpy())
