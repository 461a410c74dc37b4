"""What studies share: names of results, fits that are kept, tables and images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.data.layouts import read_labelled
from blemish.errors import FileError, RecipeError, UsageError
from blemish.evaluation.compare import Comparison
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from blemish.storage.leftovers import machine
from blemish.storage.training_record import Machine, TrainingLook
from studies import protocol, run_study
from studies.protocol import Allowance, Example, PublishedTraining, Request, Shown

RATE = "threshold.false_reject_rate=0.2"


@pytest.fixture(scope="module")
def compared(
    dataset: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, Path]:
    work = tmp_path_factory.mktemp("study") / "work"
    recipes = {"l2-ae": ["training.learning_rate=0.01"], "ssim-ae": []}
    return protocol.comparison(work, dataset, recipes, (0, 1), [*tiny, RATE], Observer()), work


def test_results_are_named_after_what_was_asked(tmp_path: Path) -> None:
    plain = Request("kumar2025", tmp_path)
    assert (plain.stem, plain.command) == ("kumar2025", "blemish study kumar2025")
    full = Request(
        "kumar2025",
        tmp_path,
        tmp_path / "mvtec screw",
        True,
        (0, 2),
        ("training.steps=5", "loss=[{name: mse}]"),
    )
    assert full.stem == "kumar2025-mvtec screw-quick"
    assert full.command == (
        "blemish study kumar2025 --data 'mvtec screw' --quick --seeds 0,2 "
        "--set training.steps=5 --set 'loss=[{name: mse}]'"
    )
    assert full.file("-curves.png") == tmp_path / "kumar2025-mvtec screw-quick-curves.png"
    assert full.work == tmp_path / "kumar2025-mvtec screw-quick-work"


def test_images_of_a_data_set_stay_in_the_work_folder(tmp_path: Path) -> None:
    generated = Request("kumar2025", tmp_path)
    assert generated.image(".png") == generated.file(".png")
    of_a_data_set = Request("kumar2025", tmp_path, tmp_path / "screw")
    assert of_a_data_set.image(".png") == of_a_data_set.work / "kumar2025-screw.png"


def test_the_length_is_what_was_asked_and_what_the_machine_can_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for device, expected in (("cpu", "without"), ("cuda", "with")):
        monkeypatch.setattr(
            protocol,
            "choose_machine",
            lambda device=device: Machine(
                device=device, processor="test", precision="float32", native_bfloat16=False, torch="test"
            ),
        )
        assert Request("kumar2025", tmp_path).length("quick", "with", "without") == expected
        assert Request("kumar2025", tmp_path, quick=True).length("quick", "with", "without") == "quick"


def test_recipes_may_have_settings_of_their_own_below_the_common_ones(
    compared: tuple[Comparison, Path],
) -> None:
    comparison, _ = compared
    rates = {run.recipe: run.evaluation.settings.training.learning_rate for run in comparison.runs}
    assert rates == {"l2-ae": 0.01, "ssim-ae": 2e-4}
    assert {run.evaluation.settings.training.steps for run in comparison.runs} == {6}


def test_figures_alone_are_kept_and_used_again(
    compared: tuple[Comparison, Path],
    dataset: Path,
    tiny: list[str],
    recorder: Callable[..., Any],
) -> None:
    comparison, work = compared
    assert [path.name for path in (work / "l2-ae-0" / "found").iterdir()] == ["evaluation.json"]
    recipes = {"l2-ae": ["training.learning_rate=0.01"], "ssim-ae": []}
    recorded = recorder()
    again = protocol.comparison(work, dataset, recipes, (0, 1), [*tiny, RATE], recorded)
    assert again == comparison
    assert recorded.stages == []
    with pytest.raises(UsageError, match=r"training\.learning_rate 0\.01, not 0\.0002"):
        protocol.comparison(work, dataset, ["l2-ae"], (0, 1), [*tiny, RATE], recorded)


def test_a_record_holds_the_figures_of_its_run(compared: tuple[Comparison, Path]) -> None:
    for run in compared[0].runs:
        record = json.loads(json.dumps(protocol.record(run)))
        assert record["image"]["all"]["figures"]["auroc"] == run.evaluation.image["all"].figures[
            "auroc"
        ].model_dump(mode="json")
        assert record["pixel"]["intervals"]["auroc"] == list(run.evaluation.pixel.intervals["auroc"])
        assert (record["seed"], record["steps"]) == (run.seed, 6)


def test_only_what_saves_doing_a_run_again_is_kept(compared: tuple[Comparison, Path]) -> None:
    """Pages are the study's own: several comparisons may share one folder."""
    _, work = compared
    assert {path.name for path in work.iterdir()} == {
        f"{recipe}-{seed}" for recipe in ("l2-ae", "ssim-ae") for seed in (0, 1)
    }
    assert [path.name for path in (work / "l2-ae-0" / "found").iterdir()] == ["evaluation.json"]


