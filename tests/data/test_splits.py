from __future__ import annotations

from itertools import pairwise

import pytest

from blemish.data.splits import plan_split, split_good
from blemish.errors import UsageError

NAMES = [f"{number}.png" for number in range(50)]


def test_parts_are_disjoint_complete_and_of_the_asked_size() -> None:
    split = split_good(NAMES, seed=0, calibration=12, validation=5)
    assert (len(split.train), len(split.validation), len(split.calibration)) == (33, 5, 12)
    assert sorted(split.train + split.validation + split.calibration) == sorted(NAMES)


def test_the_seed_alone_decides() -> None:
    split = split_good(NAMES, seed=3, calibration=12, validation=5)
    assert split_good(NAMES[::-1], seed=3, calibration=12, validation=5) == split
    assert split_good(NAMES, seed=4, calibration=12, validation=5) != split


def test_every_image_can_fall_into_every_part() -> None:
    splits = [split_good(NAMES, seed=seed, calibration=12, validation=10) for seed in range(60)]
    for part in ("train", "validation", "calibration"):
        assert set().union(*(getattr(split, part) for split in splits)) == set(NAMES)


@pytest.mark.parametrize(("calibration", "validation"), [(40, 10), (60, 0), (-1, 5), (5, -1)])
def test_counts_that_leave_nothing_are_refused(calibration: int, validation: int) -> None:
    with pytest.raises(UsageError, match="50 good images"):
        split_good(NAMES, seed=0, calibration=calibration, validation=validation)


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        split_good([*NAMES, "7.png"], seed=0, calibration=5, validation=5)


def test_a_group_goes_into_one_part_as_a_whole() -> None:
    shared = {name: f"part {int(name[:-4]) // 4}" for name in NAMES[:40]}
    groups = {name: shared.get(name, name) for name in NAMES}  # ten groups of four, and ten by themselves
    for seed in range(20):
        split = split_good(NAMES, seed=seed, calibration=12, validation=5, groups=groups)
        assert sorted(split.train + split.validation + split.calibration) == sorted(NAMES)
        assert 12 <= len(split.calibration) < 16
        assert 5 <= len(split.validation) < 9
        parts = [{groups[name] for name in part} for part in vars(split).values()]
        assert sum(len(some) for some in parts) == len(set.union(*parts)) == 20


def test_groups_of_one_change_nothing() -> None:
    alone = {name: f"part {name}" for name in NAMES}
    split = split_good(NAMES, seed=3, calibration=12, validation=5, groups=alone)
    assert split == split_good(NAMES, seed=3, calibration=12, validation=5)


def test_too_few_groups_are_refused() -> None:
    groups = {name: str(int(name[:-4]) // 25) for name in NAMES}
    with pytest.raises(UsageError, match="2 groups of 50 good images cannot give 12 images to calibrate"):
        split_good(NAMES, seed=0, calibration=12, validation=5, groups=groups)


@pytest.mark.parametrize("n", [3, 4, 5, 9, 10, 37, 38, 39, 95, 100, 1000])
@pytest.mark.parametrize("needed", [1, 9, 19, 99])
def test_every_part_gets_something_and_nothing_is_lost(n: int, needed: int) -> None:
    counts = plan_split(n, needed=needed)
    assert sum(counts) == n
    assert min(counts) >= 1
    assert counts.calibration <= max(n / 2, 1)


def test_enough_to_carry_the_promise_where_half_is_enough() -> None:
    assert plan_split(37, needed=19).calibration == 7  # 19 would be more than half
    assert plan_split(38, needed=19).calibration == 19
    assert plan_split(94, needed=19).calibration == 19
    assert plan_split(200, needed=19).calibration == 40
    assert plan_split(198, needed=99).calibration == 99
    assert plan_split(22, needed=9).calibration == 9


def test_more_images_never_train_fewer_at_a_fixed_calibration() -> None:
    trains = [plan_split(n, needed=19).train for n in range(38, 95)]
    assert all(later >= earlier for earlier, later in pairwise(trains))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_images(n: int) -> None:
    with pytest.raises(UsageError, match=f"not {n}; add more"):
        plan_split(n, needed=19)
