from __future__ import annotations

from pathlib import Path

import pytest

from blemish.data.items import Item
from blemish.errors import CalibrationError
from blemish.recipes import load_recipe, override
from blemish.training import partition
from blemish.training.fit import fit

SMALL = "ssim-ae"


def test_too_few_images_are_refused_before_training(good: Path, tiny: list[str], tmp_path: Path) -> None:
    with pytest.raises(CalibrationError) as error:
        fit(good, SMALL, settings=tiny, false_reject_rate=0.05, out=tmp_path / "model")
    assert error.value.exit_code == 2
    assert not (tmp_path / "model").exists()
    message = str(error.value)
    # With 12 of 24 held out, the smallest p-value is 1/13.
    assert "24 good images can promise a false-reject rate of 7.69 % at best" in message
    assert "needs 19" in message
    assert "at least 38 good images" in message
    assert message.endswith("--false-reject-rate 0.077")


@pytest.mark.parametrize("count", [3, 4, 7, 10, 24])
def test_the_rate_offered_by_the_refusal_is_accepted(good: Path, tmp_path: Path, count: int) -> None:
    usable = {str(index): Item(Path(str(index)), str(index)) for index in range(count)}
    recipe = override(load_recipe("ssim-ae"), ["threshold.false_reject_rate=0.001"])
    with pytest.raises(CalibrationError) as error:
        partition.split_images(usable, recipe)
    offered = str(error.value).rsplit(" ", 1)[1]
    split = partition.split_images(usable, override(recipe, [f"threshold.false_reject_rate={offered}"]))
    assert len(split["calibration"]) == count // 2


def test_equal_images_in_two_parts_go_to_training() -> None:
    split = {"train": ("a",), "validation": ("b",), "calibration": ("c", "d", "e")}
    sha256 = {"a": "1", "b": "2", "c": "1", "d": "2", "e": "3"}
    assert partition.parts_by_sha256(split, sha256, {}) == {
        "1": "train",
        "2": "validation",
        "3": "calibration",
    }
    assert partition.parts_by_sha256(split, sha256, {"3": "train"})["3"] == "train"


def test_images_to_leave_out_are_held_out_in_addition() -> None:
    rule = load_recipe("ssim-ae").threshold
    for trim, share in ((0.0, 0.0), (0.1, 0.1), (0.3, 0.3), (0.49, 0.49), ("auto", 0.25)):
        count = partition.images_to_hold_out(rule.model_copy(update={"trim": trim}))
        assert count - int(share * count + 1e-9) == 19
        assert count - 1 - int(share * (count - 1) + 1e-9) < 19


def test_copies_stay_together() -> None:
    def item(name: str, group: str | None = None) -> Item:
        return Item(Path(name), name, group=group)

    usable = {
        one.name: one
        for one in (item("a"), item("b"), item("c"), item("d", "x"), item("e", "y"), item("f", "y"))
    }
    sha256 = {"a": "1", "b": "2", "c": "1", "d": "3", "e": "3", "f": "4"}
    found, copies = partition.with_copies_in_groups(usable, sha256)
    assert copies == 2
    keys = {name: one.group_key for name, one in found.items()}
    assert keys["a"] == keys["c"] != keys["b"]
    assert keys["d"] == keys["e"] == keys["f"]  # the copies join their groups
    assert partition.with_copies_in_groups({"b": usable["b"]}, sha256) == ({"b": usable["b"]}, 0)
