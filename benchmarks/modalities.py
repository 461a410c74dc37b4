"""Prediction of each modality from the others, beside a constant and linear regression; seeds 0, 1 and 2.

    python benchmarks/modalities.py
    python benchmarks/modalities.py --panels cave_panels/

Two sets of scenes, one a run; the results file keeps the other. Real panels (`--panels`, with train/ and test/): SSIM of each modality of the test scenes, predicted
from the others. Generated paintings with known hidden layers: the same, and per pixel AUROC and average precision of
what a modality shows and the others do not predict, against the masks of the layers. Linear regression is fitted on the
columns that the recipe trains on; its map is the absolute difference, smoothed by a Gaussian of 2 pixels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.masks import read_mask
from blemish.data.modality import Modality, channel_slices
from blemish.data.open_scenes import open_scenes
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.decision.metrics import average_precision, roc_auc
from blemish.demo.painting import write_paintings
from blemish.detectors.factory import networks
from blemish.models.modal_similarity import modal_ssim
from blemish.observer import Observer
from blemish.storage.atomic import write_json, write_text
from blemish.training.fit import fit

Floats = NDArray[np.float32]
PATCH, PATCHES = 32, 256
SIGMA = 2.0
TRUTHS = {
    "overpainting in infrared": ("overpainting", "infrared"),
    "overpainting in the X-ray": ("overpainting", "xray"),
    "underdrawing in infrared": ("underdrawing", "infrared"),
    "losses in the photograph": ("losses", "visible"),
}


def linear_predictions(
    train: list[Floats], test: list[Floats], modalities: tuple[Modality, ...]
) -> list[Floats]:
    """Least squares of the channels of each modality on those of the others."""
    flat = np.concatenate([one.reshape(len(one), -1) for one in train], 1).T.astype(np.float64)
    mean = flat.mean(0)
    found = [np.empty_like(one) for one in test]
    for own in channel_slices(modalities):
        others = [number for number in range(flat.shape[1]) if not own.start <= number < own.stop]
        weights = np.linalg.lstsq(flat[:, others] - mean[others], flat[:, own] - mean[own], rcond=1e-9)[0]
        for one, predicted in zip(test, found, strict=True):
            shown = one[others].reshape(len(others), -1).T - mean[others]
            predicted[own] = (shown @ weights + mean[own]).T.reshape(predicted[own].shape)
    return found


def similarity(
    images: list[Floats], made: list[Floats] | None, modalities: tuple[Modality, ...]
) -> dict[str, float]:
    """Mean SSIM of each modality on 256 patches; without ``made``, of the mean of each patch."""
    rng = np.random.default_rng(1)
    shown, predicted = [], []
    for _ in range(PATCHES):
        number = int(rng.integers(len(images)))
        top, left = (int(rng.integers(side - PATCH + 1)) for side in images[number].shape[1:])
        window = (slice(None), slice(top, top + PATCH), slice(left, left + PATCH))
        shown.append(images[number][window])
        predicted.append(
            np.broadcast_to(shown[-1].mean((1, 2), keepdims=True), shown[-1].shape)
            if made is None
            else made[number][window].clip(0, 1)
        )
    x, y = (torch.from_numpy(np.stack(part).astype(np.float32)) for part in (shown, predicted))
    found = modal_ssim(x, y, modalities, data_range=1.0).ssim.mean(0).tolist()
    return dict(zip((one.name for one in modalities), found, strict=True))


def ranked(truth: list[NDArray[Any]], maps: list[Floats]) -> dict[str, float]:
    """AUROC and average precision per pixel."""
    labels, values = (np.concatenate([one.ravel() for one in part]) for part in (truth, maps))
    return {"auroc": roc_auc(labels, values), "ap": average_precision(labels, values)}


def summed_up(runs: list[dict[str, float]]) -> dict[str, list[float]]:
    """Mean, lowest and highest of each figure over the seeds."""
    return {
        key: [statistics.mean(values), min(values), max(values)]
        for key in runs[0]
        for values in [[run[key] for run in runs]]
    }


def measured(train: Path, test: Path, recipe: str, seeds: list[int], settings: list[str]) -> dict[str, Any]:
    """Figures of one set of scenes."""
    opened = open_scenes(train, patch=PATCH, observer=Observer())
    fitted_on = []
    for reader, bands in zip(opened.readers, opened.bands, strict=True):
        columns = bands.train
        fitted_on.append(reader.read(0, columns.start, reader.height, columns.stop - columns.start))
    readers = [SceneReader(scene) for scene in find_scenes(test, opened.modalities)]
    images = [reader.read(0, 0, reader.height, reader.width) for reader in readers]
    modalities = opened.modalities
    linear = linear_predictions(fitted_on, images, modalities)
    masks: dict[str, list[NDArray[Any]]] = {}
    for title, (mask, _) in TRUTHS.items():
        paths = [reader.scene.folder / "masks" / f"{mask}.png" for reader in readers]
        if all(path.is_file() for path in paths):
            masks[title] = [
                read_mask(path, size=(reader.width, reader.height))
                for path, reader in zip(paths, readers, strict=True)
            ]
    names = [one.name for one in modalities]
    slices = channel_slices(modalities)

    def linear_map(name: str) -> list[Floats]:
        own = slices[names.index(name)]
        return [
            ndimage.gaussian_filter(np.abs(made[own] - image[own]).mean(0), SIGMA)
            for made, image in zip(linear, images, strict=True)
        ]

    similar, truths = [], {title: list[dict[str, float]]() for title in masks}
    for seed in seeds:
        detector = fit(
            train,
            recipe,
            settings=[f"training.seed={seed}", "threshold.rule=fixed", "threshold.value=1", *settings],
        )
        maps = [detector.model.maps(image) for image in images]
        blind = any(
            getattr(one.encoder, "predicts_from_others", False) for one in networks(detector.model).values()
        )
        made = []
        for image, found in zip(images, maps, strict=True):
            assert found.reconstruction is not None
            if blind:  # its reconstruction of a modality is the prediction from the others
                made.append(found.reconstruction)
                continue
            predicted = np.empty_like(image)
            for own in slices:
                hidden = detector.model.maps(image, hidden=[own]).reconstruction
                assert hidden is not None
                predicted[own] = hidden[own]
            made.append(predicted)
        similar.append(similarity(images, made, modalities))
        for title in masks:
            planes = [found.cross for found in maps]
            place = names.index(TRUTHS[title][1])
            truths[title].append(
                ranked(masks[title], [plane[place] for plane in planes if plane is not None])
            )
        print(
            recipe, "seed", seed, similar[-1], {title: runs[-1] for title, runs in truths.items()}, flush=True
        )
    return {
        "scenes": [reader.name for reader in readers],
        "ssim": {
            "constant": similarity(images, None, modalities),
            "linear regression": similarity(images, linear, modalities),
            recipe: summed_up(similar),
        },
        "truth": {
            title: {
                "linear regression": ranked(masks[title], linear_map(TRUTHS[title][1])),
                recipe: summed_up(truths[title]),
            }
            for title in masks
        },
    }


def markdown(figures: dict[str, Any]) -> str:
    """Tables of the results: SSIM of predictions by modality, and how layers that are known stand out."""
    text = ""
    for name, title in (("panels", "Real scenes"), ("paintings", "Generated paintings")):
        if name not in figures:
            continue
        one = figures[name]
        recipe = one["recipe"]
        command = "python benchmarks/modalities.py" + (" --panels cave_panels/" if name == "panels" else "")
        command += "".join(f" --set {setting}" for setting in one["settings"])
        text += f"**{title}**: {', '.join(one['scenes'])} (`{command}`), {len(one['seeds'])} seeds:\n\n"
        text += f"| SSIM from the others | constant | linear regression | `{recipe}` |\n| --- | ---: | ---: | ---: |\n"
        for modality, found in one["ssim"][recipe].items():
            free = [one["ssim"][way][modality] for way in ("constant", "linear regression")]
            text += f"| {modality} | {free[0]:.4f} | {free[1]:.4f} | {_in_words(found, 4)} |\n"
        if one["truth"]:
            text += "\n| what the others do not show | measure | linear regression | `" + recipe + "` |\n"
            text += "| --- | --- | ---: | ---: |\n"
        for layer, found in one["truth"].items():
            for measure, words in (("auroc", "AUROC"), ("ap", "average precision")):
                free, ours = found["linear regression"][measure], found[recipe][measure]
                text += f"| {layer} | {words} | {free:.3f} | {_in_words(ours, 3)} |\n"
        text += "\n"
    return text.rstrip("\n") + "\n"


def _in_words(found: Sequence[float], digits: int) -> str:
    """Mean, and range."""
    mean, low, high = (f"{value:.{digits}f}" for value in found)
    return f"{mean} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--panels", type=Path, help="folder of train/ and test/, each with scenes")
    parser.add_argument("--recipe", default="other-pixels")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--size", type=int, default=256, help="side of the generated paintings")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/modalities.json"))
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    figures: dict[str, Any] = {}
    if arguments.out.is_file():
        figures = json.loads(arguments.out.read_text(encoding="utf-8"))
    facts = {"recipe": arguments.recipe, "seeds": seeds, "settings": arguments.settings}
    if arguments.panels:
        train, test = arguments.panels / "train", arguments.panels / "test"
        figures["panels"] = {**facts, **measured(train, test, arguments.recipe, seeds, arguments.settings)}
    else:
        with tempfile.TemporaryDirectory() as folder:
            train, test = Path(folder) / "train", Path(folder) / "test"
            write_paintings(train, 4, size=arguments.size)
            write_paintings(test, 4, seed=4, size=arguments.size)
            figures["paintings"] = {
                **facts,
                **measured(train, test, arguments.recipe, seeds, arguments.settings),
            }
    write_json(arguments.out, figures)
    write_text(arguments.out.with_suffix(".md"), markdown(figures))


if __name__ == "__main__":
    main()
