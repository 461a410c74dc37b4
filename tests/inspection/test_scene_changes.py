from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from blemish.errors import ImageError, Stopped, UsageError
from blemish.inspection import scene_changes
from blemish.inspection.scene_changes import compare_dates
from blemish.observer import Observer
from blemish.report.save_settings import SaveSettings

HEIGHT, WIDTH = 330, 420
SHIFT = 7.4, -4.7
CHANGED = (slice(150, 190), slice(220, 280))


def _surface(seed: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    total = sum(ndimage.gaussian_filter(rng.random((height, width)), sigma) * sigma for sigma in (1.5, 4, 12))
    return np.asarray((total - total.min()) / (total.max() - total.min()))


def _write(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for name, image in images.items():
        tifffile.imwrite(folder / f"{name}.tif", (65535 * image.clip(0, 1)).astype(np.uint16))
    return folder


@pytest.fixture(scope="module")
def dates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two dates of a scene: the second displaced, darker and noisy, with one place retouched in both images."""
    root = tmp_path_factory.mktemp("dates")
    rng = np.random.default_rng(9)
    margin = 20
    whole = {
        name: _surface(seed, HEIGHT + 2 * margin, WIDTH + 2 * margin)
        for seed, name in enumerate(("infrared", "visible"))
    }
    inside = (slice(margin, -margin), slice(margin, -margin))
    before = {name: image[inside] for name, image in whole.items()}
    after = {}
    for name, image in whole.items():
        image = image.copy()
        place = image[inside][CHANGED]
        place[...] = ndimage.gaussian_filter(place, 4) + 0.02
        moved = ndimage.shift(image, (-SHIFT[1], -SHIFT[0]), order=3)[inside]
        after[name] = 0.75 * moved + 0.05 + rng.normal(0, 0.004, moved.shape)
    return _write(root / "2019" / "eve", before), _write(root / "2026" / "eve", after)


@pytest.fixture(scope="module")
def compared(dates: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished comparison with all files, in blocks of 128; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_changes, "BLOCK", 128)
        out = tmp_path_factory.mktemp("compared")
        return compare_dates(*dates, out, save=SaveSettings(("page", "tiff", "regions"), dpi=254))


def saved(folder: Path, name: str) -> np.ndarray:
    return np.asarray(tifffile.imread(folder / f"tiff/eve/{name}.ome.tif"))


def test_the_second_date_is_registered(compared: Any, dates: tuple[Path, Path]) -> None:
    figures = json.loads((compared.folder / "changes.json").read_text())
    matrix = np.array(figures["registration"]["matrix"])
    # Before at (x, y) is after at (x - dx, y - dy).
    middle = matrix @ [WIDTH / 2, HEIGHT / 2, 1] - [WIDTH / 2, HEIGHT / 2]
    np.testing.assert_allclose(middle, [-SHIFT[0], -SHIFT[1]], atol=0.3)
    before = tifffile.imread(dates[0] / "visible.tif") / 65535
    registered = saved(compared.folder, "after-visible")
    there = np.isfinite(registered)
    assert 0.9 < there.mean() < 1
    assert np.corrcoef(before[there], registered[there])[0, 1] > 0.98


def test_maps_find_the_retouched_place_better_than_the_difference(compared: Any) -> None:
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[CHANGED] = True

    def found(values: np.ndarray) -> float:
        there = np.isfinite(values)
        return float(roc_auc_score(truth[there], values[there]))

    baseline = [found(plane) for plane in saved(compared.folder, "difference")]
    structure = [found(plane) for plane in saved(compared.folder, "structure")]
    assert min(structure) > max(baseline) + 0.05
    assert found(saved(compared.folder, "change")) > max(baseline) + 0.05
    regions = json.loads((compared.folder / "regions/eve.geojson").read_text())["features"]
    x, y, width, height = regions[0]["properties"]["box"]
    assert CHANGED[1].start - 8 <= x <= x + width <= CHANGED[1].stop + 8
    assert CHANGED[0].start - 8 <= y <= y + height <= CHANGED[0].stop + 8
    assert regions[0]["properties"]["square_millimetres"] == pytest.approx(
        regions[0]["properties"]["pixels"] * 0.01
    )


@pytest.mark.slow
def test_blocks_leave_no_seam(compared: Any, dates: tuple[Path, Path], tmp_path: Path) -> None:
    """Blocks of 128 pixels, and one block for all, give the same maps."""
    compare_dates(*dates, tmp_path, save=SaveSettings(("tiff",)))
    for name in ("change", "structure", "grey", "difference"):
        np.testing.assert_allclose(
            saved(tmp_path, name), saved(compared.folder, name), atol=1e-3, equal_nan=True
        )


def test_figures_stand_beside_their_baseline(compared: Any) -> None:
    for one in compared.modalities:
        assert one.similarity > 0.9
        assert one.grey < 0.5 * one.difference, "exposure and displacement are no change"
    assert "absolute difference" in compared.in_words()
    page = (compared.folder / "zoom/eve/index.html").read_text()
    for words in (
        "visible, before",
        "visible, after",
        "infrared, structure",
        "infrared, absolute difference",
    ):
        assert words in page


@pytest.mark.slow
def test_a_stopped_comparison_goes_on(
    dates: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_changes, "BLOCK", 128)

    class Stopping(Observer):
        asked = 0

        def should_stop(self) -> bool:
            self.asked += 1
            return self.asked > 3

    out, whole = tmp_path / "out", tmp_path / "whole"
    given: Any = {"save": SaveSettings(("tiff",)), "motion": "none"}
    with pytest.raises(Stopped, match="3 of 12 blocks"):
        compare_dates(*dates, out, **given, observer=Stopping())
    with pytest.raises(UsageError, match="already holds what blemish changes made"):
        compare_dates(*dates, out, **given)
    with pytest.raises(UsageError, match="another motion"):
        compare_dates(*dates, out, resume=True)
    compare_dates(*dates, out, **given, resume=True)
    compare_dates(*dates, whole, **given)
    np.testing.assert_array_equal(saved(out, "change"), saved(whole, "change"))


def test_equal_dates_show_no_change(dates: tuple[Path, Path], tmp_path: Path) -> None:
    done = compare_dates(dates[0], dates[0], tmp_path, motion="none", save=SaveSettings(("regions",)))
    assert done.regions == 0
    assert all(one.similarity == pytest.approx(1, abs=1e-4) for one in done.modalities)


def test_dates_that_do_not_fit_are_refused(dates: tuple[Path, Path], tmp_path: Path) -> None:
    other = _write(
        tmp_path / "other", {"visible": _surface(77, HEIGHT, WIDTH), "infrared": _surface(78, HEIGHT, WIDTH)}
    )
    with pytest.raises(ImageError, match="cannot be registered") as caught:
        compare_dates(dates[0], other, tmp_path / "a", motion="translation")
    assert "\n" not in str(caught.value)
    renamed = _write(tmp_path / "renamed", {"uv": np.zeros((9, 9)), "xray": np.ones((9, 9))})
    with pytest.raises(ImageError, match=r"no modality in common with .*infrared, visible"):
        compare_dates(dates[0], renamed, tmp_path / "b")
    wide = _write(tmp_path / "wide", {"visible": _surface(1, 100, 400), "infrared": _surface(2, 100, 400)})
    with pytest.raises(ImageError, match="not 420 × 330 at another resolution"):
        compare_dates(dates[0], wide, tmp_path / "c", motion="none")


def test_the_command(dates: tuple[Path, Path], tmp_path: Path, blemish: Callable[..., Any]) -> None:
    files = [folder / "visible.tif" for folder in dates]
    ran = blemish(
        "changes", *files, "--out", tmp_path / "out", "--motion", "translation", "--save", "regions", "--json"
    )
    assert ran.code == 0, ran.err
    figures = json.loads(ran.out)
    assert [one["name"] for one in figures["modalities"]] == ["image"]
    assert (tmp_path / "out/regions/visible.geojson").is_file()
    ran = blemish("changes", *files, "--out", tmp_path / "page", "--motion", "none")
    assert f"Page: {tmp_path / 'page/zoom/visible/index.html'}" in ran.out
    assert (tmp_path / "page/zoom/visible/index.html").is_file()
    ran = blemish("changes", dates[0], dates[0].parents[1], "--out", tmp_path / "several")
    assert ran.code != 0
    assert "Traceback" not in ran.err
