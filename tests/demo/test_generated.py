"""The generated images: exact masks, fixed bytes, and defects that only a trained detector finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from blemish.data.image import LoadedImage
from blemish.demo.generated import (
    DEFECTS,
    FAMILIES,
    OTHER_KINDS,
    Sample,
    checkerboard,
    make_sample,
    strokes_and_dots,
    write_dataset,
)
from blemish.demo.generated_parts import BELT
from blemish.errors import FileError, UsageError
from blemish.preprocessing.pose import Crop, find_objects
from blemish.preprocessing.transform import Preprocessing

EVERY_DEFECT = [(family, kind) for family in FAMILIES for kind in DEFECTS[family]]
EVERY_KIND = [(family, "good") for family in FAMILIES] + EVERY_DEFECT
CHANNELS = {"weave": 3, "checkerboard": 1, "part": 3, "rod": 1, "surface": 1, "figures": 3, "mouldings": 3}


@pytest.mark.parametrize("size", [64, 97])
@pytest.mark.parametrize(("family", "kind"), EVERY_KIND)
def test_shapes_and_determinism(family: str, kind: str, size: int) -> None:
    one, two = (make_sample(family, kind, seed=11, size=size) for _ in range(2))
    assert one.image.shape == (CHANNELS[family], size, size)
    assert one.image.dtype == np.uint8
    assert one.mask.shape == (size, size)
    assert one.mask.dtype == np.bool_
    assert one.kind == kind
    assert one.mask.any() == (kind != "good")
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.mask, two.mask)
    assert (one.image != make_sample(family, kind, seed=12, size=size).image).mean() > 0.5


@pytest.mark.parametrize(("family", "kind"), EVERY_DEFECT)
def test_mask_is_where_the_image_changed(family: str, kind: str) -> None:
    good = make_sample(family, "good", seed=5)
    bad = make_sample(family, kind, seed=5)
    change = np.abs(good.image.astype(int) - bad.image).max(axis=0)
    # Rounding moves a change by a level at most; below four pixels it counts as a crumb.
    missed, _ = ndimage.label((change > 5) & ~bad.mask, np.ones((3, 3)))
    assert np.bincount(missed.ravel())[1:].max(initial=0) < 4
    assert (change[bad.mask] >= 3).mean() > 0.7
    # Faint and small: never more than 1 % of the image, and nothing else touched.
    if kind.startswith(("recoloured", "darkened")):
        return
    assert 0.0004 <= bad.mask.mean() <= 0.01
    assert (change > 0).mean() < 0.06


@pytest.mark.parametrize(("family", "kind"), EVERY_DEFECT)
def test_strength_raises_the_contrast(family: str, kind: str) -> None:
    good = make_sample(family, "good", seed=8, size=128).image.astype(int)
    unit = {"rod": 1 / BELT.contrast, "figures": 0.5, "mouldings": 0.5}.get(
        family, 1.0
    )  # what covers is opaque from about 0.6 on
    faint, plain = (
        np.abs(make_sample(family, kind, seed=8, size=128, strength=s * unit).image - good).sum()
        for s in (0.8, 1.6)
    )
    assert plain > faint


def test_blemishes_sit_in_different_places() -> None:
    centres = {
        ndimage.center_of_mass(make_sample("weave", "stain", seed=seed, size=128).mask) for seed in range(6)
    }
    assert np.std(np.array(list(centres)), axis=0).min() > 8


def test_rods_lie_at_any_angle_and_each_is_found_whole() -> None:
    found = [find_objects(make_sample("rod", "good", seed=seed).image[0] / 255) for seed in range(12)]
    assert all(len(objects) == 1 for objects in found)
    lengths = np.array([one.length for (one,) in found])
    np.testing.assert_allclose(lengths, np.median(lengths), rtol=0.02)
    directions = np.array([one.pose.direction for (one,) in found])
    assert np.hypot(*directions.mean(axis=0)) < 0.6


def figure(kind: str, seed: int, size: int = 128) -> NDArray[np.float64]:
    return make_sample("figures", kind, seed=seed, size=size).image / 255


def test_figures_lie_at_any_angle_and_the_border_cuts_few_of_them() -> None:
    found = [find_objects(figure("good", seed).mean(0))[0] for seed in range(120)]
    inside = np.array([one.inside for one in found])
    assert 0.95 <= inside.mean() < 1  # with more at the border whole images would be compared
    lengths = np.array([one.length for one in found])
    np.testing.assert_allclose(lengths, np.median(lengths), rtol=0.03)
    directions = np.array([one.pose.direction for one in found])
    assert np.hypot(*directions.mean(axis=0)) < 0.3


def test_the_crop_around_some_figures_reaches_beyond_the_image() -> None:
    own = Preprocessing(channels=3, convert=False, kind="uint8", size=None, crop=Crop(height=48, width=80))
    samples = [make_sample("figures", "good", seed=seed, size=128) for seed in range(24)]
    placed = [own.apply(LoadedImage(Path("figure.png"), sample.image)) for sample in samples]
    assert 0.05 < np.mean([one.inside is not None for one in placed]) < 0.5


def test_figures_are_of_flat_paint() -> None:
    """Inside a part neighbouring pixels differ by noise alone."""
    image = figure("good", 3, 256)
    steps = np.abs(np.diff(ndimage.gaussian_filter(image, (0, 1.5, 1.5)), axis=2)).max(0)
    colour = image.max(0) - image.min(0)
    on_figure = ndimage.binary_erosion(ndimage.gaussian_filter(colour, 1.5)[:, 1:] > 0.25, iterations=3)
    assert on_figure.mean() > 0.02
    assert np.median(steps[on_figure]) < 0.01


@pytest.mark.parametrize("kind", ["recoloured_whole", "recoloured_part"])
def test_what_is_recoloured_keeps_its_brightness_and_its_outline(kind: str) -> None:
    for seed in range(4):
        good, bad = figure("good", seed), figure(kind, seed)
        mask = make_sample("figures", kind, seed=seed, size=128).mask
        inside = ndimage.binary_erosion(mask, iterations=2)
        assert np.abs(bad - good)[:, inside].max(0).mean() > 0.08
        assert abs(float((bad - good)[:, inside].mean())) < 0.02
        assert not mask[[0, -1]].any()


def test_a_recoloured_part_is_a_smaller_area_than_a_recoloured_figure() -> None:
    whole, part = (
        np.mean([make_sample("figures", kind, seed=seed, size=128).mask.mean() for seed in range(6)])
        for kind in ("recoloured_whole", "recoloured_part")
    )
    assert part < whole / 2


def test_a_moulding_is_of_one_paint_and_of_no_other_when_it_is_recoloured_or_darkened() -> None:
    good, recoloured, darkened = (
        make_sample("mouldings", kind, seed=5, size=128, strength=0.3)
        for kind in ("good", "recoloured_whole", "darkened")
    )
    inside = ndimage.binary_erosion(recoloured.mask, iterations=3)
    assert (recoloured.mask ^ darkened.mask).sum() < 0.2 * inside.sum()  # edges alone
    for sample in (good, recoloured, darkened):
        assert (
            sample.image[:, inside].std(1) < 12
        ).all()  # noise and uneven light; paints differ by more than 40
    means = [sample.image[:, inside].mean(1) for sample in (good, recoloured, darkened)]
    assert means[1].mean() == pytest.approx(means[0].mean(), abs=2)
    assert np.abs(means[1] - means[0]).max() > 10
    np.testing.assert_allclose(means[2] / means[0], 0.85, atol=0.02)


@pytest.mark.parametrize("kind", OTHER_KINDS["figures"])
def test_other_kinds_have_no_mask_and_are_of_another_kind(kind: str) -> None:
    for seed in range(3):
        sample = make_sample("figures", kind, seed=seed, size=128)
        assert not sample.mask.any()
        grey = sample.image.mean(0) / 255
        found = find_objects(grey)
        if kind == "empty":
            assert not found or abs(found[0].length - 66) > 20
        elif kind == "lamp_off":
            assert grey.max() < 0.15
        else:
            assert len(found) == 2


def test_other_kinds_are_written_without_masks(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, "figures", good=1, test_good=1, per_blemish=1, size=64)
    kinds = {path.name for path in (folder / "test").iterdir()}
    assert kinds == {"good", *DEFECTS["figures"], *OTHER_KINDS["figures"]}
    assert {path.name for path in (folder / "ground_truth").iterdir()} == set(DEFECTS["figures"])


def test_checkerboard_fields() -> None:
    board = checkerboard(96, period=32.0)
    assert board.dtype == np.float32
    assert set(np.unique(board)) == {0.0, 1.0}
    np.testing.assert_array_equal(board[:16, :16], 1)
    np.testing.assert_array_equal(board[:16, 16:32], 0)
    np.testing.assert_array_equal(board[16:32, 16:32], 1)
    np.testing.assert_allclose(board[:64], board[32:], atol=0)  # one period further


def test_checkerboard_is_antialiased_and_balanced() -> None:
    board = checkerboard(128, period=23.7, angle=31.0, phase=(0.3, 0.8), dark=0.2, light=0.6)
    assert board.min() >= 0.2 - 1e-6
    assert board.max() <= 0.6 + 1e-6
    assert board.mean() == pytest.approx(0.4, abs=0.01)
    between = (board > 0.22) & (board < 0.58)
    assert 0.05 < between.mean() < 0.25
    # Against 8 × 8 samples a pixel of the sharp board.
    c = (np.arange(128 * 8) + 0.5) / 8
    y, x = np.meshgrid(c, c, indexing="ij")
    a = np.deg2rad(31.0)
    u, v = np.cos(a) * x + np.sin(a) * y, np.cos(a) * y - np.sin(a) * x
    sharp = np.floor(2 * (u / 23.7 + 0.3)) + np.floor(2 * (v / 23.7 + 0.8))
    exact = (0.2 + 0.4 * (sharp % 2 == 0)).reshape(128, 8, 128, 8).mean(axis=(1, 3))
    assert np.abs(board - exact).mean() < 0.01


def test_checkerboard_turned_by_a_right_angle() -> None:
    np.testing.assert_allclose(
        checkerboard(64, period=16.0, angle=90.0), np.rot90(checkerboard(64, period=16.0)), atol=1e-4
    )


def test_strokes_and_dots_coverage() -> None:
    cover = strokes_and_dots(128, seed=4)
    assert cover.shape == (128, 128)
    assert cover.min() == 0
    assert cover.max() == 1
    assert 0.005 < cover.mean() < 0.08
    np.testing.assert_array_equal(cover, strokes_and_dots(128, seed=4))
    assert strokes_and_dots(128, seed=4, strokes=0, dots=0).max() == 0
    # A dot of radius r covers pi r^2, here with r within 30 % of the width.
    area = strokes_and_dots(128, seed=4, strokes=0, dots=1, width=6.0).sum()
    assert np.pi * (0.7 * 6) ** 2 * 0.97 < area < np.pi * (1.3 * 6) ** 2 * 1.03


def test_dataset_layout_and_bytes(tmp_path: Path) -> None:
    first, second = (
        write_dataset(tmp_path / name, "checkerboard", good=3, test_good=2, per_blemish=2, seed=7, size=64)
        for name in ("a", "b")
    )
    assert first == tmp_path / "a" / "checkerboard"
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert names == [
        "ground_truth/dot/000_mask.png",
        "ground_truth/dot/001_mask.png",
        "ground_truth/stroke/000_mask.png",
        "ground_truth/stroke/001_mask.png",
        "test/dot/000.png",
        "test/dot/001.png",
        "test/good/000.png",
        "test/good/001.png",
        "test/stroke/000.png",
        "test/stroke/001.png",
        "train/good/000.png",
        "train/good/001.png",
        "train/good/002.png",
    ]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    images = {(first / name).read_bytes() for name in names}
    assert len(images) == len(names)
    with Image.open(first / "ground_truth/dot/000_mask.png") as mask:
        assert mask.mode == "L"
        assert set(np.unique(np.asarray(mask))) == {0, 255}
    with Image.open(first / "test/dot/000.png") as image:
        assert (image.mode, image.size) == ("L", (64, 64))


def test_a_data_set_of_fainter_defects_has_the_same_good_images(tmp_path: Path) -> None:
    plain, faint = (
        write_dataset(
            tmp_path / str(s), "checkerboard", good=1, test_good=1, per_blemish=1, size=64, strength=s
        )
        for s in (1.0, 0.5)
    )
    for name in ("train/good/000.png", "test/good/000.png"):
        assert (plain / name).read_bytes() == (faint / name).read_bytes()
    assert (plain / "test/dot/000.png").read_bytes() != (faint / "test/dot/000.png").read_bytes()


def test_dataset_is_not_written_over(tmp_path: Path) -> None:
    write_dataset(tmp_path, "checkerboard", good=1, test_good=0, per_blemish=0, size=64)
    with pytest.raises(FileError, match=r"checkerboard: is there already"):
        write_dataset(tmp_path, "checkerboard", good=1, test_good=0, per_blemish=0, size=64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "wave", "kind": "good"}, "unknown family 'wave'"),
        ({"family": "weave", "kind": "dent"}, "weave has no kind 'dent'"),
        ({"family": "weave", "kind": "good", "size": 32}, "size >= 64"),
        ({"family": "weave", "kind": "good", "seed": -1}, "seed >= 0"),
        ({"family": "weave", "kind": "stain", "strength": 0.0}, "strength > 0"),
        ({"family": "weave", "kind": "stain", "strength": 0.01}, "cannot be drawn"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_sample(**{"seed": 0, "size": 64, **arguments})  # type: ignore[arg-type]


# --- no cheap way to tell good from defective ---------------------------------------------------------------


def auroc(good: NDArray[np.float64], bad: NDArray[np.float64]) -> float:
    return float((bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean())


def grey(sample: Sample) -> NDArray[np.float64]:
    return sample.image.mean(axis=0) / 255


def max_gradient(image: NDArray[np.float64]) -> float:
    gy, gx = np.gradient(image)
    return float(np.hypot(gy, gx).max())


@pytest.fixture(scope="module", params=FAMILIES)
def small_set(request: pytest.FixtureRequest) -> list[list[NDArray[np.float64]]]:
    """Grey images of one family: 24 good to learn from, 40 good, 40 defective."""
    family: str = request.param
    kinds = DEFECTS[family]
    return [
        [grey(make_sample(family, "good", seed=i, size=128)) for i in range(24)],
        [grey(make_sample(family, "good", seed=100 + i, size=128)) for i in range(40)],
        [grey(make_sample(family, kinds[i % len(kinds)], seed=200 + i, size=128)) for i in range(40)],
    ]


@pytest.mark.parametrize("statistic", [np.mean, np.std, np.max, np.min, max_gradient])
def test_global_statistics_do_not_tell(
    small_set: list[list[NDArray[np.float64]]], statistic: Callable[[NDArray[np.float64]], float]
) -> None:
    learnt, good, bad = (np.array([statistic(image) for image in part]) for part in small_set)
    value = auroc(good, bad)
    assert max(value, 1 - value) < 0.75
    assert auroc(np.abs(good - learnt.mean()), np.abs(bad - learnt.mean())) < 0.75


def test_random_filters_do_not_tell(small_set: list[list[NDArray[np.float64]]]) -> None:
    """The largest Mahalanobis distance of 16 random rectified 7 × 7 filters."""
    filters = np.random.default_rng(0).normal(size=(49, 16))

    def features(image: NDArray[np.float64]) -> NDArray[np.float64]:
        windows = sliding_window_view(image, (7, 7))[::2, ::2].reshape(-1, 49)
        return np.maximum(windows @ filters, 0)

    learnt, good, bad = ([features(image) for image in part] for part in small_set)
    every = np.concatenate(learnt)
    precision = np.linalg.inv(np.cov(every.T) + 1e-4 * np.eye(16))

    def score(x: NDArray[np.float64]) -> float:
        d = x - every.mean(axis=0)
        return float(np.einsum("nc,cd,nd->n", d, precision, d).max())

    assert auroc(np.array([score(x) for x in good]), np.array([score(x) for x in bad])) < 0.75
