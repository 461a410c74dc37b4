from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from blemish.errors import FileError, UsageError
from blemish.jpeg import Coefficients, Plane, Sampling, blocks_dct, from_bytes, planes_of, to_bytes
from blemish.jpeg.coefficients import block_counts
from blemish.jpeg.deep import DeepJpeg, deep_recipe_names, load_deep_recipe
from blemish.jpeg.deep.network import forward_dct, hard_tables, initial_tables
from blemish.jpeg.deep.recipe import TableSettings
from blemish.jpeg.entropy import image_bits
from blemish.jpeg.quality import ms_ssim, mse
from blemish.jpeg.tables import annex_k
from blemish.recipes import override

Pixels = NDArray[np.uint8]
SAMPLINGS: list[Sampling] = ["4:4:4", "4:2:0"]


def build(name: str, *settings: str, seed: int = 0) -> DeepJpeg:
    recipe = load_deep_recipe(name)
    own = ["attention.weights=none"] if "weights" in recipe.attention.settings else []
    own += ["loss.gamma=0", "loss.sigma=0", "patch.size=64", "lambdas=[0.1, 0.01]"]
    torch.manual_seed(seed)
    return DeepJpeg(override(recipe, [*own, *settings]))


def image(height: int, width: int, seed: int = 0) -> Pixels:
    """Waves, hard edges and noise, in colour."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [128 + 120 * np.sin(x / 9 + y / 5), 255.0 * (x // 5 % 2), 255.0 * ((x + y) // 7 % 2)]
    return np.clip(np.stack(planes, 2) + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)


def batch(*images: Pixels) -> Tensor:
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)) / 255


def by_pillow(coefficients: Coefficients) -> Pixels:
    with Image.open(io.BytesIO(to_bytes(coefficients))) as image:
        return np.asarray(image)


def levels_of(reconstruction: Tensor) -> Pixels:
    """(1, 3, H, W) in [0, 1] to (H, W, 3); fails unless they are whole levels."""
    levels = 255 * reconstruction[0].detach().permute(1, 2, 0)
    assert (levels - levels.round()).abs().max() < 1e-3
    pixels: Pixels = levels.round().to(torch.uint8).numpy()
    return pixels


# The contract of every recipe.


@pytest.fixture(scope="module", params=deep_recipe_names())
def model(request: pytest.FixtureRequest) -> Iterator[DeepJpeg]:
    made = build(request.param).eval()
    yield made
    assert made.training is False


def test_shapes_and_ranges(model: DeepJpeg) -> None:
    with torch.no_grad():
        found = model(batch(image(61, 83), image(61, 83, 1)), torch.tensor([0, 1]))
    shape = (2, 8, 11, 8, 8)
    assert found.reconstruction.shape == (2, 3, 61, 83)
    assert 0 <= found.reconstruction.min() < found.reconstruction.max() <= 1
    assert [maps.shape for maps in found.attention] == [shape, shape]
    assert all(0 <= float(maps.min()) <= float(maps.max()) <= 1 for maps in found.attention)
    assert found.tables.shape == (2, 2, 8, 8)
    assert [z.shape for z in found.levels] == [shape] * 3
    for whole in (found.tables, *found.levels):
        assert torch.equal(whole, whole.round())


def test_a_gradient_reaches_every_parameter(model: DeepJpeg) -> None:
    model.zero_grad()
    loss = model.loss(batch(image(64, 64), image(64, 64, 1)))
    loss.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert float(parameter.grad.abs().max()) > 0, name
    for by_place in (model.log_tables, model.scale, model.bias):
        if by_place is not None:
            assert by_place.grad is not None
            assert bool((by_place.grad.flatten(1).abs().amax(1) > 0).all())


def test_terms_are_finite_and_sum_to_the_total(model: DeepJpeg) -> None:
    with torch.no_grad():
        loss = model.loss(batch(image(64, 64)))
    assert set(loss.terms) == {"mse", "rate"}
    assert all(bool(term.isfinite()) for term in loss.terms.values())
    assert float(loss.total) == pytest.approx(sum(map(float, loss.terms.values())))


def test_the_file_holds_the_tables_and_opens_in_pillow(model: DeepJpeg) -> None:
    pixels = image(37, 50)
    coefficients = model.coefficients(pixels, 1)
    assert from_bytes(to_bytes(coefficients)) == coefficients
    with torch.no_grad():
        found = model(batch(pixels), torch.tensor([1]))
    for plane, place in zip(coefficients.planes, (0, 1, 1), strict=True):
        np.testing.assert_array_equal(plane.table, found.tables[0, place])
    np.testing.assert_array_equal(by_pillow(coefficients), levels_of(found.reconstruction))


def test_an_image_alone_is_as_in_a_batch(model: DeepJpeg) -> None:
    x, place = batch(image(40, 56), image(40, 56, 1), image(40, 56, 2)), torch.tensor([1, 0, 1])
    model.train()
    with torch.no_grad():
        together, alone = model(x, place), model(x[2:], place[2:])
    model.eval()
    assert torch.equal(together.tables[2:], alone.tables)
    for maps, own in zip(together.attention, alone.attention, strict=True):
        torch.testing.assert_close(maps[2:], own, atol=1e-4, rtol=0)
    for z, own in zip(together.levels, alone.levels, strict=True):
        # float sums in another order may tip what lies on the brink between two levels
        assert (z[2:] - own).abs().max() <= 1
        assert (z[2:] != own).float().mean() < 0.01


def test_under_autocast_the_reconstruction_is_that_of_the_file(model: DeepJpeg) -> None:
    x = batch(image(40, 56))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(x, torch.tensor([0]))
        loss = model.loss(x)
    assert found.reconstruction.dtype == loss.total.dtype == torch.float32
    luma, chroma = (table.detach().numpy().astype(np.uint16) for table in found.tables[0])
    planes = tuple(
        Plane(z[0].detach().numpy().astype(np.int16), table)
        for z, table in zip(found.levels, (luma, chroma, chroma), strict=True)
    )
    expected = by_pillow(Coefficients(56, 40, planes, "4:4:4"))
    np.testing.assert_array_equal(levels_of(found.reconstruction), expected)


def test_a_saved_model_needs_no_pretrained_weights(model: DeepJpeg) -> None:
    torch.manual_seed(7)
    again = DeepJpeg(model.recipe, pretrained=False)
    again.load_state_dict(model.state_dict())
    pixels = image(16, 24)
    assert again.eval().coefficients(pixels, 0.5) == model.coefficients(pixels, 0.5)


def test_parameters_are_in_one_group_each(model: DeepJpeg) -> None:
    groups = model.parameter_groups()
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    assert [id(parameter) for parameter in groups[-1]["params"]] == [id(model.log_tables)]
    assert [group.get("pace") for group in groups[:-1]] == [None] * (len(groups) - 1)
    assert (groups[-1]["pace"], groups[-1]["weight_decay"]) == (model.recipe.tables.pace, 0)


# The pipeline.


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (9, 17), (17, 33), (40, 31)])
@pytest.mark.parametrize("name", ["jpeg-tables", "jpeg-lstm"])
def test_the_reconstruction_is_pillows(name: str, size: tuple[int, int], sampling: Sampling) -> None:
    model = build(name, f"image.sampling={sampling}", "tables.initial=annex-k").eval()
    pixels = image(*size)
    coefficients = model.coefficients(pixels, 1)
    with torch.no_grad():
        found = model(batch(pixels), torch.tensor([1]))
    np.testing.assert_array_equal(by_pillow(coefficients), levels_of(found.reconstruction))
    assert coefficients.sampling == sampling


def test_a_trunk_sees_images_of_any_size_at_420() -> None:
    model = build("jpeg-vgg19", "image.sampling=4:2:0").eval()
    for height, width in [(1, 1), (9, 17), (16, 24)]:
        coefficients = model.coefficients(image(height, width), 0)
        counts = block_counts(width, height, 3, "4:2:0")
        assert [plane.coefficients.shape[:2] for plane in coefficients.planes] == counts


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_grey_is_luma_alone(sampling: Sampling) -> None:
    model = build("jpeg-lstm", f"image.sampling={sampling}").eval()
    grey = image(19, 27)[:, :, 0]
    found = model.coefficients(grey, 0)
    assert (len(found.planes), found.sampling, found.width, found.height) == (1, "4:4:4", 27, 19)
    assert found.planes[0] == model.coefficients(np.stack([grey] * 3, 2), 0).planes[0]
    assert by_pillow(found).shape == (19, 27)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((0, 3), np.uint8),
        np.zeros((3, 3, 4), np.uint8),
        np.zeros(3, np.uint8),
    ],
)
def test_arrays_that_are_no_image_are_refused(pixels: Pixels) -> None:
    with pytest.raises(UsageError, match="a JPEG"):
        build("jpeg-tables").coefficients(pixels, 0)


@pytest.mark.parametrize("place", [-0.1, 1.1, float("nan")])
def test_a_place_beyond_the_lambdas_is_refused(place: float) -> None:
    with pytest.raises(UsageError, match="choose a number from 0 to 1"):
        build("jpeg-tables").coefficients(image(8, 8), place)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 15), (31, 18)])
def test_forward_dct_is_that_of_numpy(size: tuple[int, int], sampling: Sampling) -> None:
    pixels = image(*size)
    found = forward_dct(batch(pixels), sampling)
    for dct, plane in zip(found, planes_of(pixels, sampling), strict=True):
        np.testing.assert_allclose(dct[0], blocks_dct(plane), atol=2e-3)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_forward_dct_has_its_own_gradient(sampling: Sampling) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 5, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: forward_dct(x, sampling), x, atol=1e-3)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_strongest_images_stay_in_the_range_of_a_file(sampling: Sampling) -> None:
    model = build("jpeg-tables", f"image.sampling={sampling}").eval()
    torch.nn.init.zeros_(model.log_tables)
    waves = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (16, 16, 3))
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = 255
    for pixels in (waves, stripes, np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)):
        coefficients = model.coefficients(pixels, 0)
        with torch.no_grad():
            found = model(batch(pixels), torch.tensor([0]))
        np.testing.assert_array_equal(by_pillow(coefficients), levels_of(found.reconstruction))


def test_values_beyond_an_image_are_cut_to_what_a_file_holds() -> None:
    model = build("jpeg-tables").eval()
    torch.nn.init.zeros_(model.log_tables)
    with torch.no_grad():
        levels = model(torch.full((1, 3, 8, 8), 9.0), torch.tensor([0])).levels
    assert max(float(z.abs().max()) for z in levels) == 1023


# One λ and several.


@pytest.mark.parametrize("name", ["jpeg-tables", "jpeg-lstm"])
def test_with_one_lambda_it_is_the_papers_network(name: str) -> None:
    """Equations 4 to 6 in numpy, with the attention network's own maps."""
    model = build(name, "lambdas=[0.01]", "tables.initial=annex-k").eval()
    assert model.scale is None
    assert model.bias is None
    assert model.log_tables.shape[0] == 1
    pixels = image(24, 40)
    f = [blocks_dct(plane) for plane in planes_of(pixels, "4:4:4")]
    a = [np.ones_like(f[0])] * 2
    if name == "jpeg-lstm":
        with torch.no_grad():
            logits = model.attention(batch(pixels), tuple(torch.from_numpy(plane)[None] for plane in f))
        assert logits is not None
        a = [1 / (1 + np.exp(-maps[0].double().numpy())) for maps in logits]
    coefficients = model.coefficients(pixels, 0)
    q = annex_k(50)
    for index, chroma in enumerate((0, 1, 1)):
        plane = coefficients.planes[index]
        np.testing.assert_array_equal(plane.table, q[chroma])
        exact = f[index] * a[chroma] / q[chroma]
        # whichever way float32 tips what lies halfway
        assert np.abs(plane.coefficients - exact).max() < 0.5 + 1e-4


