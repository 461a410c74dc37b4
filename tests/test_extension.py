"""Extensions in a file of their own: a feature extractor, a measure and an exporter, with no edit of the package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from blemish.detectors.contracts import AnomalyMaps, AnomalyModel, GoodImages
from blemish.detectors.ensemble import Ensemble, for_inspection
from blemish.detectors.factory import build_model, networks
from blemish.detectors.feature_extractors import FEATURE_EXTRACTORS, FeatureExtractor, register_extractor
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import RecipeError
from blemish.observer import Observer
from blemish.preprocessing.tiling import Blender, TilePlan
from blemish.recipes import load_recipe, override, parse_recipe
from blemish.similarity import MEASURES, Measure

Array = NDArray[np.float32]
TEXT = {"name": "mine", "title": "Mine", "paper": "none", "expect": "little"}


def images(count: int, seed: int = 0) -> list[Array]:
    """Stripes (1, 40, 48) in other light each."""
    rng = np.random.default_rng(seed)
    stripes = 0.5 + 0.3 * np.sin(np.arange(48) / 2)[None, None] * np.ones((1, 40, 1))
    return [
        (stripes + rng.uniform(-0.1, 0.1) + rng.normal(0, 0.01, stripes.shape)).astype(np.float32)
        for _ in range(count)
    ]


# -- a feature extractor -------------------------------------------------------------------------------


class CellStatistics(FeatureExtractor):
    """Mean and standard deviation of square cells."""

    def __init__(self, *, cell: Annotated[int, Field(ge=2)] = 4) -> None:
        super().__init__()
        self.stride = self.least_side = cell
        self.offset = cell // 2

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(x, self.stride)
        square = F.avg_pool2d(x * x, self.stride)
        deviation = (square - mean * mean).clamp(min=0).sqrt()
        return torch.cat([mean, deviation], 1).permute(0, 2, 3, 1)


@pytest.fixture
def cells() -> Iterator[None]:
    register_extractor("cell-statistics")(CellStatistics)
    yield
    del FEATURE_EXTRACTORS["cell-statistics"]


class Source:
    def whole(self, part: str) -> GoodImages:
        first = {"train": 0, "validation": 10}[part]
        return GoodImages(images(10, first), range(first, first + 10))


class Run:
    observer, seed = Observer(), 0

    def train(self, autoencoder: Any, name: str) -> None:
        raise AssertionError("there is no network to train")


@pytest.mark.usefixtures("cells")
@pytest.mark.parametrize("by_place", [False, True])
def test_a_feature_extractor_of_ones_own_is_named_in_a_recipe(by_place: bool) -> None:
    features = [{"name": "structure", "patch": 8}, {"name": "cell-statistics", "cell": 8}]
    recipe = parse_recipe({**TEXT, "memory": {"features": features, "by_place": by_place}}, "mine")
    model = build_model(recipe, 1)
    assert isinstance(model, Ensemble)
    model.fit(Source(), Run())
    bank = model.banks[0].banks[1]
    assert (bank.extractor.stride, bank.is_empty, bank.by_place) == (8, False, by_place)
    assert "cell-statistics" in model.title
    good = images(1, 77)[0]
    spot = good.copy()
    spot[:, 16:24, 24:32] = 0.9
    before, after = (model.maps(one).anomaly for one in (good, spot))
    assert before.shape == (40, 48)
    row, column = np.unravel_index((after - before).argmax(), before.shape)
    assert 14 <= row < 26
    assert 22 <= column < 34


@pytest.mark.usefixtures("cells")
@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"name": "cell-statistic"},
            "unknown feature extractor 'cell-statistic'; did you mean 'cell-statistics'",
        ),
        (
            {"name": "cell-statistics", "cel": 8},
            "feature extractor 'cell-statistics' has no setting 'cel'; did you",
        ),
        (
            {"name": "cell-statistics", "cell": 1},
            "feature extractor 'cell-statistics': cell is 1; input should be",
        ),
    ],
)
def test_its_settings_are_checked_as_those_of_other_parts(part: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        build_model(parse_recipe({**TEXT, "memory": {"features": [part]}}, "mine"), 1)
    assert str(error.value).startswith(message)


# -- a measure -----------------------------------------------------------------------------------------


class Charbonnier(Measure):
    """√(d² + ε²) - ε of each pixel's difference d."""

    title = "Charbonnier"

    def __init__(self, *, data_range: float, epsilon: float = 0.001) -> None:
        super().__init__(data_range=data_range)
        self.epsilon = epsilon

    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        return ((x - y).square() + self.epsilon**2).sqrt().mean(1, keepdim=True) - self.epsilon

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return self.distance_map(x, y).mean((1, 2, 3))


