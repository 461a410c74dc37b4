from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from blemish.data.image import read_image
from blemish.data.masks import read_mask
from blemish.decision import Guarantee, read_records
from blemish.errors import FileError, UsageError
from blemish.evaluation.evaluate import Evaluation, evaluate
from blemish.inspection.detector import Detector

pytestmark = pytest.mark.usefixtures("few_resamples")

THRESHOLD_BETWEEN = 0.5


@pytest.fixture(scope="module")
def decided(detector: Detector, dataset: Path) -> Detector:
    """A detector whose threshold is a test score in the middle, so that mistakes of both kinds happen."""
    scores = [detector.inspect(path).score for path in sorted((dataset / "test").rglob("*.png"))]
    return detector.with_threshold(float(np.quantile(scores, THRESHOLD_BETWEEN)))


@pytest.fixture(scope="module")
def evaluated(
    decided: Detector, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Evaluation, Path]:
    out = tmp_path_factory.mktemp("evaluated") / "out"
    return evaluate(decided, dataset, out=out), out


def test_records_hold_what_inspect_gives(
    evaluated: tuple[Evaluation, Path], decided: Detector, dataset: Path
) -> None:
    records = read_records(evaluated[1] / "inspections.jsonl")
    assert len(records) == 9
    for record in records:
        assert record.score == decided.inspect(dataset / record.path).score
        assert record.label == record.path.split("/")[1]


@pytest.mark.parametrize("kind", ["all", "dot", "speck"])
def test_image_figures_against_scikit_learn(evaluated: tuple[Evaluation, Path], kind: str) -> None:
    evaluation, out = evaluated
    records = [
        r for r in read_records(out / "inspections.jsonl") if kind == "all" or r.label in ("good", kind)
    ]
    truth = np.array([record.label != "good" for record in records])
    scores = np.array([record.score for record in records])
    called = scores > evaluation.threshold
    result = evaluation.image[kind]
    assert (result.good, result.defective) == (4, {"all": 5, "dot": 3, "speck": 2}[kind])
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    expected = {
        "auroc": metrics.roc_auc_score(truth, scores),
        "ap": metrics.average_precision_score(truth, scores),
        "f1max": np.nanmax(2 * precision * recall / (precision + recall)),
        "f1": metrics.f1_score(truth, called, zero_division=0),
        "accuracy": metrics.accuracy_score(truth, called),
        "good_accepted": np.mean(~called[~truth]),
        "bad_rejected": np.mean(called[truth]),
    }
    assert set(result.figures) == set(expected)
    for name, value in expected.items():
        figure = result.figures[name]
        assert figure.value == pytest.approx(value, abs=1e-12), name
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high, name


def test_pixel_figures_against_scikit_learn(
    evaluated: tuple[Evaluation, Path], decided: Detector, dataset: Path
) -> None:
    evaluation, _ = evaluated
    for kind, result in {"all": evaluation.pixel, **evaluation.pixel.groups}.items():
        truth, values = [], []
        for path in sorted((dataset / "test").rglob("*.png")):
            label = path.parent.name
            if label == "good" or kind in ("all", label):
                found = decided.inspect(path)
                mask = np.zeros(found.map.shape, bool)
                if label != "good":
                    mask = read_mask(
                        dataset / "ground_truth" / label / f"{path.stem}_mask.png", size=found.size
                    )
                truth.append(mask.ravel())
                values.append(found.map.ravel())
        labels, scores = np.concatenate(truth), np.concatenate(values)
        assert result.auroc == pytest.approx(metrics.roc_auc_score(labels, scores), abs=5e-4)
        assert result.ap == pytest.approx(metrics.average_precision_score(labels, scores), abs=5e-4)
        low, high = result.intervals["auroc"]
        assert low <= result.auroc <= high
    assert set(evaluation.pixel.groups) == {"dot", "speck"}
    assert evaluation.without_mask == 0


