"""The ensemble of any anomaly models: its map, its weights, and what it keeps on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save

from blemish.detectors.combination import combined
from blemish.detectors.contracts import AnomalyMaps, FitRecord
from blemish.detectors.ensemble import Ensemble, for_inspection
from blemish.detectors.map_normaliser import MapNormaliser
from blemish.detectors.memory_bank import StructureMemoryBank
from blemish.errors import UsageError

Array = NDArray[np.float32]


class Level:
    """An anomaly model without torch: the absolute difference from a level."""

    takes_absent = False

    def __init__(self, level: float, *, margin: int = 0) -> None:
        self.level, self.margin = level, margin
        self.title = f"difference from {level:g}"
        self.fitted: list[Any] = []

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        return slice(max(0, rows.start - self.margin), rows.stop), columns

    def maps(self, x: Array, *, hidden: Any = ()) -> AnomalyMaps:
        return AnomalyMaps(np.abs(x[0] - np.float32(self.level)), np.full_like(x, self.level))

    def reset(self) -> None:
        self.fitted.clear()

    def fit(self, source: Any, run: Any) -> FitRecord:
        self.fitted.append((source, run))
        return FitRecord(notes=(f"fitted {self.level:g}",))


def bank(count: int = 3) -> StructureMemoryBank:
    memory = StructureMemoryBank(patch=8, capacity=500, contrast=False)
    if count:
        images = torch.rand(count, 1, 32, 40, generator=torch.Generator().manual_seed(0))
        memory.fit_images(list(images), torch.Generator().manual_seed(0), by_place=False)
    return memory


@pytest.fixture
def x() -> Array:
    return np.random.default_rng(3).random((1, 32, 40), np.float32)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_both_maps_are_one_at_their_scale_and_doublings_of_a_network_count(share: float) -> None:
    def of(network: Sequence[float], memory: Sequence[float]) -> Array:
        maps = [np.asarray(one, np.float32) for one in (network, memory)]
        return combined(maps, [True, False], (4.0, 0.5), (1 - share, share))

    np.testing.assert_allclose(of([4.0], [0.5]), 1.0)
    surest = of([1e9, 2e9], [0, 0])
    np.testing.assert_allclose(np.diff(surest), 1 - share, atol=1e-4)
    rising = of(np.linspace(0, 50, 100).tolist(), np.linspace(0, 9, 100).tolist())
    assert (np.diff(rising) > 0).all()
    if not share:
        ones = np.ones(3, np.float32)
        alone = combined([ones, None], [True, False], (4.0, 0.5), (1.0, 0.0))
        np.testing.assert_array_equal(alone, of([1, 1, 1], [1, 1, 1]))


def test_the_map_is_the_weighted_sum_of_the_members(x: Array) -> None:
    memory = bank()
    ensemble = Ensemble([Level(0.2), memory, Level(0.6)])
    ensemble.set_weights([2.0, 3.0, 0.5], [0.25, 0.5, 0.25])
    first, third = (np.abs(x[0] - level) / (3 + 1e-6) for level in (0.2, 0.6))  # unfitted normalisers
    expected = 0.25 * np.log2(1 + first / 2) + 0.5 / 3 * memory.maps(x).anomaly
    expected += 0.25 * np.log2(1 + third / 0.5)
    maps = ensemble.maps(x)
    np.testing.assert_allclose(maps.anomaly, expected, rtol=1e-5)
    assert maps.anomaly.dtype == np.float32
    assert maps.reconstruction is not None
    np.testing.assert_array_equal(maps.reconstruction, np.full_like(x, 0.2))


def test_a_member_without_weight_is_not_run_unless_it_reconstructs(x: Array) -> None:
    ensemble = Ensemble([Level(0.2), bank(0)])  # an empty bank would refuse
    assert ensemble.weights == [1, 0]
    assert ensemble.title == "difference from 0.2"
    ensemble = Ensemble([Level(0.2), bank()])
    ensemble.set_weights([1.0, 2.0], [0.0, 1.0])
    maps = ensemble.maps(x)
    np.testing.assert_allclose(maps.anomaly, ensemble.models[1].maps(x).anomaly / 2)
    assert maps.reconstruction is not None
    assert ensemble.title == "difference from 0.2, with distance to the good images in structure"


def test_weights_add_up_to_one_as_they_are_saved() -> None:
    ensemble = Ensemble([Level(0), Level(1), Level(2)])
    ensemble.set_weights([1, 1, 1], [0.1, 0.3, 0.6])
    assert sum(ensemble.weights) == 1
    assert ensemble.weights[1] == float(np.float32(0.3))
    assert Ensemble([Level(0), bank(), Level(1), bank()]).weights == [0.5, 0, 0.5, 0]


def test_the_window_is_that_of_all_members_or_the_whole_image() -> None:
    rows, columns = slice(8, 16), slice(4, 9)
    alike = Ensemble([Level(0, margin=3), Level(1, margin=3)])
    assert alike.window((100, 90), rows, columns) == (slice(5, 16), columns)
    unlike = Ensemble([Level(0, margin=3), Level(1, margin=4)])
    assert unlike.window((100, 90), rows, columns) == (slice(0, 100), slice(0, 90))
    with_bank = Ensemble([Level(0), bank()])
    with_bank.set_weights([1, 1], [0.5, 0.5])
    assert with_bank.window((100, 90), rows, columns) == (slice(0, 100), slice(0, 90))
    with pytest.raises(UsageError, match="too small"):
        with_bank.window((4, 90), slice(0, 4), columns)


def test_members_of_an_ensemble_take_its_place() -> None:
    inner = Ensemble([Level(1), Level(2)], names=["one", "two"])
    outer = Ensemble([Level(0), inner], names=["zero", "pair"])
    assert outer.names == ["zero", "pair: one", "pair: two"]
    assert [model.level for model in outer.models] == [0, 1, 2]  # type: ignore[attr-defined]


def test_it_comes_back_from_disk_bit_by_bit(x: Array) -> None:
    ensemble, other = Ensemble([Level(0.2), bank()]), Ensemble([Level(0.2), bank(0)])
    normaliser = ensemble.normalisers["0"]
    assert isinstance(normaliser, MapNormaliser)
    normaliser.fit([torch.rand(32, 40) for _ in range(20)], by_place=True)
    ensemble.set_weights([2.0, 3.0], [0.3, 0.7])
    other.load_state_dict(load(save(ensemble.state_dict())))
    np.testing.assert_array_equal(other.maps(x).anomaly, ensemble.maps(x).anomaly)
    ensemble.reset()
    fresh = Ensemble([Level(0.2), bank(0)]).state_dict()
    assert list(ensemble.state_dict()) == list(fresh)
    assert all(torch.equal(value, fresh[name]) for name, value in ensemble.state_dict().items())


def test_fitting_resets_the_members_and_lets_the_selection_fit_them() -> None:
    models = [Level(0.1), Level(0.2)]
    calls = []

    def select(ensemble: Ensemble, source: Any, run: Any) -> FitRecord:
        calls.append((ensemble, [len(model.fitted) for model in models]))
        return FitRecord(notes=("selected",), left_out=(3,))

    ensemble = Ensemble([*models, bank()], selection=select)
    record = ensemble.fit("source", "run")  # type: ignore[arg-type]
    assert calls == [(ensemble, [0, 0])]
    assert record == FitRecord((), ("selected",), (3,))
    assert ensemble.banks[2].is_empty  # nothing of an earlier fit is left
    with pytest.raises(UsageError, match="without a selection"):
        Ensemble(models).fit("source", "run")  # type: ignore[arg-type]


def test_models_without_torch_need_no_device() -> None:
    model = Level(0.1)
    assert for_inspection(model) is model
    ensemble = for_inspection(Ensemble([model, bank()]).train())
    assert not ensemble.training