def test_a_measure_of_ones_own_is_loss_and_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASURES, "charbonnier", Charbonnier)
    settings = ["patch.size=32", "patch.stride=32", "encoder.latent=4", "residual={name: charbonnier}"]
    recipe = override(
        load_recipe("ssim-ae"), [*settings, "loss=[{name: charbonnier, weight: 2, epsilon: 0.01}]"]
    )
    torch.manual_seed(0)
    model = for_inspection(build_model(recipe, 1))
    network = networks(model)[""]
    x = images(1)[0][:, :32, :32]  # one tile
    maps = model.maps(x)
    assert model.title == "Charbonnier"
    assert maps.reconstruction is not None
    expected = np.sqrt((x - maps.reconstruction) ** 2 + 1e-6)[0] - 1e-3
    np.testing.assert_allclose(maps.anomaly, expected, atol=1e-5)
    batch = torch.from_numpy(x[None])
    y = network(batch).reconstruction
    torch.testing.assert_close(
        network.loss(batch).total, 2 * (((batch - y).square() + 1e-4).sqrt() - 0.01).mean()
    )


# -- an exporter ---------------------------------------------------------------------------------------


class ExportedModel:
    """A reconstruction model that runs from a file of ``torch.export``, without the classes of its network."""

    takes_absent = False

    def __init__(self, path: Path, *, title: str, patch: int, stride: int) -> None:
        self.title, self.patch, self.stride = title, patch, stride
        self._program = torch.export.load(path).module()

    def _plan(self, size: tuple[int, int]) -> TilePlan:
        return TilePlan(size, (self.patch, self.patch), (self.stride, self.stride))

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        return self._plan(size).around(rows, columns)

    def maps(self, x: Array, *, hidden: Sequence[slice] = ()) -> AnomalyMaps:
        plan = self._plan((x.shape[1], x.shape[2]))
        blended = Blender(plan, 1 + len(x))
        with torch.inference_mode():
            for where, tiles in plan.tiles(x, batch=1):
                blended.add(where, self._program(torch.from_numpy(tiles)).numpy())
        result = blended.result()
        return AnomalyMaps(result[0], result[1:])


def export(model: ReconstructionModel, path: Path) -> ExportedModel:
    class Tile(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.autoencoder

        def forward(self, x: Tensor) -> Tensor:
            found = self.network.examine(x)
            return torch.cat([found.map, found.reconstruction], 1)

    example = torch.zeros(1, 1, model.patch, model.patch)
    torch.export.save(torch.export.export(Tile().eval(), (example,)), path)
    return ExportedModel(path, title=model.title, patch=model.patch, stride=model.stride)


def test_an_exporter_of_ones_own_gives_an_anomaly_model_that_an_ensemble_takes(tmp_path: Path) -> None:
    settings = ["patch.size=32", "patch.stride=16", "encoder.latent=4"]
    torch.manual_seed(0)
    model = build_model(override(load_recipe("l2-ae"), settings), 1)
    assert isinstance(model, ReconstructionModel)
    for_inspection(model)
    exported = export(model, tmp_path / "model.pt2")
    assert isinstance(exported, AnomalyModel)
    x = images(1)[0]
    np.testing.assert_allclose(exported.maps(x).anomaly, model.maps(x).anomaly, atol=1e-5)
    area = (slice(8, 20), slice(3, 9))
    assert exported.window((40, 48), *area) == model.window((40, 48), *area)
    own, other = (Ensemble([one]).maps(x).anomaly for one in (exported, model))
    np.testing.assert_allclose(own, other, atol=1e-5)