def test_false_rejects_stand_beside_what_the_promise_allows(
    detector: Detector, decided: Detector, dataset: Path, evaluated: tuple[Evaluation, Path]
) -> None:
    good = [detector.inspect(path).score for path in (dataset / "test" / "good").iterdir()]
    promised = evaluate(detector, dataset).false_rejects
    assert promised is not None
    assert promised.rejected == sum(score > detector.threshold for score in good)
    assert (promised.good, promised.ratio) == (4, promised.rejected / 4)
    assert (promised.low, promised.high) == Guarantee(n=5, false_reject_rate=0.2).interval(4)
    assert promised.within == (promised.low <= promised.ratio <= promised.high)
    by_hand = evaluated[0].false_rejects
    assert by_hand is not None
    assert by_hand.rejected == sum(score > decided.threshold for score in good)
    assert by_hand.promised is by_hand.within is None


def test_files_and_report(evaluated: tuple[Evaluation, Path], dataset: Path) -> None:
    evaluation, out = evaluated
    assert Evaluation.model_validate(json.loads((out / "evaluation.json").read_text())) == evaluation
    page = (out / "report.html").read_text(encoding="utf-8")
    for words in ("ROC of images", "Precision and recall", "AUPRO 0.3", "known label", "speck"):
        assert words in page
    assert str(dataset.parent) not in page
    lines = evaluation.in_words().splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["all", "dot", "speck"]
    assert lines[-1].startswith("Good images rejected: ")


def test_out_is_not_replaced_unasked(
    decided: Detector, dataset: Path, evaluated: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(evaluated[1], tmp_path / "out"))
    with pytest.raises(UsageError, match="--overwrite"):
        evaluate(decided, dataset, out=out)
    again = evaluate(decided, dataset, out=out, overwrite=True)
    assert again.image == evaluated[0].image
    assert again.pixel == evaluated[0].pixel


