from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from blemish.data.modality import Modality
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.errors import Stopped
from blemish.inspection.detector import Detector
from blemish.inspection.scene_layers import false_colour_bands
from blemish.inspection.scenes import SceneInspection, inspect_scenes
from blemish.observer import Observer
from blemish.report.save_settings import SaveSettings

Make = Callable[..., Detector]
Painting = Callable[..., Path]
EVERYTHING = SaveSettings(("tiff", "zarr", "iiif", "page", "regions"), dpi=254)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, painting: Painting) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    painting(folder / "eve", 0, height=82, width=110)
    return folder


@pytest.fixture(scope="module")
def detector(scenes: Path, make_detector: Make) -> Detector:
    return make_detector(scenes, "fp-cae-add", "patch.stride=32")


@pytest.fixture(scope="module")
def inspected(scenes: Path, detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> SceneInspection:
    """A finished inspection with all files; not to be changed."""
    out = tmp_path_factory.mktemp("inspected")
    return inspect_scenes(detector, scenes, out, reconstruction=True, save=EVERYTHING)


def test_files_hold_the_maps(inspected: SceneInspection) -> None:
    for name in ("residual", "own", "cross"):
        values = inspected.map("eve", name)
        saved = tifffile.imread(inspected.folder / f"tiff/eve/{name}.ome.tif")
        np.testing.assert_array_equal(saved, values)
        array = zarr.open_array(str(inspected.folder / f"zarr/eve/{name}.ome.zarr/0"), mode="r")[...]
        np.testing.assert_array_equal(array, values.reshape(array.shape))
    with tifffile.TiffFile(inspected.folder / "tiff/eve/cross.ome.tif") as file:
        channels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]["Channel"]
    assert [channel["Name"] for channel in channels] == [one.name for one in inspected.records[0].modalities]


def test_reconstructions_are_files_of_their_own(inspected: SceneInspection) -> None:
    whole = inspected.map("eve", "reconstruction")
    names = {"infrared": slice(0, 1), "rgb": slice(1, 4), "xray": slice(4, 5)}
    for name, channels in names.items():
        saved = tifffile.imread(inspected.folder / f"tiff/eve/reconstruction-{name}.ome.tif")
        np.testing.assert_array_equal(saved, whole[channels].squeeze())


def test_layers_of_the_page(inspected: SceneInspection, scenes: Path) -> None:
    page = (inspected.folder / "zoom/eve/index.html").read_text()
    data = json.loads(page.split('<script type="application/json" id="scene">')[1].split("</script>")[0])
    names = [layer["name"] for layer in data["layers"]]
    assert {
        "image-rgb",
        "image-xray",
        "false-colour",
        "reconstruction-infrared",
        "residual",
        "cross-rgb",
    } <= {*names}
    assert all((inspected.folder / "zoom/eve" / name / "info.json").is_file() for name in names)
    assert data["pixel"] == pytest.approx(0.1)
    with SceneReader(find_scenes(scenes)[0]) as reader:
        pixels = reader.read(0, 0, reader.height, reader.width)
    infrared, red, green = pixels[0], pixels[1], pixels[2]
    with Image.open(inspected.folder / "zoom/eve/false-colour/full/max/0/default.jpg") as image:
        shown = np.asarray(image, np.float32) / 255
    assert np.abs(shown - np.stack([infrared, red, green], 2)).mean() < 0.02


def test_files_are_added_to_a_finished_inspection(scenes: Path, detector: Detector, tmp_path: Path) -> None:
    inspect_scenes(detector, scenes, tmp_path)
    assert not (tmp_path / "regions").exists()
    records = (tmp_path / "inspections.jsonl").read_bytes()
    inspect_scenes(detector, scenes, tmp_path, resume=True, save=SaveSettings(("regions", "tiff")))
    assert (tmp_path / "inspections.jsonl").read_bytes() == records
    assert (tmp_path / "regions/eve.geojson").is_file()
    assert (tmp_path / "tiff/eve/residual.ome.tif").is_file()
    inspect_scenes(detector, scenes, tmp_path, overwrite=True)
    assert not (tmp_path / "tiff").exists()
    assert not (tmp_path / "saved.jsonl").exists()


def test_a_stop_while_saving_keeps_the_inspection(scenes: Path, detector: Detector, tmp_path: Path) -> None:
    class Stopping(Observer):
        saving = False

        def stage(self, text: str) -> None:
            self.saving |= text.startswith("Saving")

        def should_stop(self) -> bool:
            return self.saving

    with pytest.raises(Stopped, match="while saving"):
        inspect_scenes(detector, scenes, tmp_path, save=EVERYTHING, observer=Stopping())
    assert len((tmp_path / "inspections.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "report.html").is_file()
    assert not (tmp_path / "tiff").exists()


def test_a_scene_that_is_gone_is_reported(scenes: Path, detector: Detector, tmp_path: Path) -> None:
    source = Path(shutil.copytree(scenes, tmp_path / "scenes"))
    inspect_scenes(detector, source, tmp_path / "out")
    cut = source / "eve/infrared.tif"

    class Cutting(Observer):
        problems: list[Any] = []  # noqa: RUF012

        def stage(self, text: str) -> None:
            if text.startswith("Saving"):
                cut.write_bytes(cut.read_bytes()[:300])

        def problem(self, error: Any) -> None:
            self.problems.append(error)

    observer = Cutting()
    inspect_scenes(
        detector, source, tmp_path / "out", resume=True, save=SaveSettings(("page",)), observer=observer
    )
    (problem,) = observer.problems
    assert problem.path == cut
    assert not (tmp_path / "out/zoom/eve/index.html").exists()


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        ({"rgb": 3, "infrared": 1}, ("infrared", "rgb", "rgb")),
        ({"uv": 3, "visible": 3, "IR": 1}, ("IR", "visible", "visible")),
        ({"band_550nm": 1, "band_640nm": 1, "band_900nm": 1}, ("band_900nm", "band_640nm", "band_550nm")),
        ({"band_550nm": 1, "band_640nm": 1}, None),
        ({"rgb": 3, "xray": 1}, None),
        ({"uv-fluorescence": 3, "infrared": 1}, None),
        ({"infrared": 1}, None),
    ],
)
def test_bands_of_the_false_colour(names: dict[str, int], bands: tuple[str, ...] | None) -> None:
    found = false_colour_bands([Modality(name=name, channels=count) for name, count in names.items()])
    assert (None if found is None else tuple(name for name, _ in found)) == bands


def test_options_reach_the_inspection(
    scenes: Path, detector: Detector, tmp_path: Path, blemish: Callable[..., Any]
) -> None:
    detector.save(tmp_path / "model")
    words = ("inspect", tmp_path / "model", scenes, "--out", tmp_path / "out")
    refused = blemish(*words, "--dpi", "300")
    assert refused.code != 0
    assert "--dpi is for files that are saved" in refused.err
    assert blemish(*words, "--save", "tif").err.count("did you mean 'tiff'") == 1
    ran = blemish(*words, "--save", "page", "--dpi", "300")
    assert f"Page: {tmp_path / 'out/zoom/eve/index.html'}" in ran.out
