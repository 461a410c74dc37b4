"""Segmentation head: its map, its loss, and its training on synthetic anomalies."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.decision import roc_auc
from blemish.errors import RecipeError, UsageError
from blemish.models import Autoencoder, build
from blemish.models.anomaly_fillings import blur
from blemish.models.segmentation import Segmentation, dice, focal
from blemish.models.synthetic_anomalies import anomaly_mask, synthesise_anomalies
from blemish.recipes import load_recipe, override, parse_recipe

RECIPE = parse_recipe(
    {
        "name": "small",
        "title": "Small",
        "paper": "none",
        "expect": "little",
        "patch": {"size": 32, "stride": 32},
        "corruption": [{"name": "synthetic-anomalies", "smallest": 0.1, "clean": 0.2}],
        "encoder": {"name": "unet", "widths": [8, 12, 16]},
        "decoder": {"name": "pointwise"},
        "loss": [{"name": "mse"}, {"name": "segmentation"}],
        "residual": {"name": "segmentation"},
    },
    "small",
)


def model(*settings: str, channels: int = 1) -> Autoencoder:
    torch.manual_seed(0)
    return build(override(RECIPE, list(settings)), channels)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, seed: int = 1) -> Tensor:
    """Images of stripes under soft noise."""
    stripes = 0.5 + 0.2 * torch.sin(torch.arange(32.0) * 0.8)
    return (stripes + 0.1 * blur(torch.randn(count, 1, 32, 32, generator=seeded(seed)), 1)).clamp(0, 1)


def head_of(network: Autoencoder) -> Segmentation:
    assert isinstance(network.measure, Segmentation)
    return network.measure


def test_the_map_is_the_negative_log_probability_of_a_normal_pixel() -> None:
    network = model().eval()
    x = images(2)[..., :29, :27]  # sides that have to be padded
    with torch.no_grad():
        found = network.examine(x)
        prepared = network.prepare(x)
        p = head_of(network).logit(network, network.reconstruct(prepared).latent, prepared).sigmoid()
    torch.testing.assert_close(found.map, -torch.log1p(-p))
    assert found.map.shape == (2, 1, 29, 27)


def test_the_untrained_head_finds_few_anomalous_pixels() -> None:
    with torch.no_grad():
        p = 1 - (-model().eval().residual(images(4))).exp()
    assert 0.02 < p.mean() < 0.1


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_larger_kernel_gives_a_larger_head(kernel: int) -> None:
    head = head_of(model(f"residual.kernel={kernel}")).head
    assert head.weight.shape == (1, 8, kernel, kernel)
    assert head(torch.rand(1, 8, 9, 11)).shape == (1, 1, 9, 11)


def test_focal_loss_weights_cross_entropy_by_its_error() -> None:
    logit = torch.tensor([-3.0, -0.5, 0.5, 3.0])
    label = torch.tensor([0.0, 1.0, 0.0, 1.0])
    entropy = F.binary_cross_entropy_with_logits(logit, label, reduction="none")
    torch.testing.assert_close(focal(logit, label, gamma=0.0, balance=0.5), entropy / 2)
    p_t = torch.where(label == 1, logit.sigmoid(), 1 - logit.sigmoid())
    alpha = torch.tensor([0.25, 0.75, 0.25, 0.75])
    torch.testing.assert_close(focal(logit, label, 2.0, 0.75), -alpha * (1 - p_t) ** 2 * p_t.log())
    extreme = torch.tensor([-80.0, 80.0], requires_grad=True)
    loss = focal(extreme, torch.tensor([0.0, 1.0])).sum()
    (gradient,) = torch.autograd.grad(loss, extreme)
    assert loss == 0
    assert gradient.isfinite().all()


def test_dice_loss_ranges_from_zero_to_one() -> None:
    label = torch.zeros(4, 1, 8, 8)
    label[1:, :, 2:6, 2:6] = 1
    logit = 50 * (2 * label - 1)
    logit[2] *= -1
    logit[3] = 50.0
    found = dice(logit, label)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 1 - 1 / 65, 1 - 33 / 81]))


def test_the_label_marks_the_pixels_changed_by_the_corruption() -> None:
    network = model().train()
    x = images(4)
    torch.manual_seed(2)
    terms = network.loss(x).terms
    torch.manual_seed(2)
    prepared = network.prepare(x)
    label = anomaly_mask(prepared.seen, x)
    assert 0 < label.mean() < 0.5
    logit = head_of(network).logit(network, network.reconstruct(prepared).latent, prepared)
    assert list(terms) == ["mse", "segmentation-focal", "segmentation-dice"]
    torch.testing.assert_close(terms["segmentation-focal"], focal(logit, label).mean())
    torch.testing.assert_close(terms["segmentation-dice"], dice(logit, label).mean())


def test_held_out_images_are_corrupted_in_the_same_way_at_every_step() -> None:
    network = model("corruption.0.clean=0").eval()
    x = images(8)
    with torch.no_grad():
        terms = network.loss(x).terms
        again = network.loss(x).terms
        prepared = network.prepare(x, for_loss=True)
        logit = head_of(network).logit(network, network.reconstruct(prepared).latent, prepared)
    label = anomaly_mask(prepared.seen, x)
    assert label.flatten(1).any(1).sum() > 4
    assert terms == again
    torch.testing.assert_close(terms["segmentation-dice"], dice(logit, label).mean())
    assert torch.equal(network.prepare(x).seen, x)  # inspected images are not corrupted


def test_a_corruption_at_inspection_is_applied_once() -> None:
    both = model("corruption.0.clean=0", "corruption.0.at_inspection=true").eval()
    x = images(8)
    once = model("corruption.0.clean=0").eval().prepare(x, for_loss=True).seen
    assert torch.equal(both.prepare(x, for_loss=True).seen, once)
    assert not torch.equal(both.prepare(x).seen, x)


def test_images_without_corruption_count_as_clean() -> None:
    network = model("corruption=[]").train()
    terms = network.loss(images(3)).terms
    prepared = network.prepare(images(3))
    logit = head_of(network).logit(network, network.reconstruct(prepared).latent, prepared)
    torch.testing.assert_close(terms["segmentation-dice"], dice(logit, torch.zeros_like(logit)).mean())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["encoder={name: bergmann}", "decoder={name: bergmann}"],
            "latent of every pixel, 32×32, but is given",
        ),
        (["residual.kernel=2"], "kernel 2 has no middle"),
        (["residual.kernel=0"], "kernel is 0"),
    ],
)
def test_invalid_settings_are_refused_in_one_line(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        model(*settings)
    assert "\n" not in str(caught.value)


def test_the_loss_requires_the_segmentation_residual() -> None:
    recipe = override(
        load_recipe("l2-ae"), ["patch.size=32", "patch.stride=32", "loss=[{name: segmentation}]"]
    )
    with pytest.raises(UsageError, match=r"set residual=\{name: segmentation\}") as caught:
        build(recipe, 1).loss(images(2))
    assert "\n" not in str(caught.value)


def test_anomalies_are_learned_from_good_images_alone() -> None:
    network = model().train()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    good = images(64)
    for step in range(60):
        torch.manual_seed(step)
        loss = network.loss(good[torch.randperm(64)[:8]])
        optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    new = images(40, seed=9)
    seen = synthesise_anomalies(new, clean=0.0, smallest=0.15, generator=seeded(5))
    label = anomaly_mask(seen, new).bool()
    with torch.no_grad():
        network.eval()
        found, clean = network.residual(seen), network.residual(new)
    pixels = roc_auc(label.flatten().numpy(), found.flatten().numpy())
    scores = torch.cat([clean.amax((1, 2, 3)), found.amax((1, 2, 3))])
    by_image = roc_auc((torch.arange(80) >= 40).numpy(), scores.numpy())
    assert pixels > 0.85
    assert by_image > 0.75
