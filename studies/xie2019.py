"""Xie, Meeus, Pižurica 2019: partial convolutions against edge artefacts, and sensors apart or together.

Table 1 sets four stacked autoencoders side by side, Table 2 the stacked one beside two with an encoder and a
decoder for each modality, Figure 6 what becomes of SSIM near the corners of a patch. A data set is a folder with
scenes in ``train/``, of each of which the left half is for training and the right half for test, as in the paper,
and perhaps others in ``test/``, of which nothing is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
import yaml
from numpy.typing import NDArray

from blemish.data.modality import Modality
from blemish.data.open_scenes import open_scenes
from blemish.data.scene_description import MODALITIES_FILE
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.demo.painting import write_paintings
from blemish.errors import FileError, Stopped
from blemish.evaluation.compare import fit_once
from blemish.observer import Observer
from blemish.recipes import Recipe, load_recipe, override
from blemish.report.numbers import counted
from blemish.storage.atomic import atomic_folder, atomic_path, write_text
from blemish.training.try_recipe import check_recipe
from studies.protocol import Request, document, draw_curves, finish, rises_in_words
from studies.result import StudyResult
from studies.xie2019_figures import draw_corners, draw_crossed, draw_patches
from studies.xie2019_measures import (
    WINDOW,
    Fit,
    Material,
    Results,
    crossed_baselines,
    cut,
    fit_record,
    histories_by_row,
    measure_baselines,
    measure_fit,
)
from studies.xie2019_page import baselines_section, page, rises_section
from studies.xie2019_rows import CLAIMS, PAPER, ROWS, Row


class Length(NamedTuple):
    """Amounts of generated images, where no data set is given, of training and of measurements."""

    paintings: int
    unseen: int
    size: int
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    patches: int
    """Test patches of all scenes together, at most."""


FULL = Length(
    paintings=4,
    unseen=2,
    size=1024,
    settings=("training.steps=20000", "training.validate_every=1000"),
    seeds=(0, 1, 2),
    patches=4096,
)
# Small batches make more of a short training; the paper does not give its own. About half an hour of one core for six
# scenes of 512 × 512 pixels and eleven channels.
WITHOUT_GPU = FULL._replace(
    paintings=3,
    unseen=1,
    size=512,
    settings=("training.batch=16", "training.steps=700", "training.validate_every=100"),
    patches=1024,
)
QUICK = WITHOUT_GPU._replace(
    paintings=2,
    size=256,
    settings=("training.batch=16", "training.steps=400", "training.validate_every=100"),
    seeds=(0,),
    patches=128,
)
_ROWS_AT_ONCE = 256


def run(
    out: Path,
    *,
    data: Path | None,
    quick: bool,
    seeds: tuple[int, ...] | None,
    settings: tuple[str, ...],
    observer: Observer,
) -> StudyResult:
    """Write ``xie2019[-DATASET][-quick]`` ``.json``, ``.md``, ``-corners.png``, ``-curves.png`` and images to ``out``.

    Patches and their reconstructions (``.png``) and modalities from the others (``-crossed.png``) show test images;
    those of a data set stay in the work folder.
    """
    request = Request("xie2019", out, data, quick, seeds, settings)
    length = request.length(QUICK, FULL, WITHOUT_GPU)
    chosen = seeds or length.seeds
    recipes = {row.name: _recipe(row, (*length.settings, *settings)) for row in ROWS}
    source = data or _generated(request.work, length, observer)
    patch = recipes[ROWS[0].name].patch.size
    readers, modalities, sha256 = opened_scenes(source, patch, observer)
    for recipe in recipes.values():
        check_recipe(recipe, modalities)
    left = _left_halves(request.work / f"left-{sha256[:16]}", readers, observer)
    halves = [(reader, slice(reader.width // 2, reader.width)) for reader in readers]
    unseen = [(reader, slice(0, reader.width)) for reader in _unseen(source, modalities, observer)]
    tested = tested_patches(source, readers, modalities, patch, length.patches, observer)
    if not len(tested.halves.pixels):
        raise FileError(
            source, "has no test patch that all sensors saw", "crop the scenes to the area that they cover"
        )

    fits: list[Fit] = []
    for seed in chosen:
        for row in ROWS:
            if observer.should_stop():
                raise Stopped(f"stopped after {counted(len(fits), 'fit')}, which are finished")
            title = f"{row.name}, seed {seed}"
            model = request.work / "models" / f"{row.name}-{seed}"
            recipe = override(recipes[row.name], [f"training.seed={seed}"])
            detector = fit_once(left, recipe, model, title=title, observer=observer)
            observer.stage(f"Measuring {title}")
            fits.append(measure_fit(row, seed, detector, modalities, tested))
    results = Results(request, tuple(chosen), modalities, tested, fits)
    comparisons = [results.compare(claim) for claim in CLAIMS]
    training = training_patches(readers, patch, length.patches)
    baselines = measure_baselines(tested, training, modalities)
    from_others = crossed_baselines(tested, training, modalities)
    figures = document(
        request,
        paper=PAPER,
        seeds=chosen,
        length=length._asdict(),
        modalities=[{"name": one.name, "channels": one.channels, "grey": one.is_grey} for one in modalities],
        patch=patch,
        panels={reader.name: [reader.height, reader.width] for reader in readers},
        test_patches=len(tested.halves.pixels),
        unseen_patches=len(tested.unseen.pixels),
        rows=[fit_record(fit, modalities) for fit in fits],
        baselines=baselines,
        baselines_from_others=from_others,
        local={
            "window": WINDOW,
            "distance": list(range(2 * ((patch - WINDOW) // 2) + 1)),
            "ssim": {row.name: results.by_distance(row.name).mean(axis=0).tolist() for row in ROWS},
        },
        claims=[
            {**claim._asdict(), **comparison._asdict()}
            for claim, comparison in zip(CLAIMS, comparisons, strict=True)
        ],
        published={row.name: row.published for row in ROWS if row.published is not None},
    )
    drawn = (
        draw_corners(request.file("-corners.png"), results),
        draw_curves(request.file("-curves.png"), histories_by_row(fits)),
        draw_patches(request.image(".png"), results),
        draw_crossed(request.image("-crossed.png"), results, (unseen or halves)[0]),
    )
    rises = rises_in_words([(row["row"], row) for row in figures["rows"]])
    text = page(results, recipes, readers, comparisons) + rises_section(rises) + baselines_section(figures)
    return finish(request, figures, text, drawn)


# -- scenes and test patches ---------------------------------------------------------------------------


def _generated(work: Path, length: Length, observer: Observer) -> Path:
    """``train/`` and ``test/`` of generated paintings, drawn into ``work`` unless they are there."""
    folder = work / f"paintings-{length.paintings}-{length.unseen}-{length.size}"
    if not folder.exists():
        observer.stage(f"Drawing {length.paintings + length.unseen} paintings")
        with atomic_folder(folder) as temporary:
            write_paintings(temporary / "train", length.paintings, size=length.size)
            write_paintings(temporary / "test", length.unseen, seed=length.paintings, size=length.size)
    return folder


def _recipe(row: Row, settings: Sequence[str]) -> Recipe:
    # Nothing is decided here, and few squares are left to calibrate a decision on.
    undecided = ("threshold.rule=fixed", "threshold.value=1")
    return override(load_recipe(row.recipe), [*undecided, *row.settings, *settings])


def tested_patches(
    source: Path,
    readers: Sequence[SceneReader],
    modalities: Sequence[Modality],
    patch: int,
    most: int,
    observer: Observer,
) -> Material:
    """Test patches, ``most`` of each kind: of the right halves, and of the scenes in ``source/test``."""
    halves = [(reader, slice(reader.width // 2, reader.width)) for reader in readers]
    unseen = [(reader, slice(0, reader.width)) for reader in _unseen(source, modalities, observer)]
    return Material(halves=cut(halves, patch, most), unseen=cut(unseen, patch, most))


def opened_scenes(
    source: Path, patch: int, observer: Observer
) -> tuple[tuple[SceneReader, ...], tuple[Modality, ...], str]:
    """The scenes of ``source/train``, complete and large enough for a half to be divided, and their fingerprint.

    Raises
    ------
    FileError
        Naming the folder.
    """
    if not (source / "train").is_dir():
        raise FileError(
            source, "has no train folder", "lay it out as train/ and perhaps test/, with scenes in each"
        )
    opened = open_scenes(source / "train", patch=patch, observer=observer)
    for reader in opened.readers:
        _refuse_incomplete(reader)
        if reader.width // 2 < 3 * patch:
            raise FileError(
                reader.scene.folder,
                f"is {reader.width} pixels wide, too few for patches of {patch} in each of three parts of a half",
                f"give scenes of {6 * patch} pixels at least, or leave it out",
            )
    return opened.readers, opened.modalities, opened.fingerprint.sha256


def _refuse_incomplete(reader: SceneReader) -> None:
    if reader.missing:
        raise FileError(
            reader.scene.folder,
            f"has no {', '.join(reader.missing)}, which the autoencoder of normal convolutions cannot do without",
            "leave the scene out",
        )


def _unseen(source: Path, modalities: Sequence[Modality], observer: Observer) -> list[SceneReader]:
    if not (source / "test").is_dir():
        return []
    readers = [SceneReader(scene) for scene in find_scenes(source / "test", modalities)]
    for reader in readers:
        _refuse_incomplete(reader)
        for notice in reader.notices:
            observer.stage(f"{reader.name}: {notice}")
    return readers


def training_patches(readers: Sequence[SceneReader], patch: int, most: int) -> NDArray[np.float32]:
    """Patches of the left halves of the scenes, which are trained on."""
    return cut([(reader, slice(0, reader.width // 2)) for reader in readers], patch, most).pixels


def _left_halves(folder: Path, readers: Sequence[SceneReader], observer: Observer) -> Path:
    """The left half of each scene as a scene of its own, float32, written to ``folder`` unless it is there."""
    if folder.exists():
        return folder
    observer.stage("Writing the left halves, which are trained on")
    listed = [
        {"name": one.name, "file": f"{place}.tif", "channels": one.channels, "grey": one.grey}
        for place, one in enumerate(readers[0].modalities)
    ]
    with atomic_folder(folder) as temporary:
        for done, reader in enumerate(readers, start=1):
            _write_half(temporary / reader.name, reader)
            observer.count(done, len(readers))
        write_text(temporary / MODALITIES_FILE, yaml.safe_dump({"modalities": listed}, sort_keys=False))
    return folder


def _write_half(folder: Path, reader: SceneReader) -> None:
    """A TIFF a modality, filled by rows of windows, so that the scene is never whole in memory."""
    width, first = reader.width // 2, 0
    for place, modality in enumerate(reader.modalities):
        channels = slice(first, first + modality.channels)
        first = channels.stop
        with atomic_path(folder / f"{place}.tif") as partial:
            pixels = tifffile.memmap(
                partial,
                shape=(modality.channels, reader.height, width),
                dtype=np.float32,
                photometric="minisblack",
                planarconfig="separate" if modality.channels > 1 else None,
                metadata=None,
            )
            for top in range(0, reader.height, _ROWS_AT_ONCE):
                rows = min(_ROWS_AT_ONCE, reader.height - top)
                window = reader.read(top, 0, rows, width)[channels]
                pixels.reshape(modality.channels, reader.height, width)[:, top : top + rows] = window
            pixels.flush()
            del pixels