def test_masks_that_cannot_be_used(
    decided: Detector,
    dataset: Path,
    tmp_path: Path,
    save: Callable[..., Path],
    recorder: type,
) -> None:
    root = Path(shutil.copytree(dataset, tmp_path / "damaged"))
    masks = root / "ground_truth" / "dot"
    (masks / "0_mask.png").unlink()
    save(masks / "1_mask.png", np.zeros((10, 10), np.uint8))
    save(masks / "2_mask.png", np.zeros((40, 48), np.uint8))
    save(masks / "9_mask.png", np.zeros((40, 48), np.uint8))
    recorded = recorder()
    evaluation = evaluate(decided, root, out=tmp_path / "out", observer=recorded)
    problems = {problem.path.relative_to(root).as_posix(): str(problem) for problem in recorded.problems}
    assert sorted(problems) == [
        "ground_truth/dot/1_mask.png",
        "ground_truth/dot/2_mask.png",
        "ground_truth/dot/9_mask.png",
        "test/dot/0.png",
    ]
    assert "save it at the size of its image" in problems["ground_truth/dot/1_mask.png"]
    assert set(evaluation.skipped) == set(problems.values())
    assert "marks nothing on an image with a defect" in problems["ground_truth/dot/2_mask.png"]
    # A dot without a mask, or with a wrong or empty one, still counts as an image.
    assert evaluation.image["dot"].defective == 3
    assert evaluation.without_mask == 3
    assert set(evaluation.pixel.groups) == {"speck"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Cannot be shown" not in page
    assert "1_mask.png" in page


def test_only_good_and_only_defective_images(
    decided: Detector, dataset: Path, tmp_path: Path, recorder: Callable[..., Any]
) -> None:
    root = Path(shutil.copytree(dataset, tmp_path / "part"))
    shutil.move(root / "test" / "good", root / "good")
    recorded = recorder()
    defective = evaluate(decided, root, out=tmp_path / "defective", observer=recorded)
    assert any("Labels of the test images: dot (3), speck (2)" in stage for stage in recorded.stages)
    assert defective.false_rejects is None
    assert defective.image["all"].figures["auroc"].value is None
    assert defective.image["all"].figures["bad_rejected"].value is not None
    shutil.rmtree(root / "test")
    shutil.rmtree(root / "ground_truth")
    shutil.move(root / "good", root / "test" / "good")
    good = evaluate(decided, root, out=tmp_path / "good")
    assert list(good.image) == ["all"]
    assert good.image["all"].figures["auroc"].value is None
    assert good.pixel.auroc is None
    assert good.false_rejects is not None
    for name in ("good", "defective"):
        assert "ROC of images" not in (tmp_path / name / "report.html").read_text(encoding="utf-8")
    assert "–" in good.in_words()


def test_a_list_in_csv_says_what_a_data_set_says(
    decided: Detector, dataset: Path, evaluated: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(dataset, tmp_path / "listed"))
    rows = ["path,label,mask,split", "train/good/0.png,good,,train"]
    for path in sorted((dataset / "test").rglob("*.png")):
        kind = path.parent.name
        mask = "" if kind == "good" else f"ground_truth/{kind}/{path.stem}_mask.png"
        rows.append(f"test/{kind}/{path.name},{kind},{mask},")
    listed = root / "list.csv"
    listed.write_text("\n".join(rows))
    evaluation = evaluate(decided, listed)
    assert evaluation.image["all"].figures["auroc"].value == evaluated[0].image["all"].figures["auroc"].value
    assert evaluation.pixel.aupro_30 == pytest.approx(evaluated[0].pixel.aupro_30)


def test_nothing_to_evaluate(decided: Detector, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "train" / "good").mkdir(parents=True)
    with pytest.raises(FileError, match="has no test folder"):
        evaluate(decided, tmp_path)
    with pytest.raises(FileError, match="neither a folder nor a CSV list"):
        evaluate(decided, tmp_path / "nowhere")
    (tmp_path / "test" / "good").mkdir(parents=True)
    (tmp_path / "test" / "good" / "a.png").write_bytes(b"")
    with pytest.raises(FileError, match="no test image that can be used"):
        evaluate(decided, tmp_path)


def test_training_images_are_not_evaluated(
    decided: Detector, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def spy(path: Path) -> object:
        opened.append(path)
        return read_image(path)

    monkeypatch.setattr("blemish.inspection.folder.read_image", spy)
    evaluate(decided, dataset)
    assert len(opened) == 9
    assert not [path for path in opened if "train" in path.parts[-3:]]


def test_images_that_the_model_has_seen_are_counted_first(
    decided: Detector, dataset: Path, evaluated: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    assert evaluated[0].seen == 0
    assert evaluated[0].warning == ""
    root = Path(shutil.copytree(dataset, tmp_path / "seen"))
    for name in ("0.png", "1.png", "2.png"):
        shutil.copy(root / "train" / "good" / name, root / "test" / "good" / f"again {name}")
    found = evaluate(decided, root, out=tmp_path / "out")
    assert found.seen == 3
    first = found.in_words().splitlines()[0]
    assert first.startswith("The model was fitted or calibrated on 3 of these 12 images")
    assert first in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_another_word_for_good(
    decided: Detector, dataset: Path, evaluated: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(dataset, tmp_path / "words"))
    for part in ("train", "test"):
        (root / part / "good").rename(root / part / "kiste")
    with pytest.raises(FileError, match=r"kiste \(4\).*none of which is known to say good"):
        evaluate(decided, root)
    assert evaluate(decided, root, good_label="Kiste").image == evaluated[0].image


def test_a_mask_on_an_image_that_is_labelled_good_is_named(
    decided: Detector, dataset: Path, tmp_path: Path, recorder: Callable[..., Any]
) -> None:
    good = next(iter(sorted((dataset / "test" / "good").iterdir())))
    bad = next(iter(sorted((dataset / "test" / "dot").iterdir())))
    mask = next(iter(sorted((dataset / "ground_truth" / "dot").iterdir())))
    empty = tmp_path / "empty.png"
    Image.new("L", read_image(good).size).save(empty)
    rows = [f"{good},ok,{mask}", f"{bad},dot,{mask}"]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,mask", *rows]) + "\n")
    observer = recorder()
    found = evaluate(decided, tmp_path / "list.csv", observer=observer)
    (problem,) = observer.problems
    assert f"marks a defect on {good.name}, which is labelled good" in str(problem)
    assert found.image["all"].good == 1
    # A good image may have a mask that marks nothing, as some data sets give it.
    (tmp_path / "list.csv").write_text("\n".join(["path,label,mask", f"{good},ok,{empty}", rows[1]]) + "\n")
    observer = recorder()
    evaluate(decided, tmp_path / "list.csv", observer=observer)
    assert observer.problems == []