PAPER = PublishedTraining(side=128, learning_rate=2e-4, steps=62_500, words="much longer")
ONE = load_recipe("stn-ae-frozen")
OTHER = override(load_recipe("l2-ae"), ["training.steps=62500"])


def test_trainings_are_described_by_their_settings() -> None:
    assert protocol.training_in_words([OTHER]) == (
        "Patches of 128 × 128 pixels, at most 62500 steps of batch 32, Adam with a learning rate of 0.0002, constant."
    )
    changed = override(
        ONE,
        ["image.size=256", "training.learning_rate=1e-3", "training.schedule=cosine", "training.steps=400"],
    )
    assert protocol.training_in_words([changed, OTHER]) == (
        "Patches of 128 × 128 pixels of images resized to 256, at most 400 to 62500 steps of batch 32, "
        "transformers after 1000 of their own, Adam with a learning rate of 0.0002 to 0.001, constant or falling to 0."
    )


@pytest.mark.parametrize(
    ("device", "quick", "reason"),
    [
        ("cpu", False, "because there is no GPU here"),
        ("cpu", True, "as --quick asks"),
        ("cuda", True, "as --quick asks"),
        ("cuda", False, "as --set asks"),
    ],
)
def test_differences_from_the_papers_training_are_reported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, device: str, quick: bool, reason: str
) -> None:
    monkeypatch.setattr(
        protocol,
        "choose_machine",
        lambda: Machine(
            device=device, processor="test", precision="float32", native_bfloat16=False, torch="test"
        ),
    )
    request = Request("radli2022", Path("out"), quick=quick)
    changes = [
        "patch.size=64",
        "training.learning_rate=1e-3",
        "training.schedule=cosine",
        "training.steps=400",
    ]
    text = protocol.beside_paper(request, [override(ONE, changes), OTHER], PAPER)
    assert "The paper: much longer." in text
    assert text.endswith(
        "Beside the paper's, our training is shorter, on smaller images and with a larger, falling learning rate, "
        f"{reason}."
    )
    only = protocol.beside_paper(request, [override(OTHER, ["training.learning_rate=1e-4"])], PAPER)
    assert only.endswith(f"our training is with a smaller learning rate, {reason}.")
    assert protocol.beside_paper(request, [OTHER], PAPER).endswith("The paper: much longer.")
    open_length = PAPER._replace(steps=None)
    short = override(OTHER, ["training.steps=4"])
    assert protocol.beside_paper(request, [short], open_length).endswith("The paper: much longer.")


def test_generated_images_are_drawn_once(tmp_path: Path, recorder: Callable[..., Any], ended: int) -> None:
    recorded = recorder()
    few = {"good": 3, "test_good": 1, "per_blemish": 1, "size": 64}
    folder = protocol.generated(tmp_path, "checkerboard", **few, observer=recorded)
    assert folder.name == "checkerboard"
    assert len([item for item in read_labelled(folder).items if item.split == "train"]) == 3
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert protocol.generated(tmp_path, "checkerboard", **few, observer=recorded) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before
    assert len(recorded.stages) == 1
    left = tmp_path / "images-2-1-1-64" / f".part-{machine()}-{ended}-0123456789ab"
    (left / "checkerboard" / "train").mkdir(parents=True)
    other = protocol.generated(tmp_path, "checkerboard", **{**few, "good": 2}, observer=recorded)
    assert other != folder
    assert list(other.parent.iterdir()) == [other]


def test_spread_is_the_mean_and_the_range_of_what_is_known() -> None:
    assert protocol.spread([1.0, 2.0, 6.0], 1) == "3.0 (1.0 to 6.0)"
    assert protocol.spread([None, 2.0]) == "2.000"
    assert protocol.spread([]) == "–"


def test_examples_are_of_every_type_and_always_the_same(dataset: Path) -> None:
    assert [item.name for item in protocol.choose_examples(dataset, 3)] == [
        "test/dot/0.png",
        "test/speck/0.png",
        "test/dot/1.png",
    ]
    assert len(protocol.choose_examples(dataset, 99)) == 5
    example = protocol.read_example(protocol.choose_examples(dataset, 1)[0])
    assert example.title == "dot/0.png"
    assert example.mask.sum() == 80
    assert example.image.shape == (1, 40, 48)


def test_what_is_shown_is_what_the_detector_measures(
    compared: tuple[Comparison, Path], dataset: Path
) -> None:
    detector = protocol.fitted(compared[1], "ssim-ae", 1)
    assert detector.recipe.training.seed == 1
    (item,) = protocol.choose_examples(dataset, 1)
    (shown,) = protocol.show(detector, [item])
    np.testing.assert_array_equal(shown.map, detector.inspect(item.path).map)
    assert shown.reconstruction.shape == (1, 40, 48)


