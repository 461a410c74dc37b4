from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from blemish.decision.scores import image_score
from blemish.detectors.combination import soft_maximum
from blemish.detectors.contracts import AnomalyMaps, FitRecord, GoodImages, OneProcess
from blemish.detectors.ensemble import Ensemble
from blemish.detectors.factory import build_model
from blemish.detectors.filter_bank import FilterBank
from blemish.detectors.memory_bank import ColourMemoryBank, StructureMemoryBank
from blemish.detectors.soft_maximum import SoftMaximumSelection, _median_and_spread
from blemish.errors import Stopped
from blemish.observer import Observer
from blemish.recipes import load_recipe


def score(values: np.ndarray) -> float:
    return image_score(values, kind="multi-scale-max", sigma=1.0)


def images(count: int, seed: int, *, is_board: bool = False) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    board = np.kron(np.random.default_rng(9).random((8, 8)), np.ones((8, 8)))
    found = []
    for _ in range(count):
        noise = ndimage.gaussian_filter(rng.standard_normal((64, 64)), 1)
        values = 0.5 + 0.1 * noise / noise.std() + (0.5 * (board - 0.5) if is_board else 0)
        found.append(values.clip(0, 1)[None].astype(np.float32))
    return found


class Source:
    def __init__(self, *, is_board: bool = False, is_posed: bool = False) -> None:
        train, held_out = images(20, 1, is_board=is_board), images(6, 2, is_board=is_board)
        self.parts = {
            "train": GoodImages(train, range(20), is_posed),
            "validation": GoodImages(held_out, range(20, 26), is_posed),
        }

    def whole(self, part: str) -> GoodImages:
        return self.parts[part]


class Run:
    def __init__(self, observer: Observer | None = None) -> None:
        self.observer, self.seed, self.defects = observer or Observer(), 0, None
        self.sharing = OneProcess()

    def train(self, autoencoder: object, name: str) -> None:
        raise AssertionError("there is no network")


class Brightness:
    """Anomaly model without torch: the brightness of the image, times a factor."""

    title, takes_absent = "brightness", False

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        return rows, columns

    def maps(self, x: np.ndarray, *, hidden: object = ()) -> AnomalyMaps:
        return AnomalyMaps(self.factor * x[0], None)


def ensemble(*models: object, trim: float = 0.0) -> Ensemble:
    selection = SoftMaximumSelection(score, trim)
    return Ensemble(models, selection=selection, combination="soft-maximum", score=score)  # type: ignore[arg-type]


def bank() -> StructureMemoryBank:
    return StructureMemoryBank(patch=8, capacity=400, contrast=False)


