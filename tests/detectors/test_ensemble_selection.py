"""Selection of an ensemble: banks filled, weighted on synthetic anomalies, and cleared of outlying images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from blemish.detectors.contracts import AnomalyMaps, EnsembleCandidate, FitRecord, GoodImages
from blemish.detectors.ensemble import Ensemble, for_inspection
from blemish.detectors.ensemble_selection import (
    SyntheticAnomalySelection,
    _chosen,
    _fit_normaliser,
    select_ensemble,
)
from blemish.detectors.factory import build_model, networks
from blemish.detectors.map_normaliser import FEWEST, MapNormaliser
from blemish.detectors.memory_bank import StructureMemoryBank
from blemish.detectors.patch_bank import PatchBank
from blemish.errors import Stopped
from blemish.models.synthetic_anomalies import SyntheticAnomalies
from blemish.observer import Observer
from blemish.recipes import load_recipe, override

Array = NDArray[np.float32]
SETTINGS = (
    "combination=weighted-mean",
    "filters=false",
    "score.name=smoothed-max",
    "image.size=null",
    "patch.size=32",
    "patch.stride=32",
    "encoder.widths=[4, 8, 8]",
    "memory.patch=8",
    "memory.dimensions=16",
    "memory.capacity=2000",
)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def face(seed: int) -> Array:
    """The same dial (1, 40, 48) each time, in other light and with some noise: every place has its own mark."""
    rng = np.random.default_rng(seed)
    marks = np.kron(np.random.default_rng(99).random((10, 12)), np.ones((4, 4)))
    light = rng.uniform(0.5, 0.8) * marks + rng.uniform(0.05, 0.15)
    return (light + rng.normal(0, 0.01, marks.shape))[None].astype(np.float32)


def weave(seed: int) -> Array:
    """Waves (1, 40, 48) that begin anywhere: no place is like the same place of another image."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :48]
    waves = np.sin(2 * np.pi * (x / 8 + rng.random())) * np.sin(2 * np.pi * (y / 8 + rng.random()))
    return (0.5 + 0.3 * waves + rng.normal(0, 0.01, (40, 48)))[None].astype(np.float32)


def spotted(image: Array) -> Array:
    """Four marks of it in each other's place, as no other has them."""
    altered = image.copy()
    altered[:, 8:24, 12:28] = altered[:, 8:24, 12:28][:, ::-1, ::-1]
    return altered


class Chosen(NamedTuple):
    """An ensemble, and how its selection went."""

    ensemble: Ensemble
    record: FitRecord

    @property
    def bank(self) -> PatchBank:
        """Of structure."""
        (memory,) = self.ensemble.banks.values()
        return cast(PatchBank, memory.banks[0])

    def network(self, x: Array) -> Array:
        return self.ensemble.models[0].maps(x).anomaly

    def score(self, x: Array) -> float:
        return selection(self.ensemble).score(self.ensemble.maps(x).anomaly)


