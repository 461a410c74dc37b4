"""Verdicts as labels: the data set that evaluation reads, and what a fit may see of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.data.fingerprint import file_sha256
from blemish.data.layouts import read_labelled
from blemish.errors import FileError
from blemish.evaluation.evaluate import evaluate
from blemish.inspection.detector import Detector
from blemish.serve.contracts import Frame, NewVerdict, Shape, StoredDecision
from blemish.serve.history import History, KeptImages
from blemish.serve.verdicts import is_to_test, label_of, mask_of, write_labelled
from tests.serve.history.made import decision

BOX = Shape(kind="box", points=((4, 6), (9, 12)))


def png(array: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(array)).save(file, "PNG")
    return file.getvalue()


class Judged:
    """A history whose images are judged one by one."""

    def __init__(self, folder: Path) -> None:
        self.images, self.history = KeptImages(folder / "images"), History.open(folder)
        self.count = 0

    def add(
        self, content: bytes, *, rejected: bool, size: tuple[int, int] = (48, 40), **verdict: Any
    ) -> StoredDecision:
        frame = Frame(content, "x.png")
        self.count += 1
        new = decision(
            self.count,
            is_anomalous=rejected,
            score=0.9 if rejected else 0.1,
            size=size,
            image_sha256=frame.sha256(),
        )
        [stored] = self.history.add([self.images.keep(frame, np.ones(size[::-1], np.float32), new)])
        if verdict:
            self.history.add_verdict(stored.id, NewVerdict(**verdict))
        return self.history.decision(stored.id)


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Judged]:
    made = Judged(tmp_path / "home")
    yield made
    made.history.close()


def test_a_label_is_what_the_verdict_means(judged: Judged) -> None:
    def label(rejected: bool, **verdict: Any) -> str | None:
        return label_of(judged.add(b"BM", rejected=rejected, **verdict))

    assert label(True) is None
    assert label(True, is_right=True) == "defective"
    assert label(False, is_right=True) == "good"
    assert label(True, is_right=False) == "good"
    assert label(False, is_right=False) == "defective"
    assert label(False, is_right=False, label=" scratch ") == "scratch"
    assert label(True, is_right=False, label="OK") == "good"
    assert label(True, is_right=True, label=" ") == "defective"


def brute_force(points: list[tuple[float, float]], width: int, height: int) -> np.ndarray:  # type: ignore[type-arg]
    """Winding by angles: the centre of a pixel is within a simple polygon if the angles to its corners sum to a turn."""
    corners = np.array(points)
    mask = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            to = corners - (x + 0.5, y + 0.5)
            angles = np.angle(to[:, 0] + 1j * to[:, 1])
            turns = (np.diff(np.append(angles, angles[0])) + np.pi) % (2 * np.pi) - np.pi
            mask[y, x] = abs(turns.sum()) > np.pi
    return mask


@pytest.mark.parametrize(
    "points",
    [
        [(1.2, 0.7), (10.4, 2.1), (7.3, 8.9), (2.2, 6.1)],
        [(1.2, 1.1), (10.4, 1.3), (10.1, 8.2), (6.1, 3.3), (1.3, 8.4)],
        [(-5.1, -5.2), (30.3, -4.1), (8.2, 40.3)],
    ],
    ids=["convex", "concave", "beyond the image"],
)
def test_a_mask_holds_the_pixels_whose_centres_are_within(points: list[tuple[float, float]]) -> None:
    shape = Shape(kind="polygon", points=tuple(points))
    np.testing.assert_array_equal(mask_of([shape], (12, 10)), brute_force(points, 12, 10))


def test_a_box_is_drawn_from_any_corner_and_a_point_is_a_pixel() -> None:
    expected = np.zeros((5, 6), bool)
    expected[1:4, 2:5] = True
    for points in (((2, 1), (5, 4)), ((5, 4), (2, 1)), ((5, 1), (2, 4))):
        np.testing.assert_array_equal(mask_of([Shape(kind="box", points=points)], (6, 5)), expected)
    point = mask_of([Shape(kind="box", points=((3.2, 1.7), (3.3, 1.8)))], (6, 5))
    assert np.argwhere(point).tolist() == [[1, 3]]
    assert mask_of([], (6, 5)).sum() == 0


@pytest.mark.usefixtures("few_resamples")
def test_evaluate_reads_what_is_written(
    judged: Judged, exported: tuple[Detector, Path], draw: Callable[..., Any], tmp_path: Path
) -> None:
    for seed in range(100, 112):
        judged.add(png(draw(seed)), rejected=False, is_right=True)
    for seed in range(200, 208):
        dot = np.abs(draw(seed, dot=True).astype(int) - draw(seed).astype(int)) > 0
        rows, columns = np.nonzero(dot)
        box = Shape(
            kind="box",
            points=((int(columns.min()), int(rows.min())), (int(columns.max()) + 1, int(rows.max()) + 1)),
        )
        judged.add(png(draw(seed, dot=True)), rejected=True, is_right=True, label="dot", shapes=(box,))
    judged.add(png(draw(300, dot=True)), rejected=False, is_right=False, label="dot")  # missed, and not drawn
    judged.add(png(draw(400)), rejected=False)  # without a verdict
    out = tmp_path / "labelled"
    counts = write_labelled(judged.history, judged.images, out)
    assert counts.good_to_fit + counts.good_to_test == 12
    assert (counts.defective, counts.masks, counts.without_image, counts.contradictory) == (9, 8, 0, 0)
    assert 0 < counts.good_to_test < 12
    to_test = counts.defective - counts.defective_to_choose
    assert 0 < to_test < 9
    drawn_to_test = len(list((out / "ground_truth" / "dot").iterdir()))

    by_list = evaluate(exported[0], out / "labels.csv")
    assert set(by_list.image) == {"all", "dot"}
    assert (by_list.image["dot"].good, by_list.image["dot"].defective) == (counts.good_to_test, to_test)
    assert (by_list.without_mask, by_list.seen, by_list.skipped) == (to_test - drawn_to_test, 0, ())
    by_folder = evaluate(exported[0], out)
    assert by_folder.image == by_list.image
    assert by_folder.pixel.auroc == pytest.approx(by_list.pixel.auroc)
    assert by_list.pixel.auroc is not None
    labels = {item.label for item in read_labelled(out).items}
    assert labels == {"good", "dot"}


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "labels.csv").read_text("utf-8-sig"), newline="")))


def test_defects_are_apart_from_what_a_fit_sees(
    judged: Judged, draw: Callable[..., Any], tmp_path: Path
) -> None:
    good = [judged.add(png(draw(seed)), rejected=seed % 2 == 0, is_right=seed % 2 == 1) for seed in range(20)]
    bad = [
        judged.add(png(draw(seed, dot=True)), rejected=seed % 2 == 0, is_right=seed % 2 == 0)
        for seed in range(5)
    ]
    out = tmp_path / "labelled"
    write_labelled(judged.history, judged.images, out)
    to_fit = {file_sha256(path) for path in (out / "train" / "good").iterdir()}
    to_test = {file_sha256(path) for path in (out / "test").rglob("*.png")}
    to_choose = {file_sha256(path) for path in (out / "defects").rglob("*.png")}
    assert to_fit
    assert to_choose
    assert to_fit | to_test | to_choose == {one.image_sha256 for one in good + bad}
    assert to_fit & to_test == to_test & to_choose == to_fit & to_choose == set()
    assert to_choose == {one.image_sha256 for one in bad if not is_to_test(one.image_sha256)}
    assert to_fit & {one.image_sha256 for one in bad} == set()
    assert to_fit == {one.image_sha256 for one in good if not is_to_test(one.image_sha256)}


@pytest.mark.slow
@pytest.mark.usefixtures("few_resamples")
def test_a_warm_start_learns_confirmed_good_images_and_is_tested_on_unseen_ones(
    judged: Judged, fitted: tuple[Detector, Path], draw: Callable[..., Any], tmp_path: Path
) -> None:
    from blemish.training.fit import fit

    for seed in range(500, 560):
        judged.add(png(draw(seed)), rejected=False, is_right=True)
    bad = [judged.add(png(draw(seed, dot=True)), rejected=True, is_right=True) for seed in range(600, 606)]
    out = tmp_path / "labelled"
    counts = write_labelled(judged.history, judged.images, out)
    newer = fit(out / "train" / "good", continue_from=fitted[1], out=tmp_path / "newer")
    seen = set(newer.file.seen)
    assert (
        len({file_sha256(path) for path in (out / "train" / "good").iterdir()} & seen) == counts.good_to_fit
    )
    assert seen & {one.image_sha256 for one in bad} == set()
    found = evaluate(newer, out / "labels.csv")
    assert found.seen == 0
    to_test = 6 - counts.defective_to_choose
    assert (found.image["all"].good, found.image["all"].defective) == (counts.good_to_test, to_test)


def test_a_share_of_the_good_ones_stays_unseen_and_always_the_same() -> None:
    names = [f"{number:064x}" for number in range(4000)]
    chosen = [is_to_test(name, 0.25) for name in names]
    assert 900 < sum(chosen) < 1100
    assert all(is_to_test(name, 0.5) for name, is_chosen in zip(names, chosen, strict=True) if is_chosen)
    assert not any(is_to_test(name, 0) for name in names)
    assert all(is_to_test(name, 1) for name in names)


def test_contradictory_and_absent_images_are_left_out_and_counted(
    judged: Judged, draw: Callable[..., Any], tmp_path: Path
) -> None:
    same, other = png(draw(1)), png(draw(2))
    judged.add(same, rejected=False, is_right=True)
    judged.add(same, rejected=False, is_right=False)
    judged.add(other, rejected=True, is_right=True, label="dent", shapes=(BOX,))
    judged.add(other, rejected=True, is_right=True, label="dent")
    gone = judged.add(png(draw(3)), rejected=True, is_right=True)
    path = judged.images.image(gone)
    assert path is not None
    path.unlink()
    counts = write_labelled(judged.history, judged.images, tmp_path / "labelled", test_share=1)
    assert counts.model_dump() == {
        "good_to_fit": 0, "good_to_test": 0, "defective": 1, "defective_to_choose": 0, "masks": 1, "without_image": 1,
        "contradictory": 1,
    }  # fmt: skip
    assert "Left out: 1 whose verdicts contradict each other." in counts.in_words()
    mask = np.asarray(Image.open(tmp_path / "labelled" / "ground_truth" / "dent" / "000000003_mask.png"))
    assert mask.shape == (40, 48)
    assert (mask[6:12, 4:9] == 255).all()
    assert (mask > 0).sum() == 30


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("../../etc", "etc"),
        ("kratzer/tief", "kratzer_tief"),
        ("Masks", "defective Masks"),
        ("test", "defective test"),
        ("0", "defective 0"),
        ("...", "defective"),
        ("=1+1", "defective 1_1"),
        ("Defekt", "defective"),
        ("x" * 500, "x" * 60),
    ],
)
def test_a_label_becomes_a_folder_that_means_a_defect(
    judged: Judged, tmp_path: Path, label: str, folder: str
) -> None:
    judged.add(png(np.zeros((40, 48), np.uint8)), rejected=True, is_right=True, label=label)
    judged.add(png(np.ones((40, 48), np.uint8)), rejected=False, is_right=True)
    out = tmp_path / "labelled"
    write_labelled(judged.history, judged.images, out, test_share=1)
    assert {path.name for path in (out / "test").iterdir()} == {folder, "good"}
    for source in (out, out / "labels.csv"):
        assert {item.label for item in read_labelled(source).items} == {folder, "good"}


def test_cells_hold_no_formula(judged: Judged, tmp_path: Path) -> None:
    judged.add(png(np.zeros((40, 48), np.uint8)), rejected=True, is_right=True, operator="@x", note="=1\n+2")
    write_labelled(judged.history, judged.images, tmp_path / "labelled")
    [row] = rows_of(tmp_path / "labelled")
    assert (row["operator"], row["note"]) == ("'@x", "'=1 +2")


def test_nothing_judged_and_places_that_are_taken_are_refused(judged: Judged, tmp_path: Path) -> None:
    judged.add(b"BM", rejected=True)
    with pytest.raises(FileError, match="no image with a verdict is kept; judge some images"):
        write_labelled(judged.history, judged.images, tmp_path / "labelled")
    assert not (tmp_path / "labelled").exists()
    with pytest.raises(FileError, match="exists already; name a new folder"):
        write_labelled(judged.history, judged.images, tmp_path)