def test_several_lambdas_begin_as_one() -> None:
    one, two = build("jpeg-lstm", "lambdas=[0.1]"), build("jpeg-lstm")
    state = {name: value for name, value in one.state_dict().items() if name != "log_tables"}
    missing, _ = two.load_state_dict(state, strict=False)
    assert missing == ["scale", "bias", "log_tables"]
    two.log_tables.data = one.log_tables.data.repeat(2, 1, 1, 1)
    pixels = image(24, 24)
    for place in (0, 0.4, 1):
        assert two.coefficients(pixels, place) == one.coefficients(pixels, 0)


def test_places_are_those_of_the_sorted_lambdas_and_between_them_logarithms_are_linear() -> None:
    model = build("jpeg-lstm", "lambdas=[0.1, 0.001, 0.01]").eval()
    assert model.lambdas == (0.001, 0.01, 0.1)
    with torch.no_grad():
        for place, step in enumerate((90.0, 40.0, 10.0)):
            model.log_tables[place] = np.log(step)
            assert model.bias is not None
            model.bias[place] = place
    x = batch(image(16, 16))
    with torch.no_grad():
        ends = model(x.expand(3, -1, -1, -1), torch.tensor([0, 1, 2]))
        between = model(x.expand(2, -1, -1, -1), torch.tensor([0.5, 1.25]))
    assert ends.tables.amax((1, 2, 3)).tolist() == [90, 40, 10]
    assert between.tables.amax((1, 2, 3)).tolist() == [60, 28]  # √(90 · 40); 40^¾ 10^¼ = 28.3
    logits = ends.attention[0].logit()
    torch.testing.assert_close(between.attention[0][0].logit(), logits[:2].mean(0), atol=1e-4, rtol=1e-4)