def _pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _example(title: str, mask: NDArray[np.bool_]) -> Example:
    return Example(title, np.zeros((3, *mask.shape), np.float32), mask)


def _shown(mask: NDArray[np.bool_], scale: float) -> Shown:
    return Shown(np.zeros((1, *mask.shape), np.float32), mask.astype(np.float32) * np.float32(scale))


def test_maps_of_one_recipe_share_a_scale_of_their_own(tmp_path: Path) -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    examples = [_example("a", mask), _example("b", mask)]
    once = protocol.draw_examples(
        tmp_path / "once.png", examples, {"r": [_shown(mask, 1.0), _shown(mask, 0.5)]}
    )
    scaled = protocol.draw_examples(
        tmp_path / "scaled.png", examples, {"r": [_shown(mask, 8.0), _shown(mask, 4.0)]}
    )
    levelled = protocol.draw_examples(
        tmp_path / "levelled.png", examples, {"r": [_shown(mask, 1.0), _shown(mask, 1.0)]}
    )
    np.testing.assert_array_equal(_pixels(once), _pixels(scaled))
    assert not np.array_equal(_pixels(once), _pixels(levelled))


def test_each_recipe_adds_a_column_and_each_example_two_rows(tmp_path: Path) -> None:
    mask = np.ones((40, 40), bool)
    one = protocol.draw_examples(tmp_path / "1.png", [_example("a", mask)], {"r": [_shown(mask, 1)]})
    two = protocol.draw_examples(
        tmp_path / "2.png",
        [_example("a", mask)] * 2,
        {"r": [_shown(mask, 1)] * 2, "s": [_shown(mask, 0)] * 2},
    )
    assert _pixels(two).shape[0] > 1.8 * _pixels(one).shape[0]
    assert _pixels(two).shape[1] > 1.3 * _pixels(one).shape[1]


@pytest.mark.parametrize("losses", [(2.0, 1.0), (0.5, -0.5)])
def test_curves_show_every_seed(tmp_path: Path, losses: tuple[float, float]) -> None:
    history = [
        TrainingLook(step=1 + place, training=loss, validation=loss) for place, loss in enumerate(losses)
    ]
    other = [look.model_copy(update={"validation": look.validation / 2}) for look in history]
    one = protocol.draw_curves(tmp_path / "1.png", {"a": [history]})
    two = protocol.draw_curves(tmp_path / "2.png", {"a": [history, other]})
    five = protocol.draw_curves(tmp_path / "5.png", {name: [history] for name in "abcde"})
    assert not np.array_equal(_pixels(one), _pixels(two))
    assert _pixels(five).shape[1] > 3 * _pixels(one).shape[1]


def test_what_was_asked_is_checked_first(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileError, match="has no test folder"):
        run_study("kumar2025", out, data=tmp_path)
    with pytest.raises(UsageError, match="whole numbers of at least 0"):
        run_study("kumar2025", out, seeds=[-1])
    with pytest.raises(UsageError, match="whole numbers of at least 0"):
        run_study("kumar2025", out, seeds=[])
    assert not out.exists()


def test_rows_are_asked_for_where_a_study_is_gathered(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="--rows: the study xie2019 is run as a whole"):
        run_study("xie2019", out, rows=1)
    with pytest.raises(UsageError, match="--rows: give a whole number of at least 0"):
        run_study("kumar2025", out, data=dataset, rows=-1)
    assert not out.exists()


def test_an_allowance_counts_new_fits_alone() -> None:
    allowance = Allowance(1)
    taken = [
        allowance.take(name, is_finished=there) for name, there in (("a", True), ("b", False), ("c", False))
    ]
    assert taken == [True, True, False]
    assert (allowance.planned, allowance.missing) == (3, ["c"])
    assert allowance.in_words().startswith("1 of 3 fits is missing (c); ")
    assert Allowance(None).take("a", is_finished=False)


def test_settings_that_do_not_fit_are_refused_before_any_fit(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'training\.steps'"):
        run_study("kumar2025", tmp_path / "out", data=dataset, settings=["training.step=5"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("brighter", ["good", "dot"])
def test_brightness_alone_is_measured_in_either_direction(tmp_path: Path, brighter: str) -> None:
    for name in ("good", "dot"):
        folder = tmp_path / "test" / name
        folder.mkdir(parents=True)
        for index in range(4):
            grey = 100 + 2 * index + (50 if name == brighter and index else 0)
            Image.fromarray(np.full((9, 7), grey, np.uint8)).save(folder / f"{index}.png")
    # Of the 16 pairs, the four with the one dark image of the brighter kind are lost, or half of one a tie.
    assert protocol.brightness_auroc(tmp_path) == pytest.approx((12 + 0.5) / 16)