def selection(ensemble: Ensemble) -> SyntheticAnomalySelection:
    assert isinstance(ensemble.selection, SyntheticAnomalySelection)
    return ensemble.selection


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Of a network that hardly trained."""
    torch.manual_seed(0)
    return networks(build_model(override(load_recipe("blemish"), SETTINGS), 1))[""].state_dict()


@pytest.fixture
def choose(weights: dict[str, torch.Tensor]) -> Callable[..., Chosen]:
    """``choose(good, held_out, *settings)``: the ensemble of the default recipe, selected on images."""

    def run(
        good: Any,
        held_out: list[Array],
        *settings: str,
        observer: Observer | None = None,
        groups: tuple[list[int], list[int]] | None = None,
    ) -> Chosen:
        recipe = override(load_recipe("blemish"), [*SETTINGS, *settings])
        ensemble = build_model(recipe, 1)
        assert isinstance(ensemble, Ensemble)
        networks(ensemble)[""].load_state_dict(weights)
        own = selection(ensemble)
        of = groups or (list(range(len(good))), list(range(len(good), len(good) + len(held_out))))
        record = select_ensemble(
            for_inspection(ensemble),
            GoodImages(good, of[0]),
            GoodImages(held_out, of[1]),
            own.anomalies,
            own.score,
            trim=own.trim,
            observer=observer,
        )
        return Chosen(ensemble, record)

    return run


def faces(*seeds: int) -> list[Array]:
    return [face(seed) for seed in range(*seeds)]


def test_places_count_where_all_images_show_the_same(choose: Callable[..., Chosen]) -> None:
    record = choose(faces(12), faces(20, 24), "memory.share=1.0").record
    by_place, anywhere = (
        next(one for one in record.candidates if one.by_place is mode) for mode in (True, False)
    )
    assert by_place.pixel_ap > anywhere.pixel_ap


def test_the_ensemble_is_one_of_the_candidates_and_the_note_says_so(choose: Callable[..., Chosen]) -> None:
    own = choose(faces(12), faces(20, 24))
    candidates, (note,) = own.record.candidates, own.record.notes
    assert [one.is_chosen for one in candidates].count(True) == 1
    tried = {(one.by_place, one.share) for one in candidates}
    assert tried == {(None, 0.0), *((mode, share) for mode in (True, False) for share in SHARES if share)}
    for one in candidates:
        assert 0 <= one.image_auroc <= 1
        assert 0 <= one.pixel_ap <= 1
    network, bank = own.ensemble.weights
    assert bank > 0  # the network has hardly learned anything
    assert network + bank == 1
    (used,) = (
        one
        for one in candidates
        if one.by_place is own.bank.by_place and f"The map is {100 * one.share:.0f} % memory bank" in note
    )
    assert used.is_chosen
    assert bank == used.share
    assert f"in 4 held-out good images (image AUROC {used.image_auroc:.3f})" in note
    assert used.image_auroc > 0.8


def candidate(share: float, image_auroc: float, by_place: bool = True) -> EnsembleCandidate:
    return EnsembleCandidate(
        by_place=by_place if share else None, share=share, image_auroc=image_auroc, pixel_ap=0.5
    )


def test_the_memory_bank_counts_unless_it_is_clearly_worse() -> None:
    network, half, whole = candidate(0, 0.9), candidate(0.5, 0.89), candidate(1, 0.6)
    assert _chosen([network, half, whole], 30, 90) == half
    assert _chosen([network, candidate(0.5, 0.7), whole], 30, 90) == network
    assert _chosen([network, half, candidate(1, 0.899)], 30, 90).share == 1
    anywhere, by_place = candidate(1, 0.89, by_place=False), candidate(1, 0.895)
    assert _chosen([network, anywhere, by_place], 30, 90) == by_place
    # The more images, the less is put down to chance.
    assert _chosen([network, half, whole], 30_000, 90_000) == network


def test_the_memory_bank_may_be_a_little_behind_the_best_but_not_behind_the_network() -> None:
    whole = candidate(1, 0.85)  # the standard error of 0.9 is 0.028 here
    assert _chosen([candidate(0, 0.8), candidate(0.5, 0.9), whole], 30, 90) == whole
    half = candidate(0.5, 0.9)
    assert _chosen([candidate(0, 0.8), half, candidate(1, 0.83)], 30, 90) == half
    assert _chosen([candidate(0, 0.89), half, whole], 30, 90) == half
    assert _chosen([half, whole], 30, 90) == whole  # of a recipe that has no network alone to choose


def test_of_equal_banks_the_more_even_weights_count() -> None:
    def of(*weights: float, auroc: float) -> EnsembleCandidate:
        return EnsembleCandidate(by_place=None, share=0.0, image_auroc=auroc, pixel_ap=0.5, weights=weights)

    even, one_sided = of(0.5, 0.25, 0.25, auroc=0.9), of(1, 0, 0, auroc=0.91)
    assert _chosen([one_sided, even], 30, 90) == even
    assert _chosen([one_sided, of(0.5, 0.25, 0.25, auroc=0.6)], 30, 90) == one_sided


def test_places_do_not_count_where_none_is_like_itself(choose: Callable[..., Chosen]) -> None:
    own = choose(
        [weave(seed) for seed in range(12)], [weave(seed) for seed in range(20, 32)], "memory.share=1.0"
    )
    by_place, anywhere = (
        next(one for one in own.record.candidates if one.by_place is mode) for mode in (True, False)
    )
    assert anywhere.image_auroc > by_place.image_auroc
    assert not own.bank.by_place
    assert "each place with any place" in own.record.notes[0]


def test_the_map_is_made_up_of_both_and_good_ones_lie_below_one(choose: Callable[..., Chosen]) -> None:
    own = choose(faces(12), faces(20, 40), "memory.share=0.25", "memory.by_place=true")
    (candidate,) = own.record.candidates
    assert (candidate.by_place, candidate.share) == (True, 0.25)
    network, bank = own.ensemble.scales.tolist()
    x = face(77)
    n = own.ensemble.normalised(0, own.network(x)) / network
    expected = 0.75 * np.log2(1 + n) + 0.25 * own.ensemble.models[1].maps(x).anomaly / bank
    np.testing.assert_allclose(own.ensemble.maps(x).anomaly, expected, rtol=1e-5, atol=1e-6)
    assert 0.2 < np.median([own.score(face(seed)) for seed in range(50, 70)]) < 1.2


@pytest.mark.parametrize("count", [5, FEWEST, FEWEST + 1])
def test_a_network_is_normalised_in_the_same_manner_without_one_image(count: int) -> None:
    maps = [face(seed)[0] for seed in range(count)]
    others = [torch.from_numpy(one) for number, one in enumerate(maps) if number != 3]
    expected, found, whole = MapNormaliser(), MapNormaliser(), MapNormaliser()
    expected.fit(others, by_place=count > FEWEST, coarser=4)
    _fit_normaliser(found, maps, range(count), by_place=True, without=3)
    _fit_normaliser(whole, maps, range(count), by_place=True)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.spread, expected.spread)
    assert found.mean.shape == whole.mean.shape  # or the trial would measure in other units
    assert not torch.equal(found.mean, whole.mean)


@pytest.mark.parametrize("count", [5, FEWEST + 1, FEWEST + 2])
def test_a_network_is_normalised_in_the_same_manner_without_a_group(count: int) -> None:
    maps, groups = [face(seed)[0] for seed in range(count)], [number // 2 for number in range(count)]
    others = [torch.from_numpy(one) for number, one in enumerate(maps) if number not in (2, 3)]
    expected, found, whole = MapNormaliser(), MapNormaliser(), MapNormaliser()
    expected.fit(others, by_place=count > FEWEST + 1, coarser=4)
    _fit_normaliser(found, maps, groups, by_place=True, without=3)
    _fit_normaliser(whole, maps, groups, by_place=True)
    assert torch.equal(found.mean, expected.mean)
    assert found.mean.shape == whole.mean.shape
    # Where all are of one group, each is by itself.
    alone, together = MapNormaliser(), MapNormaliser()
    _fit_normaliser(alone, maps, range(count), by_place=True, without=3)
    _fit_normaliser(together, maps, [0] * count, by_place=True, without=3)
    assert torch.equal(alone.mean, together.mean)


def test_the_spread_of_good_images_is_measured_between_groups(choose: Callable[..., Chosen]) -> None:
    good = [one + seed * 1e-4 for one in (weave(7), weave(8), weave(9)) for seed in range(2)]
    of = [number // 2 for number in range(6)]
    each = choose(good, [weave(20), weave(21)], "memory.share=1.0")
    between = choose(good, [weave(20), weave(21)], "memory.share=1.0", groups=(of, [3, 3]))
    assert each.bank.normaliser.mean.mean() < 0.5 * between.bank.normaliser.mean.mean()


def test_the_network_is_normalised_by_place_where_places_matter(choose: Callable[..., Chosen]) -> None:
    held_out = faces(20, 40)
    for mode, shape in (("true", (10, 12)), ("false", (1, 1))):
        own = choose(faces(12), held_out, f"memory.by_place={mode}")
        normaliser = own.ensemble.normalisers["0"]
        assert isinstance(normaliser, MapNormaliser)
        shown = torch.stack([torch.from_numpy(own.network(one)) for one in held_out])
        torch.testing.assert_close(normaliser.mean.mean(), shown.mean(), rtol=0.02, atol=1e-6)
        assert normaliser.mean.shape == shape


@pytest.mark.parametrize("count", [1, 2, 16, 17])
def test_good_images_lie_below_one_by_the_network_however_few_were_held_out(
    choose: Callable[..., Chosen], count: int
) -> None:
    held_out = faces(20, 20 + count)
    own = choose(faces(12), held_out, "memory.share=0.0")
    assert 0.3 < np.median([own.score(one) for one in held_out]) < 1.1


def test_the_bank_holds_the_images_of_the_selection_too(choose: Callable[..., Chosen]) -> None:
    held_out = faces(20, 24)
    own = choose(faces(12), held_out, "memory.share=0.5", "memory.by_place=true")
    assert own.bank.bank.shape[2] == 16
    for one in held_out:
        assert own.bank.distances(torch.from_numpy(one)[None]).max() < 0.02


@pytest.mark.parametrize("modes", ["memory.by_place=true", "memory.by_place=false", "memory.by_place=null"])
def test_a_bank_that_does_not_count_is_emptied(choose: Callable[..., Chosen], modes: str) -> None:
    own = choose(faces(6), [face(20)], "memory.share=0.0", modes)
    (candidate,) = own.record.candidates
    assert (candidate.by_place, candidate.share) == (None, 0.0)
    assert own.bank.is_empty
    assert own.record.notes[0].startswith("The network alone decides; ")
    assert own.ensemble.weights == [1, 0]
    shown, raw = own.ensemble.maps(face(5)).anomaly, own.network(face(5))
    assert np.array_equal(np.argmax(shown), np.argmax(raw))
    assert 0 <= shown.min() < shown.max()
    assert own.ensemble.title == own.ensemble.models[0].title


@pytest.mark.parametrize("by_place", [False, True])
def test_planted_defective_images_are_left_out(choose: Callable[..., Chosen], by_place: bool) -> None:
    settings = ("memory.share=1.0", f"memory.by_place={str(by_place).lower()}", "memory.capacity=30000")
    images = faces(20)
    for number in (3, 11):
        images[number] = spotted(images[number])
    own = choose(images, faces(30, 32), *settings, "training.trim=0.1")
    assert own.record.left_out == (3, 11)
    for number in (3, 11):
        assert own.bank.distances(torch.from_numpy(images[number])[None]).max() > 0.06
    assert own.bank.distances(torch.from_numpy(images[4])[None]).max() < 0.02
    kept = choose(images, faces(30, 32), *settings)
    assert kept.record.left_out == ()
    assert kept.bank.distances(torch.from_numpy(images[3])[None]).max() < 0.02


def test_the_same_images_and_seed_give_the_same_ensemble(choose: Callable[..., Chosen]) -> None:
    images, held_out = [weave(seed) for seed in range(6)], [weave(20)]
    one, other = (choose(images, held_out, "memory.capacity=100") for _ in range(2))
    assert one.record == other.record
    for name, value in one.ensemble.state_dict().items():
        assert torch.equal(value, other.ensemble.state_dict()[name]), name


def test_images_on_which_no_anomaly_can_be_seen_leave_the_network_alone(
    choose: Callable[..., Chosen],
) -> None:
    flat = np.full((1, 40, 48), 0.5, np.float32)
    own = choose([flat] * 4, [flat])
    assert own.record.candidates == ()
    assert "network alone decides" in own.record.notes[0]
    assert own.bank.is_empty
    assert own.ensemble.weights == [1, 0]


@pytest.mark.parametrize("after", [0, 3, 10, 20])
def test_it_can_be_stopped(choose: Callable[..., Chosen], recorder: type, after: int) -> None:
    settings = ("training.trim=0.1", "memory.share=1.0", "memory.by_place=true")
    with pytest.raises(
        Stopped, match="while weighting the memory bank; the trained network is in the checkpoint"
    ):
        choose(faces(20), faces(30, 32), *settings, observer=recorder(after))


def test_images_are_read_when_they_are_asked_for(choose: Callable[..., Chosen]) -> None:
    """As many as memory cannot hold may fill a bank."""

    class FromDisk:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int, /) -> Array:
            read.append(index)
            return face(index)

    read: list[int] = []
    lazy = choose(FromDisk(), [face(20)], "memory.by_place=true")
    assert set(read) == set(range(10))
    eager = choose(faces(10), [face(20)], "memory.by_place=true")
    assert lazy.record == eager.record
    assert torch.equal(lazy.bank.bank, eager.bank.bank)


# -- other numbers of members --------------------------------------------------------------------------


class Brightness:
    """An anomaly model without torch: the excess over a level."""

    title, takes_absent = "brightness", False

    def __init__(self, level: float) -> None:
        self.level = level

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        return rows, columns

    def maps(self, x: Array, *, hidden: Any = ()) -> AnomalyMaps:
        return AnomalyMaps(np.maximum(x[0] - self.level, 0), x)


def selected(members: list[Any], held_out: list[Array]) -> Chosen:
    ensemble = Ensemble(members, names=[f"m{number}" for number in range(len(members))])
    return Chosen(
        ensemble,
        select_ensemble(
            ensemble,
            GoodImages(faces(8), range(8)),
            GoodImages(held_out, range(8, 8 + len(held_out))),
            SyntheticAnomalies(),
            lambda shown: float(shown.max()),
        ),
    )


def memory(**settings: Any) -> StructureMemoryBank:
    return StructureMemoryBank(patch=8, capacity=1000, contrast=False, **settings)


@pytest.mark.parametrize(("count", "tried"), [(2, 5), (3, 15), (4, 35), (5, 1)])
def test_weights_are_quarters_of_up_to_four_members_and_equal_of_more(count: int, tried: int) -> None:
    own = selected([Brightness(0.1 * number) for number in range(count)], faces(20, 26))
    assert len(own.record.candidates) == tried
    for one in own.record.candidates:
        assert one.weights is not None
        assert len(one.weights) == count
        assert sum(one.weights) == pytest.approx(1)
        assert min(one.weights) >= 0
    assert len({one.weights for one in own.record.candidates}) == tried
    (best,) = (one for one in own.record.candidates if one.is_chosen)
    np.testing.assert_allclose(own.ensemble.weights, best.weights, atol=1e-6)


def test_a_bank_alone_is_scaled_and_its_placement_chosen() -> None:
    own = selected([memory()], faces(20, 36))
    assert [(one.by_place, one.share) for one in own.record.candidates] == [(False, 1.0), (True, 1.0)]
    assert own.ensemble.weights == [1]
    scores = [own.ensemble.maps(face(seed)).anomaly.max() for seed in range(50, 70)]
    assert 0.2 < np.median(scores) < 1.2
    assert own.ensemble.maps(face(3)).reconstruction is None


def test_two_banks_and_a_model_are_weighted_together() -> None:
    own = selected([Brightness(0.0), memory(by_place=True), memory(by_place=False)], faces(20, 24))
    first, second = own.ensemble.banks.values()
    used = [weight > 0 for weight in own.ensemble.weights[1:]]
    assert [not first.is_empty, not second.is_empty] == used
    assert any(used)
    if not first.is_empty:
        assert first.by_place
    assert not second.by_place
    assert "The map is " in own.record.notes[0]


def test_members_count_equally_where_no_anomaly_can_be_seen() -> None:
    flat = np.full((1, 40, 48), 0.5, np.float32)
    own = selected([Brightness(0.0), Brightness(0.1), memory()], [flat, flat])
    assert own.record.candidates == ()
    assert "All models count equally" in own.record.notes[0]
    np.testing.assert_allclose(own.ensemble.weights, 1 / 3, atol=1e-6)
    assert own.ensemble.maps(face(1)).anomaly.shape == (40, 48)
