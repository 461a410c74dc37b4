"""The guide to an exported folder, held by programs that are written from its text alone.

What :class:`Folder` computes takes nothing from Blemish: numpy, the graphs, and the steps that the guide lists.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

import blemish
from blemish.export.export_model import export_model, exported_detector
from blemish.export.parts import Parts
from blemish.inspection.detector import Detector
from blemish.observer import Observer
from blemish.training.fit import fit

COLOUR = (
    "memory={name: features, by_place: true, reach: 0, share: 0.6, "
    "features: [{name: structure, patch: 8}, {name: colour}]}"
)

Floats = NDArray[np.floating[Any]]
Draw = Callable[..., NDArray[np.uint8]]


# -- the conventions of the guide ----------------------------------------------------------------------


def correlated(x: Floats, weights: Floats, axis: int) -> Floats:
    reach = len(weights) // 2
    widths = [(reach, reach) if one == axis else (0, 0) for one in range(x.ndim)]
    padded = np.pad(x, widths, mode="symmetric")
    size = x.shape[axis]
    return sum(
        weight * np.take(padded, range(start, start + size), axis) for start, weight in enumerate(weights)
    )


def gaussian(x: Floats, sigma: float, reach: int, order: tuple[int, int] = (0, 0)) -> Floats:
    at = np.arange(-reach, reach + 1)
    weights = np.exp(-(at**2) / (2 * sigma**2))
    weights /= weights.sum()
    kernels = (weights, weights * at / sigma**2, weights * (at**2 / sigma**4 - 1 / sigma**2))
    return correlated(correlated(x, kernels[order[0]], x.ndim - 2), kernels[order[1]], x.ndim - 1)


def matrix(of: int, to: int) -> Floats:
    scale = of / to
    new, old = np.arange(to)[:, None], np.arange(of)
    weights = np.maximum(0, 1 - np.abs(old + 0.5 - (new + 0.5) * scale) / max(1, scale))
    return weights / weights.sum(1, keepdims=True)


def resampled(x: Floats, height: int, width: int) -> Floats:
    return matrix(x.shape[-2], height) @ x @ matrix(x.shape[-1], width).T


def cells(x: Floats, n: int, by: Callable[..., Floats]) -> Floats:
    height, width = x.shape[0] // n, x.shape[1] // n
    return by(x.reshape(height, n, width, n), axis=(1, 3))


class Folder:
    """An exported folder for ONNX Runtime, used by the steps of its guide."""

    def __init__(self, path: Path) -> None:
        self.text = (path / "README.md").read_text(encoding="utf-8")
        self.settings = json.loads((path / "settings.json").read_text(encoding="utf-8"))
        self.arrays = {
            name: one.astype(np.float64) for name, one in load_file(path / "model.safetensors").items()
        }
        self.sessions = {one.name: onnxruntime.InferenceSession(one) for one in path.glob("*.onnx")}

    def run(self, graph: str, name: str, values: Floats) -> Floats:
        (found,) = self.sessions[graph].run(None, {name: np.ascontiguousarray(values, np.float32)})
        return np.asarray(found, np.float64)

    def number(self, pattern: str, text: str | None = None) -> float:
        """The number that the guide states in a sentence."""
        found = re.search(pattern, self.text if text is None else text)
        assert found is not None, pattern
        return float(found[1])

    def preprocessed(self, pixels: NDArray[Any]) -> Floats:
        """Of an image (C, H, W)."""
        own = self.settings
        assert pixels.dtype == own["pixel_type"]
        assert len(pixels) == own["channels"]
        x: Floats = pixels
        if own["range"] != own["full_scale"]:
            x = np.minimum(
                np.float32(own["full_scale"] / own["range"]) * x.astype(np.float32), own["full_scale"]
            )
            x = np.trunc(x)
        x = x / own["full_scale"]
        height, width = x.shape[1:]
        if own["resize"] == "factor":
            factor = own["resize_factor"]
            return resampled(x, max(1, round(factor * height)), max(1, round(factor * width)))
        if own["resize"] == "shorter side":
            side = own["resize_side"]
            factor = side / min(height, width)
            return resampled(x, max(side, round(factor * height)), max(side, round(factor * width)))
        return x

    def network(self, x: Floats, graph: str = "network-0.onnx") -> Floats:
        side = int(self.number(r"float32 \(n, \d+, (\d+), \d+\)"))
        step = int(self.number(r"Tiles start at 0, (\d+),"))
        missing = [max(0, side - length) for length in x.shape[1:]]
        padded = np.pad(x, [(0, 0), *((one // 2, one - one // 2) for one in missing)], mode="reflect")
        height, width = padded.shape[1:]
        window = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
        total, weight = np.zeros((height, width)), np.zeros((height, width))
        for top in [*range(0, height - side, step), height - side]:
            for left in [*range(0, width - side, step), width - side]:
                planes = self.run(graph, "tiles", padded[None, :, top : top + side, left : left + side])
                where = np.s_[top : top + side, left : left + side]
                total[where] += np.outer(window, window) * planes[0, 0]
                weight[where] += np.outer(window, window)
        top, left = missing[0] // 2, missing[1] // 2
        return (total / weight)[top : top + x.shape[1], left : left + x.shape[2]]

    def spreads(self, values: Floats, prefix: str) -> Floats:
        mean, spread = self.arrays[f"{prefix}mean"], self.arrays[f"{prefix}spread"]
        spread = spread + 2 * spread.mean() + 1e-6
        return np.maximum(0, (values - resampled(mean, *values.shape)) / resampled(spread, *values.shape))

    @property
    def members(self) -> list[str]:
        names: list[str] = self.settings["members"].split(", ")
        return names

    @property
    def banks(self) -> list[str]:
        """Sections of the banks."""
        return [one.split("\n## ")[0] for one in self.text.split("\n### Bank ")[1:]]

    def bank(self, x: Floats, number: int) -> Floats:
        section = self.banks[number]
        place = self.members.index("memory bank")
        prefix = f"members.{place}.banks.{number}."
        view = x
        if "the local contrast of a channel" in section:
            centred = x - x.mean((1, 2), keepdims=True)
            local = np.sqrt(np.maximum(0, gaussian(centred**2, 4, 12) - gaussian(centred, 4, 12) ** 2))
            logarithm = np.log(local + 0.3 * local.mean((1, 2), keepdims=True) + 1e-6)
            view = resampled(logarithm, x.shape[1] // 4, x.shape[2] // 4)
        reduced = view
        if f"{prefix}size" in self.arrays:
            view = resampled(view, *self.arrays[f"{prefix}size"].astype(int))
        patch = int(self.number(r"patches of (\d+) ×", section))
        stride = int(self.number(r"at every (\d+)-th", section))
        offset = int(self.number(r"at place \(y − (\d+)\) /", section))
        reach = patch // 2
        padded = np.pad(view, [(0, 0), (reach, reach), (reach, reach)], mode="reflect")
        tops = range(0, padded.shape[1] - patch + 1, stride)
        lefts = range(0, padded.shape[2] - patch + 1, stride)
        patches = np.stack(
            [padded[:, top : top + patch, left : left + patch] for top in tops for left in lefts]
        )
        means = patches.mean((2, 3), keepdims=True)
        if "mean of each channel, f = C values" in section:
            features = means[:, :, 0, 0]
        else:
            flat = (patches - means).reshape(len(patches), -1)
            deviation = np.sqrt((flat**2).mean(1, keepdims=True))
            floor = self.number(r"x / \(v \+ ([\d.]+) ·", section)
            features = flat / (deviation + floor * max(deviation.mean(), 1e-6))
        mean, basis = self.arrays[f"{prefix}mean"], self.arrays[f"{prefix}basis"]
        q = (features - mean) @ basis
        shape = (len(tops), len(lefts))
        if f"{prefix}bank" in self.arrays:
            square = self.by_place(q.reshape(*shape, -1), self.arrays[f"{prefix}bank"])
        else:
            inputs = np.concatenate([-2 * q, np.ones((len(q), 1))], 1)
            found = self.run(f"search-{place}-{number}.onnx", "features", inputs)
            square = (found + (q**2).sum(1)).reshape(shape)
        values = self.spreads(np.sqrt(np.maximum(0, square) / (2 * len(mean))), f"{prefix}normaliser.")
        fine = self.at_pixels(values, view.shape[1:], stride, offset)
        return resampled(resampled(fine, *reduced.shape[1:]), *x.shape[1:])

    def at_pixels(self, values: Floats, size: Sequence[int], stride: int, offset: int) -> Floats:
        rows, columns = (
            np.clip((np.arange(side) - offset) / stride, 0, places - 1)
            for side, places in zip(size, values.shape, strict=True)
        )
        down = np.stack([np.interp(rows, range(len(values)), column) for column in values.T], 1)
        return np.stack([np.interp(columns, range(values.shape[1]), row) for row in down])

    def by_place(self, q: Floats, bank: Floats) -> Floats:
        count, reach = (
            int(self.number(r"Take the (\d+) images, or")),
            int(self.number(r"its block and of (\d+) more")),
        )
        distance = np.sqrt(((q[::2, ::2, None] - bank[::2, ::2]) ** 2).sum(3)).sum((0, 1))
        bank = bank[:, :, np.argsort(distance)[:count]]
        square = np.empty(q.shape[:2])
        for row in range(q.shape[0]):
            for column in range(q.shape[1]):
                top, left = row // 4 * 4, column // 4 * 4
                near = bank[max(0, top - reach) : top + 4 + reach, max(0, left - reach) : left + 4 + reach]
                square[row, column] = ((near - q[row, column]) ** 2).sum(3).min()
        return square

    def responses(self, x: Floats, g: Floats) -> Floats:
        def smooth(image: Floats, sigma: float, order: tuple[int, int] = (0, 0)) -> Floats:
            return gaussian(image, sigma, math.floor(3 * sigma + 0.5), order)

        octaves, found = [g], []
        for _ in range(3):
            octaves.append(cells(octaves[-1], 2, np.mean))
        for octave, (image, n) in enumerate(zip(octaves, (4, 2, 1, 1), strict=True)):
            own = []
            detail = image - smooth(image, 2.5)
            edges = np.sqrt(smooth(image, 1, (1, 0)) ** 2 + smooth(image, 1, (0, 1)) ** 2)
            rows, columns, both = (smooth(image, 1.2, order) for order in ((2, 0), (0, 2), (1, 1)))
            middle, radius = (rows + columns) / 2, np.sqrt(((rows - columns) / 2) ** 2 + both**2)
            own += [cells(detail, n, np.mean), cells(edges, n, np.mean)]
            own += [cells(middle + radius, n, np.max), cells(middle - radius, n, np.min)]
            if octave < 2:
                own += [cells(detail, n, np.max), cells(detail, n, np.min)]
                own += [np.log(np.sqrt(cells(detail**2, n, np.mean)) + 0.001)]
            if octave < 3:
                reach, left = (9, 7, 9)[octave] // 2, n
                if octave < 2:
                    rows, columns, both = (cells(one, 2, np.mean) for one in (rows, columns, both))
                    left = n // 2
                lines = []
                for number in range(8):
                    sine, cosine = math.sin(math.pi * number / 8), math.cos(math.pi * number / 8)
                    across = sine**2 * columns - 2 * sine * cosine * both + cosine**2 * rows
                    padded = np.pad(across, reach, mode="symmetric")
                    points = {(round(t * sine), round(t * cosine)) for t in range(-reach, reach + 1)}
                    moved = [np.roll(padded, (-down, -right), (0, 1)) for down, right in points]
                    lines.append(np.mean(moved, 0)[reach:-reach, reach:-reach])
                own += [cells(np.max(lines, 0), left, np.max), cells(np.min(lines, 0), left, np.min)]
            found += [np.kron(one, np.ones((2, 2))) for one in own] if octave == 3 else own

        def contrast(image: Floats, fine: float, window: float) -> Floats:
            detail = image - smooth(image, fine)
            return np.log(np.sqrt(np.maximum(0, smooth(detail**2, window))) + 0.001)

        found += [cells(contrast(g, 2, 4), 4, np.mean), contrast(octaves[2], 2, 3), smooth(octaves[2], 2)]
        if len(x) > 1:
            means = [cells(channel, 4, np.mean) for channel in x]
            found += [smooth(one - np.mean(means, 0), 1) for one in means]
        return np.stack(found)

    def filters(self, image: Floats) -> Floats:
        x = image[:, : image.shape[1] // 8 * 8, : image.shape[2] // 8 * 8]
        b = x.mean(0)
        e = b - gaussian(b, 16, 48)
        place = self.members.index("filter bank")
        deviations = []
        for number, g in enumerate((np.log(b + 0.05), e / (np.sqrt((e**2).mean()) + 0.005))):
            responses = self.responses(x, g)
            mean, spread = (
                resampled(self.arrays[f"members.{place}.{name}"][number], *responses.shape[1:])
                for name in ("mean", "spread")
            )
            deviations.append((np.abs(responses - mean) / spread).max(0))
        deviation = np.mean(deviations, 0)
        fine = resampled(deviation, 4 * deviation.shape[0], 4 * deviation.shape[1])
        beyond = [(0, side - covered) for side, covered in zip(image.shape[1:], fine.shape, strict=True)]
        return np.pad(fine, beyond, mode="edge")

    def maps(self, x: Floats) -> list[Floats]:
        """Map of each member, in spreads of good images."""
        found = []
        for number, name in enumerate(self.members):
            if name == "network":
                values = self.network(x, f"network-{number}.onnx")
            elif name == "memory bank":
                values = sum(self.bank(x, number) for number in range(len(self.banks)))
            else:
                values = self.filters(x)
            prefix = f"normalisers.{number}."
            found.append(self.spreads(values, prefix) if f"{prefix}mean" in self.arrays else values)
        return found

    def combined(self, maps: Sequence[Floats]) -> float:
        weights, scales = self.arrays["weights"], self.arrays["scales"]
        if self.settings["combination"] == "weighted-mean":
            total = np.zeros_like(maps[0])
            for number, (m, w, s) in enumerate(zip(maps, weights, scales, strict=True)):
                total += w * np.log2(1 + m / s) if f"normalisers.{number}.mean" in self.arrays else w * m / s
            return self.score(total)
        powers = self.arrays["powers"]

        def soft(values: Sequence[Any]) -> Any:
            terms = [
                w * np.exp(np.minimum(30, p * np.log((np.maximum(m, 0) / s + 0.02) / 1.02)))
                for m, w, s, p in zip(values, weights, scales, powers, strict=True)
                if w
            ]
            return np.log2(1 + sum(terms))

        whole = soft(maps)
        target, own = soft([self.score(one) for one in maps]), self.score(whole)
        return self.score(whole if own == 0 else whole * target / own)

    def score(self, values: Floats) -> float:
        own = self.settings
        sigma = own["score_sigma"]

        def largest(sigma: float) -> float:
            return float(gaussian(values, sigma, math.floor(4 * sigma + 0.5)).max())

        if own["score"] == "mean":
            return float(values.mean())
        if own["score"] == "top-quantile":
            ordered = np.sort(values.ravel())
            return float(
                ordered[ordered >= ordered[math.ceil(own["score_quantile"] * (ordered.size - 1))]].mean()
            )
        if own["score"] == "smoothed-max":
            return largest(sigma)
        return math.prod(max(0.0, largest(factor * sigma)) for factor in (1, 2, 4)) ** (1 / 3)

    def is_of_another_kind(self, pixels: NDArray[Any]) -> bool:
        rows = pixels[:, :: -(-pixels.shape[1] // 256)] / {"uint8": 255, "uint16": 65535}[pixels.dtype.name]
        grey = rows.mean(0)
        figures = {
            "brightness": grey.mean(),
            "contrast": grey.std(),
            "sharpness": np.abs(np.diff(grey, axis=1)).mean(),
            "width": pixels.shape[2],
            "height": pixels.shape[1],
            "colour": (rows.max(0) - rows.min(0)).mean(),
        }
        limits = {name: self.limits(name) for name in figures if f"| {name} |" in self.text}
        return any(not low <= figures[name] <= high for name, (low, high) in limits.items())

    def limits(self, name: str) -> tuple[float, float]:
        found = re.search(rf"\| {name} \|[^\n]*\| ([-\d.e]+) \| ([-\d.e]+) \|", self.text)
        assert found is not None
        return float(found[1]), float(found[2])

    @property
    def threshold(self) -> float:
        return self.number(r"rejected if its score is above \*\*([-\d.e]+)\*\*")


# -- models --------------------------------------------------------------------------------------------


def exported(
    tmp_path: Path, images: Path, recipe: str, settings: Sequence[str], rate: float = 0.2
) -> tuple[Detector, Folder]:
    fit(images, recipe, settings=settings, false_reject_rate=rate, out=tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "exported")
    return blemish.load(tmp_path / "exported"), Folder(tmp_path / "exported")


def written(folder: Path, save: Callable[..., Path], images: Sequence[NDArray[Any]]) -> Path:
    for number, image in enumerate(images):
        save(folder / f"{number}.png", image)
    return folder


def colours(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([grey, 255 - grey, grey // 2], -1)


def check(detector: Detector, folder: Folder, pixels: NDArray[Any], score: float) -> None:
    found = detector.inspect(pixels)
    assert score == pytest.approx(found.score, rel=1e-4)
    rejected = score > folder.threshold or folder.is_of_another_kind(pixels)
    assert rejected == found.is_anomalous


@pytest.mark.parametrize(
    "settings",
    [
        ["score.name=mean", "image.size=36", "image.scale=common"],
        ["score.name=top-quantile", "score.quantile=0.93", "image.size=36"],
        ["score.name=smoothed-max", "patch.stride=11"],
    ],
    ids=lambda one: one[0].removeprefix("score.name="),
)
def test_a_single_network_is_computed_from_the_guide(
    settings: list[str], good: Path, tiny: list[str], draw: Draw, tmp_path: Path
) -> None:
    detector, folder = exported(tmp_path, good, "ssim-ae", [*tiny, *settings])
    for image in (draw(100), draw(101, dot=True), draw(102, 27, 61), draw(103, 47, 39), 0 * draw(104)):
        check(detector, folder, image[None], folder.score(folder.network(folder.preprocessed(image[None]))))


def test_images_of_16_bits_with_fewer_used(
    draw: Draw, tiny: list[str], save: Callable[..., Path], tmp_path: Path
) -> None:
    images = written(tmp_path / "good", save, [15 * draw(seed).astype(np.uint16) for seed in range(24)])
    detector, folder = exported(tmp_path, images, "l2-ae", [*tiny, "image.range=4095"])
    for image in (15 * draw(100).astype(np.uint16), 16 * draw(101, dot=True).astype(np.uint16)):
        check(detector, folder, image[None], folder.score(folder.network(folder.preprocessed(image[None]))))


@pytest.mark.parametrize(
    "settings",
    [
        ["memory.by_place=false"],
        pytest.param(["memory.by_place=true", "memory.nearest_images=5"], marks=pytest.mark.slow),
        pytest.param(["filters=false", "combination=weighted-mean", COLOUR], marks=pytest.mark.slow),
    ],
    ids=["anywhere", "by place", "weighted mean"],
)
def test_members_are_computed_from_the_guide(
    settings: list[str], draw: Draw, quick: list[str], save: Callable[..., Path], tmp_path: Path
) -> None:
    images = written(tmp_path / "good", save, [colours(draw(seed, 128, 141)) for seed in range(16)])
    own = [one for one in quick if COLOUR not in settings or not one.startswith("memory.")]
    detector, folder = exported(tmp_path, images, "blemish", [*own, "image.size=128", *settings], rate=0.4)
    assert {"network", "memory bank"} <= set(folder.members)
    assert ("combination=weighted-mean" in settings) == ("normalisers.0.mean" in folder.arrays)
    place = folder.members.index("memory bank")
    assert ("memory.by_place=false" not in settings) == (f"members.{place}.banks.0.bank" in folder.arrays)
    for image in (draw(100, 128, 141), draw(101, 128, 141, dot=True), draw(102, 137, 150)):
        pixels = colours(image).transpose(2, 0, 1)
        check(detector, folder, pixels, folder.combined(folder.maps(folder.preprocessed(pixels))))


def test_channels_are_converted_as_the_guide_says(
    good: Path, draw: Draw, tiny: list[str], tmp_path: Path
) -> None:
    fit(good, "l2-ae", settings=[*tiny, "image.channels=3"], false_reject_rate=0.2, out=tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "exported")
    detector, folder = blemish.load(tmp_path / "exported"), Folder(tmp_path / "exported")
    assert folder.settings["convert_channels"] is True
    assert "grey is repeated three times" in folder.text
    grey = draw(100)[None]
    x = folder.preprocessed(np.repeat(grey, 3, axis=0))
    check(detector, folder, grey, folder.score(folder.network(x)))


def test_a_guide_follows_the_threshold(
    fitted: tuple[Detector, Path], fitted_parts: Parts, tmp_path: Path
) -> None:
    exported_detector(fitted[0], "onnx", tmp_path, Observer(), fitted_parts).save(tmp_path / "exported")
    blemish.load(tmp_path / "exported").with_threshold(0.125).save(tmp_path / "other")
    folder = Folder(tmp_path / "other")
    assert folder.threshold == folder.settings["threshold"] == 0.125
    assert "set by hand" in folder.text
