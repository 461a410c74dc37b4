"""The generated painting: one surface, five sensors, and masks that tell what each of them shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.image import read_image
from blemish.data.masks import read_mask
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.demo import painting
from blemish.demo.painting import MASKS, MODALITIES, Painting, make_painting, write_painting, write_paintings
from blemish.errors import FileError, UsageError

SEEDS = (0, 1, 4)


@pytest.fixture(scope="module")
def paintings() -> list[Painting]:
    return [make_painting(seed, 256) for seed in SEEDS]


def contrast(image: NDArray[np.float32], mask: NDArray[np.bool_], near: int = 5) -> float:
    """How much brighter (C, H, W) is in ``mask`` than beside it."""
    grey = image.mean(axis=0)
    beside = ndimage.binary_dilation(mask, iterations=near) & ~ndimage.binary_dilation(mask, iterations=2)
    return float(grey[mask].mean() - grey[beside].mean())


@pytest.mark.parametrize("size", [64, 131])
def test_shapes_range_and_determinism(size: int) -> None:
    one, again, other = make_painting(7, size), make_painting(7, size), make_painting(8, size)
    assert {name: image.shape for name, image in one.images.items()} == {
        name: (channels, size, size) for name, channels in MODALITIES.items()
    }
    assert tuple(one.masks) == MASKS
    assert {mask.shape for mask in one.masks.values()} == {(size, size)}
    assert one.stacked.shape == (11, size, size)
    assert one.stacked.dtype == np.float32
    assert one.stacked.min() >= 0
    assert one.stacked.max() <= 1
    np.testing.assert_array_equal(one.stacked, again.stacked)
    for name in MASKS:
        np.testing.assert_array_equal(one.masks[name], again.masks[name])
    assert (one.stacked != other.stacked).mean() > 0.9


def test_everything_is_there_and_nothing_everywhere(paintings: list[Painting]) -> None:
    for one in paintings:
        share = {name: mask.mean() for name, mask in one.masks.items()}
        assert 0.01 < share["craquelure"] < 0.10
        assert 0.02 < share["underdrawing"] < 0.20
        assert 0.05 < share["overpainting"] < 0.35
        assert 0.003 < share["losses"] < 0.08
        for image in one.images.values():
            assert image.std() > 0.04


def test_all_sensors_see_the_cracks(paintings: list[Painting]) -> None:
    for one in paintings:
        for name in MODALITIES:
            assert contrast(one.images[name], one.masks["craquelure"]) < -0.01, name


def test_cracks_are_a_network_of_thin_lines(paintings: list[Painting]) -> None:
    for one in paintings:
        mask = one.masks["craquelure"]
        assert not ndimage.binary_erosion(mask, iterations=4).any()
        pieces, count = ndimage.label(mask, np.ones((3, 3)))
        longest = max(
            np.hypot(*(part.stop - part.start for part in found)) for found in ndimage.find_objects(pieces)
        )
        assert longest > 60
        assert count < 400


@pytest.mark.parametrize("seed", SEEDS)
def test_infrared_alone_sees_the_underdrawing_through_the_overpainting_too(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = make_painting(seed, 128)
    monkeypatch.setattr(painting, "_underdrawing", lambda canvas, layers: 0 * canvas.x)
    undrawn = make_painting(seed, 128)
    for name in set(MODALITIES) - {"infrared"}:
        np.testing.assert_array_equal(drawn.images[name], undrawn.images[name])
    darker = (undrawn.images["infrared"] - drawn.images["infrared"])[0]
    assert darker.min() > -1e-6
    for part in (drawn.masks["overpainting"], ~drawn.masks["overpainting"]):
        lines = drawn.masks["underdrawing"] & part
        assert lines.sum() > 50
        assert np.quantile(darker[lines], 0.75) > 0.03
    assert not undrawn.masks["underdrawing"].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_infrared_and_xray_alone_see_what_was_painted_over(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painting, "_underdrawing", lambda canvas, layers: 0 * canvas.x)
    with_it = make_painting(seed, 128)
    compose = painting._compose

    def without(*arguments: Any) -> Any:
        _, seen = compose(*arguments)
        return seen.layers, seen

    monkeypatch.setattr(painting, "_compose", without)
    without_it = make_painting(seed, 128)
    covered = with_it.masks["overpainting"]
    away = ~ndimage.binary_dilation(covered, iterations=6)
    for name in MODALITIES:
        change = np.abs(with_it.images[name] - without_it.images[name]).max(axis=0)
        if name in ("infrared", "xray"):
            assert change[covered].mean() > 0.02, name
            assert change[away].max() < 1e-4, name
        else:
            assert change.max() == 0, name


def test_losses_are_bare_in_the_photograph_and_dark_in_ultraviolet_and_xray(
    paintings: list[Painting],
) -> None:
    for one in paintings:
        losses, images = one.masks["losses"], one.images
        assert contrast(images["visible"], losses) > 0.05
        assert contrast(images["ultraviolet"], losses) < -0.05
        assert contrast(images["xray"], losses) < -0.05
        assert abs(contrast(images["before"], losses)) < contrast(images["visible"], losses) / 2


def test_the_varnish_is_yellow(paintings: list[Painting]) -> None:
    for one in paintings:
        visible, before = (
            one.images[name][:, ~one.masks["losses"]].mean(axis=1) for name in ("visible", "before")
        )
        red, green, blue = before / visible
        assert blue < green < red < 1


def test_a_larger_painting_has_more_cracks_and_the_same_composition() -> None:
    small, large = make_painting(2, 128), make_painting(2, 384)
    assert large.masks["overpainting"].mean() == pytest.approx(small.masks["overpainting"].mean(), abs=0.05)
    assert large.masks["craquelure"].sum() > 4 * small.masks["craquelure"].sum()


def test_a_written_painting_is_the_scene_that_it_says(tmp_path: Path) -> None:
    folder = write_painting(tmp_path / "scene", seed=3, size=80)
    one = make_painting(3, 80)
    (scene,) = find_scenes(folder)
    assert [(known.name, known.channels) for known in scene.modalities] == list(MODALITIES.items())
    with SceneReader(scene) as reader:
        assert reader.depths == {
            "visible": "uint8", "before": "uint8", "infrared": "uint16", "xray": "uint16", "ultraviolet": "uint8"
        }  # fmt: skip
        seen = reader.read(0, 0, 80, 80)
    np.testing.assert_allclose(seen, one.stacked, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(seen[6:8], one.stacked[6:8], atol=0.5 / 65535 + 1e-6)
    for name in MASKS:
        mask = read_mask(folder / "masks" / f"{name}.png", size=read_image(folder / "visible.tif").size)
        np.testing.assert_array_equal(mask, one.masks[name])


def test_several_are_scenes_of_one_description_and_the_same_bytes_again(tmp_path: Path) -> None:
    first, second = (write_paintings(tmp_path / name, 2, seed=5, size=64) for name in ("a", "b"))
    assert [scene.name for scene in find_scenes(first)] == ["painting-000", "painting-001"]
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 2 * (len(MODALITIES) + len(MASKS)) + 1
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes()
    alone = write_painting(tmp_path / "c", seed=6, size=64)
    assert (alone / "xray.tif").read_bytes() == (first / "painting-001" / "xray.tif").read_bytes()


def test_what_cannot_be_drawn_or_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="size >= 64, not seed 0, size 63"):
        make_painting(0, 63)
    with pytest.raises(UsageError, match="seed -1"):
        make_painting(-1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    for write in (lambda: write_painting(tmp_path / "full"), lambda: write_paintings(tmp_path / "full", 1)):
        with pytest.raises(FileError, match=r"full: is there already; name a new folder"):
            write()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["note.txt"]