def test_in_training_places_are_drawn_and_a_seed_repeats_them() -> None:
    model = build("jpeg-lstm", "lambdas=[0.001, 0.01, 0.1]").train()
    x = batch(*[image(16, 16)] * 6)

    def step(seed: int) -> float:
        torch.manual_seed(seed)
        return model.loss(x).total.item()

    assert step(1) == step(1)
    assert len({step(seed) for seed in range(6)}) > 2


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_in_evaluation_every_place_counts_equally(count: int) -> None:
    model = build("jpeg-tables", "lambdas=[0.001, 0.01, 0.1]").eval()
    x = batch(*[image(16, 16)] * count)
    expected = []
    with torch.no_grad():
        found = model.loss(x)
        for place, weight in enumerate((0.001, 0.01, 0.1)):
            outcome = model(x[:1], torch.tensor([place]))
            mse = ((x[:1] - outcome.reconstruction) * 255).square().mean()
            expected.append(weight * float(mse) + 10 * float((1 / outcome.tables).sum()) + 2)
    assert float(found.total) == pytest.approx(np.mean(expected), rel=1e-5)


# The tables.


def test_tables_begin_where_the_recipe_says() -> None:
    torch.manual_seed(0)
    drawn = initial_tables(TableSettings(), 3)
    assert drawn.shape == (3, 2, 8, 8)
    assert 1 <= drawn.min() < 1.1
    assert 1.9 < drawn.max() <= 2
    fixed = initial_tables(TableSettings(initial="annex-k", highest=80), 2)
    for luma, chroma in fixed.numpy():
        np.testing.assert_array_equal(luma, annex_k(50)[0].clip(max=80))
        np.testing.assert_array_equal(chroma, annex_k(50)[1].clip(max=80))


