"""Six networks of Xie, Meeus and Pižurica 2019: the figures of the paper, and absent modalities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from blemish.data.modality import Modality
from blemish.errors import RecipeError, UsageError
from blemish.models import Autoencoder, build, modal_residuals
from blemish.models.contracts import Output, Pass
from blemish.models.modal_similarity import ModalLogSSIM, ModalSSIM, modal_ssim
from blemish.recipes import load_recipe, override
from blemish.training.schedule import learning_rate

ALTARPIECE = tuple(
    Modality(name=name, channels=channels)
    for name, channels in (("before", 3), ("during", 3), ("infrared", 1), ("x-ray", 1), ("uv", 3))
)
SMALL = (
    Modality(name="rgb", channels=3),
    Modality(name="infrared", channels=1),
    Modality(name="pair", channels=2),
)
NAN = torch.nan
STACKED = ("stacked-ae", "pen-nde", "pen-upde", "fp-cae")
SEPARATED = ("fp-cae-concat", "fp-cae-add")
TAKING = ("pen-nde", "pen-upde", "fp-cae", *SEPARATED)


def made(name: str, modalities: tuple[Modality, ...] = SMALL, *settings: str, seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    channels = sum(modality.channels for modality in modalities)
    return build(override(load_recipe(name), list(settings)), channels, modalities=modalities).eval()


def images(count: int = 2, channels: int = 6, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(1))


# -- figures of the paper ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("fp-cae-concat", 996_043), ("fp-cae-add", 893_643)])
def test_the_number_of_parameters_is_that_of_the_paper(name: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in made(name, ALTARPIECE).parameters()) == count


@pytest.mark.parametrize("name", STACKED)
def test_the_stacked_networks_have_equal_numbers_of_parameters(name: str) -> None:
    encoder = (25 * 11 * 48 + 48) + (16 * 48 * 48 + 48) + (9 * 48 * 80 + 80)
    decoder = (16 * 80 * 48 + 48) + (16 * 48 * 48 + 48) + (9 * 48 * 11 + 11)
    assert sum(parameter.numel() for parameter in made(name, ALTARPIECE).parameters()) == encoder + decoder


@pytest.mark.parametrize("name", [*STACKED, *SEPARATED])
def test_a_patch_of_32_has_a_latent_of_3_by_3_by_80(name: str) -> None:
    x = images(2, 11)
    model = made(name, ALTARPIECE)
    output = model(x)
    assert output.latent.shape == (2, *model.encoder.latent_shape) == (2, 80, 3, 3)
    assert output.reconstruction.shape == x.shape


def test_the_learning_rates_are_those_of_the_paper() -> None:
    rates = {name: load_recipe(name).training for name in (*STACKED, *SEPARATED)}
    assert learning_rate(rates["stacked-ae"], 0) == learning_rate(rates["stacked-ae"], 4000) == 6e-4
    for names, first, decay in ((("pen-nde", "pen-upde", "fp-cae"), 12e-4, 3e-5), (SEPARATED, 8e-4, 4e-5)):
        for name in names:
            assert learning_rate(rates[name], 0) == first
            assert learning_rate(rates[name], 1000) == pytest.approx(first / (1 + decay * 1000))


# -- image sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*STACKED, *SEPARATED])
def test_whole_images_are_accepted(name: str) -> None:
    model = made(name)
    with torch.no_grad():
        output = model(images(1, 6, 64, 40))
        assert output.latent.shape == (1, 80, 7, 4)
        assert output.reconstruction.shape == (1, 6, 64, 40)
        # The network is equivariant to shifts by eight pixels.
        x = images(1, 6, 96, 104)
        there, moved = model(x).reconstruction, model(x[..., 8:]).reconstruction
    torch.testing.assert_close(there[..., 40:-40, 48:-40], moved[..., 40:-40, 40:-40], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("patch", "nearest"), [(20, 16), (36, 32), (31, 32)])
@pytest.mark.parametrize("name", ["fp-cae", "fp-cae-add"])
def test_a_patch_that_is_not_divisible_by_the_stride_is_refused(name: str, patch: int, nearest: int) -> None:
    with pytest.raises(RecipeError, match=f"multiple of 8 .* {patch}; try --set patch.size={nearest}$"):
        made(name, SMALL, f"patch.size={patch}", "patch.stride=8")


@pytest.mark.parametrize("name", [*STACKED, *SEPARATED])
def test_the_smallest_patch_is_accepted(name: str) -> None:
    output = made(name, SMALL, "patch.size=16")(images(1, 6, 16, 16))
    assert output.latent.shape == (1, 80, 1, 1)
    assert output.reconstruction.shape == (1, 6, 16, 16)


# -- absent values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TAKING)
@pytest.mark.parametrize(
    "where",
    [
        (slice(None), slice(0, 3)),
        (slice(None), slice(4, 6), slice(0, 20)),
        (0, 3),
        (slice(None), slice(None), slice(8, 24), slice(8, 24)),
        (slice(None),),
    ],
    ids=["a modality", "part of one", "one of one image", "a hole in all", "everything"],
)
def test_absent_values_are_reconstructed_as_finite_values(name: str, where: tuple[slice, ...]) -> None:
    x = images()
    x[where] = NAN
    model = made(name)
    loss = model.train().loss(x)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        output, (residual, _) = model.eval()(x), model.examine(x)
    for values in (output.latent, output.reconstruction, residual, loss.total):
        assert values.isfinite().all()
    assert residual.min() >= 0
    assert not residual[x.isnan().all(1, keepdim=True)].any()


@pytest.mark.parametrize("name", ["stacked-ae", "l2-ae", "dae-mse"])
def test_other_networks_refuse_absent_values_in_one_line(name: str) -> None:
    torch.manual_seed(0)
    model = build(override(load_recipe(name), ["patch.size=32", "patch.stride=32"]), 3)
    x = images(1, 3)
    x[0, 0, 3, 4] = NAN
    for call in (model, model.loss, model.examine, model.residual):
        with pytest.raises(UsageError, match=r"absent values \(NaN\).*use fp-cae-add") as caught:
            call(x)
        assert "\n" not in str(caught.value)


def test_losses_and_residuals_without_support_refuse_absent_values() -> None:
    x = images()
    x[:, 3] = NAN
    model = made("fp-cae", SMALL, "loss=[{name: mse}]", "residual={name: mse}")
    with pytest.raises(UsageError, match=r"absent values \(NaN\), which loss 'mse'"):
        model.loss(x)
    with pytest.raises(UsageError, match=r"absent values \(NaN\), which the residual"):
        model.examine(x)
    assert model(x).reconstruction.isfinite().all()


@pytest.mark.parametrize("name", SEPARATED)
def test_an_absent_modality_is_replaced_by_scaling_the_others(name: str) -> None:
    x = images()
    x[:, 3] = NAN
    model, fewer = made(name), made(name, (SMALL[0], SMALL[2]))
    weights = model.encoder.state_dict()
    kept = {
        key.replace("encoders.2", "encoders.1"): value
        for key, value in weights.items()
        if "encoders.1" not in key
    }
    fused = weights["intermodal.weight"]
    if name == "fp-cae-concat":
        # Of 3 · 80 features, those of the second are missing, and the others are scaled by 3 / 2.
        kept["intermodal.weight"] = torch.cat([fused[:, :80], fused[:, 160:]], 1) * 3 / 2
    else:
        kept["intermodal.weight"] = fused * 3 / 2
    fewer.encoder.load_state_dict(kept)
    with torch.no_grad():
        torch.testing.assert_close(model(x).latent, fewer(x[:, [0, 1, 2, 4, 5]]).latent, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SEPARATED)
def test_the_latent_is_zero_where_all_modalities_are_absent(name: str) -> None:
    x = images()
    x[1] = NAN
    with torch.no_grad():
        latent = made(name)(x).latent
    assert latent[0].any()
    assert not latent[1].any()


@pytest.mark.parametrize("name", TAKING)
def test_an_image_is_reconstructed_the_same_alone_and_beside_incomplete_images(name: str) -> None:
    x = images(4)
    x[1, :3] = NAN
    x[2, :, 5:20, 7:30] = NAN
    x[3, 3, :, :9] = NAN
    model = made(name)
    with torch.no_grad():
        together = model.examine(x)
        alone = [model.examine(image[None]) for image in x]
    for values, single in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(values, torch.cat(single), atol=1e-5, rtol=0)


def test_fusion_by_addition_does_not_depend_on_the_order_of_modalities() -> None:
    order = [2, 0, 1]
    model = made("fp-cae-add")
    other = made("fp-cae-add", tuple(SMALL[place] for place in order), seed=1)
    renamed = {}
    for key, value in model.state_dict().items():
        head, *rest = key.split(".")
        if rest[0] in ("encoders", "decoders"):
            rest[1] = str(order.index(int(rest[1])))
        renamed[".".join([head, *rest])] = value
    other.load_state_dict(renamed)
    x = images()
    x[:, 4:, :16] = NAN
    turned = [4, 5, 0, 1, 2, 3]
    with torch.no_grad():
        first, second = model.examine(x), other.examine(x[:, turned])
    torch.testing.assert_close(second.reconstruction, first.reconstruction[:, turned], atol=1e-5, rtol=0)
    torch.testing.assert_close(second.map, first.map, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SEPARATED)
def test_the_loss_of_a_dropped_modality_trains_the_others(name: str) -> None:
    model = made(name, SMALL, "corruption=[{name: modality-dropout, probability: 1}]").train()
    x = images(8)
    torch.manual_seed(0)
    model.loss(x).total.backward()  # type: ignore[no-untyped-call]
    # Each image keeps one modality, not always the same one: every weight is used.
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.any(), parameter_name
    model.zero_grad()
    x[:, 3] = NAN
    model.loss(x).total.backward()  # type: ignore[no-untyped-call]
    assert not any(p.grad.any() for p in model.encoder.encoders[1].parameters() if p.grad is not None)


def test_modality_dropout_requires_an_encoder_that_accepts_absent_values() -> None:
    for name in ("l2-ae", "stacked-ae"):
        with pytest.raises(
            RecipeError, match="corruption 'modality-dropout' takes values away, which encoder '"
        ):
            made(name, SMALL, "corruption=[{name: modality-dropout}]")


# -- similarity ----------------------------------------------------------------------------------------


def reference(x: Tensor, y: Tensor, *, padded: bool = True) -> np.ndarray:
    """SSIM of two planes (H, W) by scikit-image, over all windows or only those inside the image."""
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, values = structural_similarity(x.double().numpy(), y.double().numpy(), full=True, **options)
    assert isinstance(values, np.ndarray)
    return values if padded else values[5:-5, 5:-5]


def grey(x: Tensor) -> Tensor:
    return 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]


def test_three_channels_are_compared_in_grey_and_others_one_by_one() -> None:
    x, y = images(1)[0], images(2)[1]
    found, present = modal_ssim(x[None], y[None], SMALL, data_range=1.0)
    expected = [
        reference(grey(x), grey(y)).mean(),
        reference(x[3], y[3]).mean(),
        (reference(x[4], y[4]).mean() + reference(x[5], y[5]).mean()) / 2,
    ]
    assert found[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert present.all()
    asked = (
        SMALL[0].model_copy(update={"grey": False}),
        SMALL[1],
        SMALL[2].model_copy(update={"grey": True}),
    )
    found, _ = modal_ssim(x[None], y[None], asked, data_range=1.0)
    each = [reference(x[channel], y[channel]).mean() for channel in range(3)]
    middle = reference(x[4:].mean(0), y[4:].mean(0)).mean()
    assert found[0].tolist() == pytest.approx([np.mean(each), expected[1], middle], abs=1e-5)


def test_only_complete_windows_count() -> None:
    x, y = images(1), images(2)[1:]
    expected = reference(x[0, 3], y[0, 3])[
        :, :15
    ].mean()  # 20 columns; the windows of the last five reach the absent part
    x[:, 3, :, 20:] = NAN
    found, present = modal_ssim(x, y, SMALL, data_range=1.0)
    assert found[0, 1].item() == pytest.approx(expected, abs=1e-5)
    assert present.all()
    x[:, 3, ::9, ::9] = NAN  # no window is complete any more
    found, present = modal_ssim(x, y, SMALL, data_range=1.0)
    assert present.tolist() == [[True, False, True]]


def test_the_loss_is_the_mean_over_the_present_modalities_of_each_image() -> None:
    x, y = images(), images(4)[2:].requires_grad_()
    x[1, :3] = NAN
    term = ModalLogSSIM(modalities=SMALL, data_range=1.0)
    network = made("fp-cae")
    done = Pass(network, x, Output(y, y), network.prepare(x))
    found = term(done)
    similar, _ = modal_ssim(x, y, SMALL, data_range=1.0)
    loss = -((similar + 1) / 2).log()
    assert list(found) == ["rgb", "infrared", "pair"]
    total = sum(found.values())
    expected = (loss[0].mean() + loss[1, 1:].mean()) / 2
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(found["rgb"], loss[0, 0] / 3 / 2)
    (gradient,) = torch.autograd.grad(total, y)
    assert gradient.isfinite().all()
    assert not gradient[1, :3].any()
    assert gradient[1, 3:].any()


def test_the_terms_have_the_names_of_the_modalities() -> None:
    assert list(made("fp-cae-add").loss(images()).terms) == [
        "modal-log-ssim-rgb",
        "modal-log-ssim-infrared",
        "modal-log-ssim-pair",
    ]
    assert list(build(load_recipe("fp-cae-add"), 4).loss(images(1, 4)).terms) == ["modal-log-ssim-image"]


def test_the_residual_is_the_mean_over_the_present_modalities() -> None:
    x, y = images(1), images(2)[1:]
    each = ModalSSIM(modalities=SMALL, data_range=1.0).each(x, y)[0].double()
    expected = 1 - np.stack(
        [
            reference(grey(x[0]), grey(y[0])),
            reference(x[0, 3], y[0, 3]),
            (reference(x[0, 4], y[0, 4]) + reference(x[0, 5], y[0, 5])) / 2,
        ]
    )
    np.testing.assert_allclose(each, expected, atol=1e-5)
    x[:, 3, :10] = NAN
    x[:, :, :4, :4] = NAN
    model = made("fp-cae-add")
    with torch.no_grad():
        residual, made_of_it = model.examine(x)
        by_modality = model.measure.each(x, made_of_it)
    assert torch.equal(by_modality[0, 1].isnan(), x[0, 3].isnan())
    torch.testing.assert_close(residual[0, 0, :10, 4:], by_modality[0, [0, 2], :10, 4:].mean(0))
    torch.testing.assert_close(residual[0, 0, 10:], by_modality[0, :, 10:].mean(0))
    assert not residual[..., :4, :4].any()
    assert residual[..., 4:, 4:].min() > 0


def test_a_hole_does_not_lower_the_residual_beside_it() -> None:
    x = torch.full((1, 6, 32, 32), 0.5)
    x[:, 3, 16, 14] = 1.0
    y = torch.full((1, 6, 32, 32), 0.5)
    measure = ModalSSIM(modalities=SMALL, data_range=1.0)
    whole = measure.each(x, y)[0, 1]
    x[:, 3, :, 16:] = NAN
    beside = measure.each(x, y)[0, 1]
    torch.testing.assert_close(beside[:, :16], whole[:, :16])
    assert beside[16, 14] > 0.5
    assert beside[:, 16:].isnan().all()


@pytest.mark.parametrize(
    "part", ["loss=[{name: modal-log-ssim, window: 10}]", "residual={name: modal-ssim, window: 4}"]
)
def test_an_even_window_is_refused(part: str) -> None:
    with pytest.raises(UsageError, match="give an odd number"):
        made("fp-cae", SMALL, part)


# -- prediction of one modality from the others --------------------------------------------------------


@pytest.mark.parametrize("name", ["fp-cae", *SEPARATED])
def test_a_modality_is_predicted_from_the_others_alone(name: str) -> None:
    model = made(name)
    x = images()
    found = modal_residuals(model, x)
    assert found.own.shape == found.crossed.shape == (2, 3, 32, 32)
    assert isinstance(model.measure, ModalSSIM)
    torch.testing.assert_close(found.own, model.measure.each(x, found.reconstruction))
    torch.testing.assert_close(found.crossed, model.measure.each(x, found.predicted))
    torch.testing.assert_close(found.own.mean(1, keepdim=True), model.residual(x))
    other = x.clone()
    other[:, 3] = images(4)[2:, 3]
    again = modal_residuals(model, other)
    assert torch.equal(again.predicted[:, 3], found.predicted[:, 3])
    assert not torch.equal(again.predicted[:, :3], found.predicted[:, :3])
    assert not torch.equal(again.reconstruction[:, 3], found.reconstruction[:, 3])


HOLES = {
    "none": (),
    "a sensor": ((0, 3, slice(None), slice(None)),),
    "a region": ((1, slice(0, 3), slice(5, 30), slice(16, None)),),
    "one channel of three": ((0, 1, slice(0, 20), slice(None)),),
    "all but one": ((0, slice(0, 4)),),
    "everything in a region": ((slice(None), slice(None), slice(20, None), slice(None)),),
    "everything": ((1,),),
}


@pytest.mark.parametrize("size", [(32, 32), (45, 51)])
@pytest.mark.parametrize("holes", HOLES.values(), ids=HOLES.keys())
@pytest.mark.parametrize("name", ["fp-cae", *SEPARATED])
def test_a_prediction_does_not_use_the_predicted_modality(
    name: str, holes: tuple[tuple[slice, ...], ...], size: tuple[int, int]
) -> None:
    model = made(name)
    x = images(2, 6, *size)
    for hole in holes:
        x[hole] = NAN
    found = modal_residuals(model, x)
    torch.testing.assert_close(found.reconstruction, model(x).reconstruction, rtol=0, atol=1e-5)
    for taken in (slice(0, 3), slice(3, 4), slice(4, 6)):
        others = x.clone()
        others[:, taken] = NAN
        expected = model(others).reconstruction[:, taken]
        expected = expected.masked_fill(others.isnan().all(1, keepdim=True), NAN)
        torch.testing.assert_close(found.predicted[:, taken], expected, rtol=0, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", SEPARATED)
def test_separated_networks_encode_each_modality_once(name: str) -> None:
    model = made(name)
    calls = []
    encoders = [
        part for key, part in model.encoder.named_modules() if key.count(".") == 1 and "encoders" in key
    ]
    for place, encoder in enumerate(encoders):
        encoder.register_forward_hook(lambda *_, place=place: calls.append(place))
    modal_residuals(model, images())
    assert calls == [0, 1, 2]


@pytest.mark.parametrize(
    "between",
    [
        "corruption=[{name: gaussian, sigma: 0.1, at_inspection: true}]",
        "bottleneck=[{name: dense, latent: 9}]",
    ],
)
def test_predictions_include_parts_between_encoder_and_decoder(between: str) -> None:
    model = made("fp-cae-add", SMALL, between)
    x = images()
    others = x.clone()
    others[:, 3] = NAN
    found = modal_residuals(model, x)
    torch.testing.assert_close(found.predicted[:, 3], model(others).reconstruction[:, 3])


def test_an_absent_modality_has_a_prediction_and_no_residual() -> None:
    x = images()
    x[0, 3] = NAN
    x[1, :4, :, 16:] = NAN
    model = made("fp-cae-add")
    found = modal_residuals(model, x)
    assert found.predicted[0].isfinite().all()
    torch.testing.assert_close(found.predicted[0, 3], found.reconstruction[0, 3])
    for residuals in (found.own, found.crossed):
        assert residuals[0, 1].isnan().all()
        assert residuals[0, [0, 2]].isfinite().all()
    assert torch.equal(found.own[1].isnan(), x[1, [0, 3, 4]].isnan())
    # Right of the middle only the third is present, and nothing predicts it.
    assert found.crossed[1, 2, :, 16:].isnan().all()
    assert found.predicted[1, 4:, :, 16:].isnan().all()
    assert found.crossed[1, 2, :, :16].isfinite().all()


def test_a_single_modality_has_no_prediction() -> None:
    found = modal_residuals(build(load_recipe("fp-cae"), 2).eval(), images(1, 2))
    assert found.own.isfinite().all()
    assert found.crossed.isnan().all()
    assert found.predicted.isnan().all()


def test_modal_residuals_require_the_modal_residual_rule() -> None:
    with pytest.raises(UsageError, match="need a model with residual 'modal-ssim'"):
        modal_residuals(made("fp-cae", SMALL, "residual={name: ssim}"), images())
    with pytest.raises(UsageError, match="the encoder of this model cannot take"):
        modal_residuals(made("stacked-ae"), images())


# -- modalities ----------------------------------------------------------------------------------------


def test_modalities_that_do_not_fit_the_images_are_refused() -> None:
    with pytest.raises(UsageError, match="rgb, infrared, pair have 6 channels in all, but the images 7"):
        build(load_recipe("fp-cae-add"), 7, modalities=SMALL)
    with pytest.raises(UsageError, match="two modalities bear the name 'rgb'"):
        build(load_recipe("fp-cae-add"), 6, modalities=(SMALL[0], SMALL[0]))