def test_one_member_at_its_scale_is_one_and_its_power_counts_doublings() -> None:
    values = np.array([0.0, 1.0, 4.0], np.float32)
    found = soft_maximum([values], [1.0], [3.0], [1.0])
    expected = [np.log2(1 + ((v + 0.02) / 1.02) ** 3) for v in (0.0, 1.0, 4.0)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[1] == 1


def test_the_member_that_is_farthest_beyond_its_own_leads() -> None:
    """A member at ten times its scale is not outvoted by two that see nothing."""
    blind, seeing = np.array(1.0), np.array(10.0)
    alone = float(soft_maximum([seeing], [1.0], [4.0], [1.0]))
    among = float(soft_maximum([blind, seeing, blind], [1.0] * 3, [4.0] * 3, [1 / 3] * 3))
    assert alone - np.log2(3) <= among < alone


def test_huge_values_stay_finite_and_a_member_without_weight_has_none() -> None:
    huge = np.array([1e30, 0.0], np.float32)
    assert np.isfinite(soft_maximum([huge], [1e-6], [20.0], [1.0])).all()
    both = soft_maximum([huge, np.ones(2, np.float32)], [1.0, 1.0], [2.0, 2.0], [0.0, 1.0])
    np.testing.assert_allclose(both, 1.0)


def test_scale_and_power_are_read_from_good_images() -> None:
    model = ensemble(Brightness(1.0), Brightness(100.0))
    record = model.fit(Source(), Run())
    assert isinstance(record, FitRecord)
    assert record.candidates == ()
    assert model.weights == [0.5, 0.5]
    # Twenty-six good images: the held-out ones, and as many training images as there are.
    good = [score(x[0]) for x in [*images(6, 2), *images(20, 1)]]
    median, spread = _median_and_spread(good)
    assert model.scales.tolist() == pytest.approx([median, 100 * median], rel=1e-5)
    assert model.powers.tolist() == pytest.approx([2 / spread] * 2, rel=1e-4)


def test_equal_members_count_as_one_whatever_their_unit() -> None:
    x = images(1, 5)[0]
    one, two = ensemble(Brightness(1.0)), ensemble(Brightness(1.0), Brightness(100.0))
    for model in (one, two):
        model.fit(Source(), Run())
    np.testing.assert_allclose(one.maps(x).anomaly, two.maps(x).anomaly, rtol=1e-3)


def test_a_score_that_hardly_varies_does_not_count_without_limit() -> None:
    assert _median_and_spread([3.0] * 10) == (3.0, 0.3)
    assert _median_and_spread([0.0] * 4)[0] > 0


def test_a_network_that_is_sure_of_every_good_image_is_read_in_probabilities() -> None:
    """Its maxima near 0 differ by factors, none of which is evidence."""
    sure = [1e-6, 1e-5, 1e-4, 1e-3]
    assert _median_and_spread(sure, math.log(2)) == (pytest.approx(math.log(2)), 1.3)
    assert _median_and_spread([5.0, 6.0, 7.0], math.log(2)) == _median_and_spread([5.0, 6.0, 7.0])
    model = build_model(load_recipe("blemish"), 1)
    assert [getattr(one, "least_evidence", 0.0) for one in model.models] == [math.log(2), 0.0, 0.0]


@pytest.mark.parametrize(("is_board", "by_place"), [(False, False), (True, True)])
def test_places_matter_where_the_images_show_one_view(is_board: bool, by_place: bool) -> None:
    model = ensemble(bank(), FilterBank())
    record = model.fit(Source(is_board=is_board), Run())
    assert next(iter(model.banks.values())).by_place is by_place
    assert ("One aligned view" in record.notes[0]) is by_place
    assert model.weights == [0.5, 0.5]


def test_filters_do_not_count_where_an_object_is_in_one_pose() -> None:
    model = ensemble(bank(), FilterBank())
    model.fit(Source(is_board=True, is_posed=True), Run())
    assert model.weights == [1.0, 0.0]
    assert model.models[1].is_empty  # type: ignore[attr-defined]
    x = images(1, 5, is_board=True)[0]
    assert np.isfinite(model.maps(x).anomaly).all()


def test_the_images_of_the_bank_are_read_without_themselves() -> None:
    """Or the distance of each to itself, 0, would be taken for the usual one."""
    model = ensemble(bank())
    model.fit(Source(), Run())
    fresh = [score(model.models[0].maps(x).anomaly) for x in images(12, 7)]
    assert model.scales.item() == pytest.approx(np.median(fresh), rel=0.35)


def test_the_training_image_that_is_farthest_from_the_others_is_left_out_of_the_bank() -> None:
    whole = ensemble(bank())
    whole.fit(Source(), Run())
    distances = [score(whole.models[0].anomaly_map(x, n)) for n, x in enumerate(images(20, 1))]  # type: ignore[attr-defined]
    model = ensemble(bank(), trim=0.05)
    assert model.fit(Source(), Run()).left_out == (int(np.argmax(distances)),)
    assert not model.banks[0].is_empty


def test_it_can_be_stopped() -> None:
    class Stop(Observer):
        def should_stop(self) -> bool:
            return True

    with pytest.raises(Stopped):
        ensemble(bank()).fit(Source(), Run(Stop()))


def test_the_state_holds_the_powers_of_a_soft_maximum_alone() -> None:
    assert "powers" in ensemble(Brightness(1.0)).state_dict()
    assert "powers" not in Ensemble([Brightness(1.0)]).state_dict()


def test_the_score_of_the_map_is_the_soft_maximum_of_the_scores() -> None:
    """Also of a member with single pixels far above its score, which do not decide alone."""
    model = ensemble(Brightness(1.0), Brightness(3.0))
    model.fit(Source(), Run())
    x = images(1, 5)[0]
    x[0, 10, 10] = 1.0
    scores = [np.array(score(one.maps(x).anomaly), np.float32) for one in model.models]
    expected = soft_maximum(scores, model.scales.tolist(), model.powers.tolist(), model.weights)
    assert score(model.maps(x).anomaly) == pytest.approx(float(expected), rel=1e-5)


def test_a_network_counts_a_quarter_of_a_bank() -> None:
    model = ensemble(Brightness(1.0), bank(), FilterBank())
    model.fit(Source(), Run())
    assert model.weights == pytest.approx([1 / 9, 4 / 9, 4 / 9], rel=1e-6)


def test_filters_alone_count_in_any_layout() -> None:
    model = ensemble(FilterBank())
    model.fit(Source(is_board=True, is_posed=True), Run())
    assert model.weights == [1.0]


# -- colour --------------------------------------------------------------------------------------------


class InChannels(Source):
    """The images of :class:`Source` in three channels: each as it is, or the last one inverted."""

    def __init__(self, *, is_coloured: bool, is_posed: bool = False) -> None:
        super().__init__(is_board=True, is_posed=is_posed)
        self.parts = {
            part: good._replace(images=[in_channels(x, is_coloured=is_coloured) for x in good.images])
            for part, good in self.parts.items()
        }


def in_channels(x: np.ndarray, *, is_coloured: bool) -> np.ndarray:
    return np.concatenate([x, x, 1 - x if is_coloured else x])


def test_a_bank_of_colour_counts_where_the_images_have_colour() -> None:
    model = ensemble(bank(), ColourMemoryBank())
    record = model.fit(InChannels(is_coloured=True), Run())
    assert model.weights == pytest.approx([0.8, 0.2])
    assert model.sees_areas
    assert any("The images have colour" in note for note in record.notes)
    x = in_channels(images(1, 5, is_board=True)[0], is_coloured=True)
    turned = x.copy()
    turned[:, 16:40, 16:40] = np.roll(x, 1, 0)[:, 16:40, 16:40]
    good, found = (model.models[1].maps(one).anomaly for one in (x, turned))
    assert np.median(found[20:36, 20:36]) > 2 * np.quantile(good, 0.99)


def test_grey_images_in_three_channels_have_the_scores_that_they_have_without_a_bank_of_colour() -> None:
    with_colour, without = ensemble(bank(), ColourMemoryBank()), ensemble(bank())
    record = with_colour.fit(InChannels(is_coloured=False), Run())
    without.fit(InChannels(is_coloured=False), Run())
    assert with_colour.weights == [1.0, 0.0]
    assert with_colour.models[1].is_empty  # type: ignore[attr-defined]
    assert not with_colour.sees_areas
    assert any("colour is not compared" in note for note in record.notes)
    x = in_channels(images(1, 5, is_board=True)[0], is_coloured=False)
    np.testing.assert_array_equal(with_colour.maps(x).anomaly, without.maps(x).anomaly)


@pytest.mark.parametrize("is_posed", [True, False])
def test_a_bank_of_colour_for_objects_in_one_pose_counts_there_alone(is_posed: bool) -> None:
    model = ensemble(bank(), ColourMemoryBank(only_posed=True))
    record = model.fit(InChannels(is_coloured=True, is_posed=is_posed), Run())
    assert (model.weights[1] > 0) == is_posed
    assert any("The images have colour" in note for note in record.notes) == is_posed
    assert not any("colour is not compared" in note for note in record.notes)
