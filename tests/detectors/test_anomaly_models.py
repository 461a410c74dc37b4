"""What every anomaly model promises."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from blemish.decision import image_score
from blemish.detectors.contracts import AnomalyModel, FitRecord, GoodImages, OneProcess, TrainableModel
from blemish.detectors.ensemble import for_inspection
from blemish.detectors.factory import build_model, networks, training_recipes
from blemish.detectors.feature_extractors import FEATURE_EXTRACTORS
from blemish.detectors.memory_bank import MemoryBank
from blemish.errors import UsageError
from blemish.export.export_model import for_runtime
from blemish.export.graphs import OPSET
from blemish.export.parts import Parts, parts_of
from blemish.observer import Observer
from blemish.recipes import Recipe, load_recipe, override, parse_recipe
from blemish.runtime.model import assembled, sha256
from blemish.runtime.record import Export, RuntimeName

SMALL = ["patch.size=32", "patch.stride=16"]
UNET = [*SMALL, "image.size=null", "encoder.widths=[4, 8]", "memory.patch=8", "memory.capacity=500"]
TEXT = {"title": "Mine", "paper": "none", "expect": "little"}


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    """The same board (1, 132, 136) in other light, with noise."""
    board = np.kron(np.random.default_rng(9).random((33, 34)), np.ones((4, 4)))
    found = []
    for number in range(count):
        rng = np.random.default_rng(1000 * seed + number)
        values = rng.uniform(0.5, 0.8) * board + 0.1 + rng.normal(0, 0.01, board.shape)
        found.append(values.clip(0, 1)[None].astype(np.float32))
    return found


class Source:
    def whole(self, part: str) -> GoodImages:
        return {
            "train": GoodImages(images(6), range(6)),
            "validation": GoodImages(images(3, 1), range(6, 9)),
        }[part]


class Run:
    """Takes one step of gradient descent in place of a training."""

    observer, seed, defects, sharing = Observer(), 0, None, OneProcess()

    def __init__(self) -> None:
        self.trained: list[str] = []

    def train(self, autoencoder: Any, name: str) -> None:
        self.trained.append(name)
        autoencoder.train()
        optimiser = torch.optim.SGD(autoencoder.parameters(), 1e-3)
        autoencoder.loss(torch.from_numpy(np.stack(images(2, 2))[..., :32, :32])).total.backward()
        optimiser.step()


def mine(**content: Any) -> Recipe:
    return parse_recipe({"name": "mine", **TEXT, **content}, "mine")


def member(name: str, *settings: str) -> dict[str, Any]:
    return override(load_recipe(name), [*SMALL, *settings]).model_dump(mode="json")


RECIPES: dict[str, Callable[[], Recipe]] = {
    "reconstruction": lambda: override(load_recipe("ssim-ae"), [*SMALL, "encoder.latent=4"]),
    "network and memory bank": lambda: override(load_recipe("blemish"), UNET),
    "memory bank": lambda: mine(memory={"name": "structure", "patch": 8, "capacity": 500}),
    **{
        f"memory bank of {name}": lambda name=name: mine(
            memory={"features": [{"name": name}], "capacity": 500, "by_place": True}
        )
        for name in FEATURE_EXTRACTORS
    },
    "filter bank": lambda: mine(filters=True, combination="soft-maximum"),
    "memory bank and filter bank": lambda: mine(
        memory={"name": "structure", "patch": 8, "capacity": 500}, filters=True, combination="soft-maximum"
    ),
    "three members by a soft maximum": lambda: mine(
        members=[
            member("ssim-ae", "encoder.latent=4"),
            {"name": "bank", "memory": {"name": "structure", "patch": 8, "capacity": 500}},
            {"name": "filters", "filters": True},
        ],
        combination="soft-maximum",
    ),
    "three members": lambda: mine(
        members=[
            member("ssim-ae", "encoder.latent=4"),
            member("l2-ae", "encoder.latent=4"),
            {"name": "bank", "memory": {"name": "structure", "patch": 8, "capacity": 500}},
        ]
    ),
}


class Fitted:
    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        torch.manual_seed(0)
        self.model = build_model(recipe, 1)
        self.run = Run()
        self.record = self.model.fit(Source(), self.run)
        for_inspection(self.model)
        self.combination = getattr(self.model, "combination", None)
        rule = recipe.score
        self.score = partial(image_score, kind=rule.name, quantile=rule.quantile, sigma=rule.sigma)
        self._parts: Parts | None = None

    def parts(self) -> Parts:
        """The parts of the model, traced once."""
        self._parts = self._parts or parts_of(self.model, 1)
        return self._parts


SLOW = {"memory bank of efficientnet-lite", "three members"}
"""Recipes whose networks take long to trace; in `make slow`."""


@pytest.fixture(scope="module", params=sorted(RECIPES))
def fitted(request: pytest.FixtureRequest) -> Fitted:
    return Fitted(RECIPES[request.param]())


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return images(1, 5)[0]


def test_it_is_a_trainable_anomaly_model(fitted: Fitted) -> None:
    assert isinstance(fitted.model, AnomalyModel)
    assert isinstance(fitted.model, TrainableModel)
    assert isinstance(fitted.record, FitRecord)
    assert fitted.model.title
    assert fitted.run.trained == list(training_recipes(fitted.recipe)) == list(networks(fitted.model))


def test_a_map_has_the_size_of_its_image_and_is_at_least_zero(fitted: Fitted, x: np.ndarray) -> None:
    for own in (x, x[:, :100, :61]):
        maps = fitted.model.maps(own)
        assert maps.anomaly.shape == own.shape[1:]
        assert maps.anomaly.dtype == np.float32
        assert np.isfinite(maps.anomaly).all()
        assert maps.anomaly.min() >= 0
        assert maps.anomaly.max() > 0
        if maps.reconstruction is not None:
            assert maps.reconstruction.shape == own.shape
    assert (maps.reconstruction is None) == (not networks(fitted.model))


by_runtime = pytest.mark.parametrize("runtime", ["onnx", "openvino"])
quick_or_slow = pytest.mark.parametrize(
    "fitted",
    [
        # One process has a recipe in all runtimes, so that it is fitted and traced once.
        pytest.param(name, marks=[pytest.mark.slow, pytest.mark.xdist_group(name)] if name in SLOW else [])
        for name in sorted(RECIPES)
    ],
    indirect=True,
    scope="module",
)


@quick_or_slow
@by_runtime
def test_its_exported_parts_give_the_same_map(
    fitted: Fitted, x: np.ndarray, runtime: RuntimeName, tmp_path: Path
) -> None:
    parts = for_runtime(fitted.parts(), runtime)
    export = Export(
        runtime=runtime,
        opset=OPSET,
        weights_sha256="0",
        graphs={name: sha256(content) for name, content in parts.graphs.items()},
        members=parts.members,
        names=parts.names,
        combination=fitted.combination,
    )
    arrays = {name: np.ascontiguousarray(values) for name, values in parts.arrays.items()}
    exported = assembled(export, save(arrays), parts.graphs, fitted.score, tmp_path)
    assert isinstance(exported, AnomalyModel)
    assert exported.takes_absent == fitted.model.takes_absent
    assert exported.window((132, 136), slice(0, 40), slice(20, 90)) == fitted.model.window(
        (132, 136), slice(0, 40), slice(20, 90)
    )
    for own in (x, x[:, :100, :61]):
        one, other = fitted.model.maps(own), exported.maps(own)
        np.testing.assert_allclose(other.anomaly, one.anomaly, rtol=0, atol=1e-3 * one.anomaly.max())
        if one.reconstruction is None:
            assert other.reconstruction is None
        else:
            np.testing.assert_allclose(other.reconstruction, one.reconstruction, atol=1e-4)


def test_the_same_image_has_the_same_map_and_is_left_as_it_is(fitted: Fitted, x: np.ndarray) -> None:
    before = x.copy()
    first, again = (fitted.model.maps(x).anomaly for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(x, before)


def test_the_same_fit_gives_the_same_map(x: np.ndarray, fitted: Fitted) -> None:
    again = Fitted(fitted.recipe)
    assert again.record == fitted.record
    np.testing.assert_array_equal(again.model.maps(x).anomaly, fitted.model.maps(x).anomaly)


def test_an_altered_area_is_shown(fitted: Fitted, x: np.ndarray) -> None:
    """By whatever compares with good images; a network of one step knows nothing yet."""
    banks = getattr(fitted.model, "banks", {})
    altered = x.copy()
    altered[:, 40:80, 40:80] = np.random.default_rng(0).random((40, 40))
    before, after = (fitted.model.maps(one).anomaly[46:74, 46:74].mean() for one in (x, altered))
    if banks and not all(bank.is_empty for bank in banks.values()):
        assert after > before + 0.1
    else:
        assert after != before


PROMISED = [
    "memory bank",
    *(f"memory bank of {name}" for name, one in FEATURE_EXTRACTORS.items() if one.ignores_light),
]


@pytest.mark.parametrize("fitted", PROMISED, indirect=True, scope="module")
def test_light_is_ignored_where_that_is_promised(fitted: Fitted, x: np.ndarray) -> None:
    assert all(bank.ignores_light for bank in fitted.model.banks.values())
    before, after = (fitted.model.maps(one.astype(np.float32)).anomaly for one in (x, 0.7 * x + 0.1))
    np.testing.assert_allclose(after, before, atol=0.02, rtol=0.02)


def test_the_maps_on_an_area_depend_on_its_window_alone(fitted: Fitted, x: np.ndarray) -> None:
    rows, columns = slice(36, 60), slice(40, 70)
    window = fitted.model.window(x.shape[1:], rows, columns)
    assert window[0].start <= rows.start < rows.stop <= window[0].stop <= x.shape[1]
    assert window[1].start <= columns.start < columns.stop <= window[1].stop <= x.shape[2]
    outside = np.random.default_rng(1).random(x.shape, np.float32)
    outside[(slice(None), *window)] = x[(slice(None), *window)]
    inside = [fitted.model.maps(one).anomaly[rows, columns] for one in (x, outside)]
    np.testing.assert_allclose(inside[1], inside[0], atol=1e-6)


def test_an_image_that_is_too_small_is_refused_in_a_line(fitted: Fitted) -> None:
    with pytest.raises(UsageError) as error:
        fitted.model.maps(np.random.default_rng(0).random((1, 3, 40), np.float32))
    assert "\n" not in str(error.value)


def test_a_place_outside_the_image_is_no_anomaly(fitted: Fitted, x: np.ndarray) -> None:
    cut = x.copy()
    cut[:, :, 90:] = np.nan
    values = fitted.model.maps(cut).anomaly
    assert np.isfinite(values).all()
    assert not values[:, 90:].any()
    assert values[:, :90].any()


def test_weights_go_into_an_unfitted_model_and_back(fitted: Fitted, x: np.ndarray) -> None:
    other = build_model(fitted.recipe, 1)
    other.load_state_dict(fitted.model.state_dict())
    np.testing.assert_array_equal(for_inspection(other).maps(x).anomaly, fitted.model.maps(x).anomaly)


def test_a_reset_leaves_the_networks_alone() -> None:
    fitted = Fitted(RECIPES["network and memory bank"]())
    before = {name: value.clone() for name, value in networks(fitted.model)[""].state_dict().items()}
    fitted.model.reset()
    for name, value in networks(fitted.model)[""].state_dict().items():
        assert torch.equal(value, before[name])
    assert all(bank.is_empty for bank in fitted.model.banks.values())  # type: ignore[union-attr]


def test_a_memory_bank_can_be_fitted_by_itself(x: np.ndarray) -> None:
    bank = MemoryBank([FEATURE_EXTRACTORS["structure"]()], capacity=500)
    assert isinstance(bank, TrainableModel)
    assert bank.fit(Source(), Run()) == FitRecord()
    assert not bank.by_place
    assert bank.maps(x).anomaly.shape == x.shape[1:]