def test_hard_tables_are_whole_and_within_limits() -> None:
    q = torch.tensor([0.01, 1.0, 1.49, 1.51, 99.5, 254.6, 9000.0])
    assert hard_tables(q.log(), TableSettings()).tolist() == [1, 1, 1, 2, 100, 255, 255]
    assert hard_tables(q.log(), TableSettings(lowest=3, highest=60)).tolist() == [3, 3, 3, 3, 60, 60, 60]


def test_the_gradient_of_tables_is_that_of_exp() -> None:
    log_q = torch.tensor([1.3, 16.0, 16.5]).log().requires_grad_()
    (torch.tensor([1.0, 2.0, -3.0]) * hard_tables(log_q, TableSettings())).sum().backward()
    assert log_q.grad is not None
    torch.testing.assert_close(log_q.grad, torch.tensor([1.3, 32, -49.5]))


def test_the_papers_parametrisation_is_adam_on_the_tables_at_a_tenth() -> None:
    """p in [1s, 255s] by Adam at 1e-6 and s = 1e-5, against Q in [1, 255] by Adam at 0.1."""
    s = 1e-5
    torch.manual_seed(0)
    start = 1 + torch.rand(64, dtype=torch.float64)
    goal = torch.linspace(-20, 400, 64, dtype=torch.float64)
    p, q = (s * start).requires_grad_(), start.clone().requires_grad_()
    # eps would spoil the freedom of scale: gradients of p are 1e5 times those of Q
    of_p, of_q = torch.optim.Adam([p], 1e-6, eps=0), torch.optim.Adam([q], 0.1, eps=0)
    for _ in range(500):
        for values, optimizer, unit in ((p, of_p, s), (q, of_q, 1.0)):
            optimizer.zero_grad()
            (values / unit - goal).square().sum().backward()
            optimizer.step()
            with torch.no_grad():
                values.clamp_(1 * unit, 255 * unit)
    torch.testing.assert_close(p.detach() / s, q.detach(), rtol=1e-6, atol=1e-6)
    assert q.min() == 1  # clipped
    assert q.max() > 40


