"""What becomes of a memory: filled, weighed on spoiled held-out images, cleared of what does not belong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from blemish.decision import image_score
from blemish.detectors.ensemble_selection import SHARES, _chosen, _learn, select_ensemble
from blemish.detectors.map_normaliser import FEWEST, MapNormaliser
from blemish.errors import Stopped
from blemish.inspection.detector import Detector, EnsembleCandidate
from blemish.models import build
from blemish.observer import Observer
from blemish.recipes import override

Array = NDArray[np.float32]


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
    spoiled = image.copy()
    spoiled[:, 8:24, 12:28] = spoiled[:, 8:24, 12:28][:, ::-1, ::-1]
    return spoiled


@pytest.fixture
def detector(posed: tuple[Detector, Path]) -> Callable[..., Detector]:
    """``detector(*settings)``: with an empty memory of its own."""
    made = posed[0]  # hardly trained

    def make(*settings: str) -> Detector:
        recipe = override(made.recipe, settings)
        model = build(recipe, 1)
        weights = {k: v for k, v in made.model.state_dict().items() if not k.startswith("memory.")}
        model.load_state_dict(weights, strict=False)
        return Detector(model, made.file.model_copy(update={"recipe": recipe}))

    return make


def filled(detector: Detector) -> Any:
    assert detector.model.memory is not None
    return detector.model.memory


def score(detector: Detector, image: Array) -> float:
    rule = detector.recipe.score
    return image_score(detector.examine(image)[0], kind=rule.name, quantile=rule.quantile, sigma=rule.sigma)


def test_places_count_where_all_images_show_the_same(detector: Callable[..., Detector]) -> None:
    own = detector("memory.share=1.0")
    done = select_ensemble(
        own, [face(seed) for seed in range(12)], [face(seed) for seed in range(20, 24)], Observer()
    )
    by_place, anywhere = (
        next(one for one in done.candidates if one.by_place is way) for way in (True, False)
    )
    assert by_place.pixel_ap > anywhere.pixel_ap


def test_what_is_used_is_one_of_those_tried_and_spoken_of(detector: Callable[..., Detector]) -> None:
    own = detector()
    done = select_ensemble(
        own, [face(seed) for seed in range(12)], [face(seed) for seed in range(20, 24)], Observer()
    )
    assert [one.is_chosen for one in done.candidates].count(True) == 1
    tried = {(one.by_place, one.share) for one in done.candidates}
    assert tried == {(None, 0.0), *((way, share) for way in (True, False) for share in SHARES if share)}
    for one in done.candidates:
        assert 0 <= one.image_auroc <= 1
        assert 0 <= one.pixel_ap <= 1
    assert filled(own).counts > 0  # the network has hardly learned anything
    (used,) = (
        one
        for one in done.candidates
        if one.by_place is filled(own).by_place and f"The map is {100 * one.share:.0f} % memory" in done.words
    )
    assert filled(own).counts == used.share
    assert f"in 4 held-out good images (image AUROC {used.image_auroc:.3f})" in done.words
    assert used.image_auroc > 0.8


def candidate(share: float, image_auroc: float, by_place: bool = True) -> EnsembleCandidate:
    return EnsembleCandidate(
        by_place=by_place if share else None, share=share, image_auroc=image_auroc, pixel_ap=0.5
    )


def test_the_memory_counts_unless_it_is_clearly_worse() -> None:
    network, half, whole = candidate(0, 0.9), candidate(0.5, 0.89), candidate(1, 0.6)
    assert _chosen([network, half, whole], 30, 90) == half
    assert _chosen([network, candidate(0.5, 0.7), whole], 30, 90) == network
    assert _chosen([network, half, candidate(1, 0.899)], 30, 90).share == 1
    anywhere, by_place = candidate(1, 0.89, by_place=False), candidate(1, 0.895)
    assert _chosen([network, anywhere, by_place], 30, 90) == by_place
    # The more images, the less is put down to chance.
    assert _chosen([network, half, whole], 30_000, 90_000) == network


def test_the_memory_may_be_a_little_behind_the_best_but_not_behind_the_network() -> None:
    whole = candidate(1, 0.85)  # the standard error of 0.9 is 0.028 here
    assert _chosen([candidate(0, 0.8), candidate(0.5, 0.9), whole], 30, 90) == whole
    half = candidate(0.5, 0.9)
    assert _chosen([candidate(0, 0.8), half, candidate(1, 0.83)], 30, 90) == half
    assert _chosen([candidate(0, 0.89), half, whole], 30, 90) == half
    assert _chosen([half, whole], 30, 90) == whole  # of a recipe that has no network alone to choose


def test_places_do_not_count_where_none_is_like_itself(detector: Callable[..., Detector]) -> None:
    own = detector("memory.share=1.0")
    done = select_ensemble(
        own, [weave(seed) for seed in range(12)], [weave(seed) for seed in range(20, 24)], Observer()
    )
    by_place, anywhere = (
        next(one for one in done.candidates if one.by_place is way) for way in (True, False)
    )
    assert anywhere.image_auroc > by_place.image_auroc
    assert not filled(own).by_place
    assert "each place with any place" in done.words


def test_the_map_is_made_up_of_both_and_good_ones_lie_below_one(detector: Callable[..., Detector]) -> None:
    own = detector("memory.share=0.25", "memory.by_place=true")
    held_out = [face(seed) for seed in range(20, 40)]
    done = select_ensemble(own, [face(seed) for seed in range(12)], held_out, Observer())
    (candidate,) = done.candidates
    assert (candidate.by_place, candidate.share) == (True, 0.25)
    memory, x = filled(own), face(77)
    network, remembered = memory.units.tolist()
    n = memory.network(torch.from_numpy(own.by_network(x)[0])).numpy() / network
    expected = 0.75 * np.log2(1 + n) + 0.25 * own.by_memory(x) / remembered
    np.testing.assert_allclose(own.examine(x)[0], expected, rtol=1e-5, atol=1e-6)
    assert 0.2 < np.median([score(own, face(seed)) for seed in range(50, 70)]) < 1.2


@pytest.mark.parametrize("count", [5, FEWEST, FEWEST + 1])
def test_the_network_is_read_alike_with_one_image_left_out(count: int) -> None:
    maps = [face(seed)[0] for seed in range(count)]
    others = [torch.from_numpy(one) for number, one in enumerate(maps) if number != 3]
    expected, found, whole = MapNormaliser(), MapNormaliser(), MapNormaliser()
    expected.learn(others, by_place=count > FEWEST, coarser=4)
    _learn(found, maps, range(count), by_place=True, without=3)
    _learn(whole, maps, range(count), by_place=True)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.spread, expected.spread)
    assert found.mean.shape == whole.mean.shape  # or the trial would measure in other units
    assert not torch.equal(found.mean, whole.mean)


@pytest.mark.parametrize("count", [5, FEWEST + 1, FEWEST + 2])
def test_the_network_is_read_alike_with_a_group_left_out(count: int) -> None:
    maps, groups = [face(seed)[0] for seed in range(count)], [number // 2 for number in range(count)]
    others = [torch.from_numpy(one) for number, one in enumerate(maps) if number not in (2, 3)]
    expected, found, whole = MapNormaliser(), MapNormaliser(), MapNormaliser()
    expected.learn(others, by_place=count > FEWEST + 1, coarser=4)
    _learn(found, maps, groups, by_place=True, without=3)
    _learn(whole, maps, groups, by_place=True)
    assert torch.equal(found.mean, expected.mean)
    assert found.mean.shape == whole.mean.shape
    # Where all are of one group, each is by itself.
    alone, together = MapNormaliser(), MapNormaliser()
    _learn(alone, maps, range(count), by_place=True, without=3)
    _learn(together, maps, [0] * count, by_place=True, without=3)
    assert torch.equal(alone.mean, together.mean)


def test_what_is_usual_is_told_between_groups(detector: Callable[..., Detector]) -> None:
    good = [one + seed * 1e-4 for one in (weave(7), weave(8), weave(9)) for seed in range(2)]
    of = [number // 2 for number in range(6)]
    each, between = detector("memory.share=1.0"), detector("memory.share=1.0")
    select_ensemble(each, good, [weave(20), weave(21)], Observer())
    select_ensemble(between, good, [weave(20), weave(21)], Observer(), (of, [3, 3]))
    assert filled(each).usual.mean.mean() < 0.5 * filled(between).usual.mean.mean()


def test_what_the_network_usually_shows_is_known_by_place(detector: Callable[..., Detector]) -> None:
    held_out = [face(seed) for seed in range(20, 40)]
    good = [face(seed) for seed in range(12)]
    by_place, anywhere = detector("memory.by_place=true"), detector("memory.by_place=false")
    for own in (by_place, anywhere):
        select_ensemble(own, good, held_out, Observer())
        shown = torch.stack([torch.from_numpy(own.by_network(one)[0]) for one in held_out])
        torch.testing.assert_close(filled(own).network.mean.mean(), shown.mean(), rtol=0.02, atol=1e-6)
    assert filled(by_place).network.mean.shape == (10, 12)
    assert filled(anywhere).network.mean.shape == (1, 1)


@pytest.mark.parametrize("count", [1, 2, 16, 17])
def test_good_images_lie_below_one_by_the_network_however_few_were_held_out(
    detector: Callable[..., Detector], count: int
) -> None:
    own = detector("memory.share=0.0")
    held_out = [face(seed) for seed in range(20, 20 + count)]
    select_ensemble(own, [face(seed) for seed in range(12)], held_out, Observer())
    assert 0.3 < np.median([score(own, one) for one in held_out]) < 1.1


def test_what_it_was_weighed_on_is_remembered_too(detector: Callable[..., Detector]) -> None:
    own = detector("memory.share=0.5", "memory.by_place=true")
    held_out = [face(seed) for seed in range(20, 24)]
    select_ensemble(own, [face(seed) for seed in range(12)], held_out, Observer())
    assert filled(own).bank.shape[2] == 16
    for one in held_out:
        assert filled(own).distances(torch.from_numpy(one)[None]).max() < 0.02


@pytest.mark.parametrize("ways", ["memory.by_place=true", "memory.by_place=false", "memory.by_place=null"])
def test_a_memory_that_does_not_count_is_emptied(detector: Callable[..., Detector], ways: str) -> None:
    own = detector("memory.share=0.0", ways)
    done = select_ensemble(own, [face(seed) for seed in range(6)], [face(20)], Observer())
    (candidate,) = done.candidates
    assert (candidate.by_place, candidate.share) == (None, 0.0)
    assert filled(own).is_empty
    assert done.words.startswith("The network alone decides; ")
    assert filled(own).counts == 0
    shown, raw = own.examine(face(5))[0], own.by_network(face(5))[0]
    assert np.array_equal(np.argmax(shown), np.argmax(raw))
    assert 0 <= shown.min() < shown.max()
    assert "remembered" not in own.measure_name


@pytest.mark.parametrize("by_place", [False, True])
def test_planted_blemished_images_are_forgotten(detector: Callable[..., Detector], by_place: bool) -> None:
    settings = ("memory.share=1.0", f"memory.by_place={str(by_place).lower()}", "memory.capacity=30000")
    own = detector(*settings, "training.trim=0.1")
    images = [face(seed) for seed in range(20)]
    for number in (3, 11):
        images[number] = spotted(images[number])
    done = select_ensemble(own, images, [face(30), face(31)], Observer())
    assert done.left_out == (3, 11)
    for number in (3, 11):
        assert filled(own).distances(torch.from_numpy(images[number])[None]).max() > 0.06
    assert filled(own).distances(torch.from_numpy(images[4])[None]).max() < 0.02
    kept = detector(*settings)
    assert select_ensemble(kept, images, [face(30), face(31)], Observer()).left_out == ()
    assert filled(kept).distances(torch.from_numpy(images[3])[None]).max() < 0.02


def test_the_same_images_and_seed_give_the_same_memory(detector: Callable[..., Detector]) -> None:
    images, held_out = [weave(seed) for seed in range(6)], [weave(20)]
    one, other = detector("memory.capacity=100"), detector("memory.capacity=100")
    assert select_ensemble(one, images, held_out, Observer()) == select_ensemble(
        other, images, held_out, Observer()
    )
    for name, value in filled(one).state_dict().items():
        assert torch.equal(value, filled(other).state_dict()[name]), name


def test_images_on_which_no_blemish_can_be_seen_leave_the_network_alone(
    detector: Callable[..., Detector],
) -> None:
    own = detector()
    flat = np.full((1, 40, 48), 0.5, np.float32)
    done = select_ensemble(own, [flat] * 4, [flat], Observer())
    assert done.candidates == ()
    assert "network alone decides" in done.words
    assert filled(own).is_empty
    assert filled(own).counts == 0


@pytest.mark.parametrize("after", [0, 3, 10, 20])
def test_it_can_be_stopped(detector: Callable[..., Detector], recorder: type, after: int) -> None:
    own = detector("training.trim=0.1", "memory.share=1.0", "memory.by_place=true")
    with pytest.raises(Stopped, match="while weighing the memory; the trained network is in the checkpoint"):
        select_ensemble(own, [face(seed) for seed in range(20)], [face(30), face(31)], recorder(after))


def test_images_are_read_when_they_are_asked_for(detector: Callable[..., Detector]) -> None:
    """As many as memory cannot hold may be remembered."""

    class FromDisk:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int, /) -> Array:
            read.append(index)
            return face(index)

    read: list[int] = []
    lazy, eager = detector("memory.by_place=true"), detector("memory.by_place=true")
    done = select_ensemble(lazy, FromDisk(), [face(20)], Observer())
    assert set(read) == set(range(10))
    assert done == select_ensemble(eager, [face(seed) for seed in range(10)], [face(20)], Observer())
    assert torch.equal(filled(lazy).bank, filled(eager).bank)
