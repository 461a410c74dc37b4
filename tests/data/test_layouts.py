"""Layouts of data sets as they lie on disks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from blemish.data.datasets import find_images
from blemish.data.items import Labelled
from blemish.data.layouts import read_labelled
from blemish.errors import FileError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def counts(found: Labelled) -> dict[tuple[str | None, str | None], int]:
    return dict(Counter((item.split, item.label) for item in found.items))


def masks(found: Labelled) -> dict[str, list[str]]:
    return {
        item.name.rpartition("/")[2]: [path.name for path in item.masks] for item in found.items if item.masks
    }


def test_btad(tmp_path: Path) -> None:
    touch(tmp_path, "train/ok/0.bmp", "test/ok/1.bmp", "test/ko/2.bmp", "ground_truth/ko/2.png")
    found = read_labelled(tmp_path)
    assert counts(found) == {("train", "good"): 1, ("test", "good"): 1, ("test", "ko"): 1}
    assert masks(found) == {"2.bmp": ["2.png"]}


def test_mvtec_loco_has_a_folder_of_masks_for_each_image(tmp_path: Path) -> None:
    touch(tmp_path, "train/good/0.png", "validation/good/0.png", "test/good/0.png")
    touch(tmp_path, "test/logical_anomalies/000.png", "test/logical_anomalies/001.png")
    touch(tmp_path, "test/structural_anomalies/000.png")
    touch(
        tmp_path, "ground_truth/logical_anomalies/000/000.png", "ground_truth/logical_anomalies/000/001.png"
    )
    touch(tmp_path, "ground_truth/structural_anomalies/000/000.png")
    found = read_labelled(tmp_path)
    assert [len(item.masks) for item in found.items if item.split == "test"] == [0, 2, 0, 1]
    # An image whose mask is missing keeps its label, and is named.
    assert counts(found)[("test", "logical_anomalies")] == 2
    (problem,) = found.problems
    assert problem.path.name == "001.png"
    assert problem.problem == "is a defective image without a mask"


def test_mvtec_ad_2(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "train/good/0.png",
        "validation/good/1.png",
        "test_public/good/2.png",
        "test_public/bad/3.png",
    )
    touch(tmp_path, "test_public/ground_truth/bad/3_mask.png", "test_private/4.png")
    found = read_labelled(tmp_path)
    assert counts(found) == {("train", "good"): 2, ("test", "good"): 1, ("test", "bad"): 1}
    assert masks(found) == {"3.png": ["3_mask.png"]}


def test_visa(tmp_path: Path) -> None:
    touch(
        tmp_path, "Data/Images/Normal/0000.JPG", "Data/Images/Anomaly/000.JPG", "Data/Masks/Anomaly/000.png"
    )
    found = read_labelled(tmp_path)
    assert counts(found) == {("test", "good"): 1, ("test", "Anomaly"): 1}
    assert masks(found) == {"000.JPG": ["000.png"]}


@pytest.mark.parametrize(
    ("good", "bad"),
    [("OK", "NG"), ("ok", "ko"), ("normal", "anomaly"), ("pass", "fail"), ("Good", "dent"), ("0", "1")],
)
@pytest.mark.parametrize("test", ["test/", ""])
def test_folders_named_by_label(tmp_path: Path, good: str, bad: str, test: str) -> None:
    touch(tmp_path, f"{test}{good}/a.png", f"{test}{bad}/b.png", f"{test}{bad}/c.png")
    label = "defective" if bad == "1" else bad
    assert counts(read_labelled(tmp_path)) == {("test", "good"): 1, ("test", label): 2}


def test_masks_beside_folders_named_by_label(tmp_path: Path) -> None:
    touch(tmp_path, "good/a.png", "bad/b.png", "masks/bad/b_mask.png")
    found = read_labelled(tmp_path)
    assert masks(found) == {"b.png": ["b_mask.png"]}
    assert len(found.items) == 2


def test_labels_that_nobody_knows_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "test/kiste/a.png", "test/kiste/b.png", "test/karton/c.png")
    with pytest.raises(
        FileError, match=r"labelled karton \(1\), kiste \(2\), none of which is known to say good"
    ) as error:
        read_labelled(tmp_path)
    assert "--good" in error.value.remedy
    assert counts(read_labelled(tmp_path, good="Kiste")) == {("test", "good"): 2, ("test", "karton"): 1}
    with pytest.raises(FileError, match="none of which is known to say good"):
        read_labelled(tmp_path, good="kist")


def test_defects_alone_are_labelled_too(tmp_path: Path) -> None:
    touch(tmp_path, "test/defect/a.png")
    assert counts(read_labelled(tmp_path)) == {("test", "defect"): 1}


def test_a_list_of_visa(tmp_path: Path) -> None:
    folder = tmp_path / "split_csv"
    folder.mkdir()
    touch(
        tmp_path,
        "candle/Data/Images/Normal/0.JPG",
        "candle/Data/Images/Anomaly/1.JPG",
        "candle/Data/Masks/1.png",
    )
    rows = [
        "object,split,label,image,mask",
        "candle,train,normal,candle/Data/Images/Normal/0.JPG,",
        "candle,test,anomaly,candle/Data/Images/Anomaly/1.JPG,candle/Data/Masks/1.png",
    ]
    (folder / "1cls.csv").write_text("\n".join(rows))
    found = read_labelled(folder / "1cls.csv")
    assert counts(found) == {("train", "good"): 1, ("test", "anomaly"): 1}
    assert all(item.path.exists() for item in found.items)
    assert found.items[1].masks[0].exists()
    (folder / "2.csv").write_text("\n".join([*rows, "cashew,train,normal,cashew/0.JPG,"]))
    with pytest.raises(FileError, match=r"several objects: candle \(2\), cashew \(1\)"):
        read_labelled(folder / "2.csv")


def test_folders_of_a_layout_in_any_case(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Train/Good/0.png",
        "Test/Good/1.png",
        "Test/Scratch/2.png",
        "Ground_Truth/Scratch/2_mask.png",
    )
    found = read_labelled(tmp_path)
    assert counts(found) == {("train", "good"): 1, ("test", "good"): 1, ("test", "Scratch"): 1}
    assert masks(found) == {"2.png": ["2_mask.png"]}
    with pytest.raises(FileError, match=r"name one part: .*Train/Good or .*Test$"):
        find_images(tmp_path)


def test_visa_in_lower_case(tmp_path: Path) -> None:
    touch(tmp_path, "data/images/normal/0.JPG", "data/images/anomaly/0.JPG", "data/masks/anomaly/0.png")
    found = read_labelled(tmp_path)
    assert counts(found) == {("test", "good"): 1, ("test", "anomaly"): 1}
    assert masks(found) == {"0.JPG": ["0.png"]}


def test_folders_by_unknown_labels_are_listed_with_the_option_that_names_one(tmp_path: Path) -> None:
    touch(tmp_path, "Gutteil/0.png", "Ausschuss/1.png")
    with pytest.raises(
        FileError, match=r"known to say good: Ausschuss, Gutteil; name that folder with --good"
    ):
        read_labelled(tmp_path)
    assert counts(read_labelled(tmp_path, "gutteil")) == {("test", "good"): 1, ("test", "Ausschuss"): 1}
