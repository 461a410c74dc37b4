from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blemish.models import Autoencoder, build
from blemish.models.adversarial_loss import Adversarial, PatchDiscriminator
from blemish.recipes import load_recipe, override

TERMS = ["adversarial-generator", "adversarial-discriminator"]


def model(weight: float = 1.0) -> Autoencoder:
    torch.manual_seed(0)
    settings = [
        "patch.size=32",
        "patch.stride=16",
        "encoder.latent=8",
        f"loss=[{{name: mse}}, {{name: adversarial, weight: {weight}, width: 8, depth: 2}}]",
    ]
    return build(override(load_recipe("l2-ae"), settings), 3).train()


def discriminator(of: Autoencoder) -> PatchDiscriminator:
    term = of.loss_terms["adversarial"]
    assert isinstance(term, Adversarial)
    return term.discriminator


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def gradients(of: Autoencoder, term: str) -> dict[str, Tensor]:
    of.zero_grad()
    of.loss(images()).terms[term].backward()  # type: ignore[no-untyped-call]
    return {
        name: parameter.grad
        for name, parameter in of.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }


def test_each_term_trains_its_own_network_only() -> None:
    network = model()
    discriminators = {name for name, _ in network.named_parameters() if "discriminator" in name}
    generators = {name for name, _ in network.named_parameters()} - discriminators
    assert gradients(network, "adversarial-generator").keys() == generators
    assert gradients(network, "adversarial-discriminator").keys() == discriminators


def test_the_terms_are_least_squares_and_the_weight_scales_both() -> None:
    network = model(weight=0.01)
    x = images()
    disc = discriminator(network)
    with torch.no_grad():
        real, fake = disc(x), disc(network(x).reconstruction)
        total, terms = network.loss(x)
    assert list(terms) == ["mse", *TERMS]
    torch.testing.assert_close(terms[TERMS[0]], 0.01 * (fake - 1).square().mean() / 2)
    torch.testing.assert_close(
        terms[TERMS[1]], 0.01 * ((real - 1).square().mean() + fake.square().mean()) / 2
    )
    torch.testing.assert_close(total, torch.stack(list(terms.values())).sum())


def test_in_evaluation_only_the_other_terms_count() -> None:
    network = model().eval()
    with torch.no_grad():
        total, terms = network.loss(images())
    assert list(terms) == ["mse", *TERMS]
    assert [terms[name].item() for name in TERMS] == [0, 0]
    torch.testing.assert_close(total, terms["mse"])


def steps(network: Autoencoder, parameters: Any, count: int) -> None:
    optimizer = torch.optim.Adam(parameters, 1e-3)
    for _ in range(count):
        optimizer.zero_grad()
        network.loss(images()).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def test_the_discriminator_learns_to_separate_and_the_autoencoder_to_deceive_it() -> None:
    network = model()
    disc = discriminator(network)
    before = network.loss(images()).terms
    steps(network, disc.parameters(), 40)
    with torch.no_grad():
        trained = network.loss(images()).terms
        real, fake = disc(images()), disc(network(images()).reconstruction)
    assert trained[TERMS[1]] < 0.3 * before[TERMS[1]]
    assert real.mean() > 0.7
    assert fake.mean() < 0.3
    steps(network, [*network.encoder.parameters(), *network.decoder.parameters()], 40)
    with torch.no_grad():
        assert network.loss(images()).terms[TERMS[0]] < 0.7 * trained[TERMS[0]]


@pytest.mark.parametrize(("depth", "grid"), [(1, (8, 11)), (2, (4, 5)), (3, (2, 2))])
def test_the_discriminator_has_one_output_per_patch(depth: int, grid: tuple[int, int]) -> None:
    disc = PatchDiscriminator(11, 4, depth)
    assert disc(torch.rand(3, 11, 16, 22)).shape == (3, 1, *grid)


def test_the_receptive_field_of_depth_3_is_38_pixels() -> None:
    x = torch.rand(1, 1, 128, 128, requires_grad=True)
    PatchDiscriminator(1, 4, 3)(x)[0, 0, 8, 8].backward()
    assert x.grad is not None
    rows = x.grad[0, 0].any(1).nonzero()
    assert rows.max() - rows.min() + 1 == 38


def test_under_bfloat16_both_parts_are_finite_and_float32() -> None:
    network = model()
    with torch.autocast("cpu", torch.bfloat16):
        total, terms = network.loss(images())
    total.backward()  # type: ignore[no-untyped-call]
    assert all(terms[name].dtype == torch.float32 for name in TERMS)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