def test_tables_learn_from_annex_k() -> None:
    """Whole numbers are no place to stay: fewer bits are wanted, so steps grow, and stop at the limit."""
    model = build("jpeg-tables", "lambdas=[1e-9]", "tables.initial=annex-k", "tables.highest=120").train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    x = batch(image(16, 16))
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(x).total.backward()
        optimizer.step()
    with torch.no_grad():
        assert bool((model(x, torch.tensor([0])).tables == 120).all())
    model.loss(x)
    assert float(model.log_tables.detach().exp().max()) == pytest.approx(120)


# What is not on this machine.


def test_lpips_is_asked_for_at_once_but_not_by_a_saved_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    recipe = override(load_deep_recipe("jpeg-tables"), ["patch.size=64", "loss.sigma=0"])
    with pytest.raises(UsageError, match=r"--set loss\.gamma=0$"):
        DeepJpeg(recipe)
    saved = DeepJpeg(recipe, pretrained=False)
    saved.coefficients(image(8, 8), 0)
    with pytest.raises(UsageError, match=r"--set loss\.gamma=0$"):
        saved.loss(batch(image(64, 64)))
    without = DeepJpeg(override(recipe, ["loss.gamma=0"]))
    assert set(without.loss(batch(image(64, 64))).terms) == {"mse", "rate"}


def test_imagenet_weights_are_asked_for_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("BLEMISH_WEIGHTS", raising=False)
    with pytest.raises(FileError, match=r"attention\.weights=none"):
        DeepJpeg(override(load_deep_recipe("jpeg-vgg19"), ["loss.gamma=0"]))


def test_ms_ssim_is_a_term_where_it_has_a_weight() -> None:
    model = build("jpeg-tables", "loss.sigma=1000", "patch.size=161").eval()
    loss = model.loss(batch(image(161, 161)))
    assert set(loss.terms) == {"mse", "ms-ssim", "rate"}
    loss.terms["ms-ssim"].backward()
    assert model.log_tables.grad is not None
    assert float(model.log_tables.grad.abs().max()) > 0


def test_measures_are_those_of_the_files() -> None:
    model = build("jpeg-tables", "image.sampling=4:2:0", "lambdas=[0.01, 0.1]")
    pixels = [image(170, 180), image(170, 180) // 2]
    x = torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32)) / 255
    model.train()
    found = model.measures(x)
    assert model.training
    files = [model.coefficients(one, place) for place, one in enumerate(pixels)]
    assert found["bits per pixel"] == pytest.approx(sum(map(image_bits, files)) / (2 * 170 * 180))
    errors = [mse(one, by_pillow(file)) for one, file in zip(pixels, files, strict=True)]
    assert found["mse"] == pytest.approx(sum(errors) / 2, rel=1e-4)
    similar = [ms_ssim(one, by_pillow(file)) for one, file in zip(pixels, files, strict=True)]
    assert found["ms-ssim"] == pytest.approx(sum(one or 0 for one in similar) / 2, abs=1e-4)
    assert model.measures(x[..., :64, :64]).keys() == {"bits per pixel", "mse"}
