"""The golden runs: every recipe, the default on several kinds of images, scenes, folders, JPEG and two studies."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import blemish
from golden_figures import (
    command,
    figures_of,
    of_images,
    of_inspection,
    of_model,
    of_records,
    of_tiled,
    options,
    pixel_threshold_of,
    sha256,
)
from golden_images import MODALITIES, part, photo, texture, write, write_scene

Case = Callable[[], Any]
RATE = 0.2
TRAINING = (
    "training.batch=4",
    "training.steps=3",
    "training.validate_every=2",
    "training.device=cpu",
    "training.precision=float32",
)
DEFAULT = (
    "image.size=64",
    "patch.size=32",
    "patch.stride=24",
    "encoder.widths=[4, 8, 8]",
    "memory.patch=8",
    "memory.dimensions=16",
    "memory.capacity=2000",
    *TRAINING,
)
DEEP = (
    "loss.gamma=0",
    "loss.sigma=0",
    "patch.size=32",
    "tables.pace=50",
    "lambdas=[0.001, 0.1]",
    "training.batch=2",
    "training.steps=2",
    "training.validate_every=2",
    "training.learning_rate=1e-3",
    "training.device=cpu",
    "training.precision=float32",
)


def tiny_settings(recipe: dict[str, Any]) -> list[str]:
    """Settings with which a recipe is fitted in seconds and without pretrained weights."""
    if recipe["encoder"]["name"] == "unet":
        return list(DEFAULT)
    # Batch normalisation needs more than one place in the features of a single patch.
    patch = 64 if recipe["encoder"]["name"] == "resnet50" else 32
    settings = [f"patch.size={patch}", f"patch.stride={patch // 2}", *TRAINING]
    if recipe["image"]["size"] is not None:
        settings.append(f"image.size={3 * patch // 2}")
    if (recipe["alignment"] or {}).get("pretraining"):
        settings.append("alignment.pretraining=2")
    if recipe["threshold"]["rule"] == "conformal":
        settings.append(f"threshold.false_reject_rate={RATE}")
    if recipe["encoder"]["name"] in ("vgg16", "resnet50"):
        # Most of the time goes to the 256 held-out patches, at which this training looks only once.
        settings += ["encoder.weights=none", "training.steps=2"]
    return settings + [
        f"loss.{place}.network=gabor" for place, term in enumerate(recipe["loss"]) if "network" in term
    ]


def is_of_scenes(recipe: dict[str, Any]) -> bool:
    return recipe["encoder"]["name"] in ("stacked", "separated")


class Cases:
    """All cases by name; each gives its figures alone, whichever others ran before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.fitted = lru_cache(maxsize=None)(self._fitted)

    def all(self) -> dict[str, Case]:
        recipes = json.loads(command("recipes", "--json"))
        cases: dict[str, Case] = {
            f"recipe/{recipe['name']}": partial(self.recipe, recipe) for recipe in recipes
        }
        cases |= {
            "kinds/rgb": partial(
                self.kind, lambda image: np.stack([image, image // 2, 255 - image], axis=-1)
            ),
            "kinds/16-bit": partial(self.kind, lambda image: image.astype(np.uint16) * 200),
            "default/objects": partial(self.of_fitted, "objects"),
            "default/textures": partial(self.of_fitted, "textures"),
            "default/groups": partial(self.of_fitted, "groups"),
            "default/trimmed": partial(self.of_fitted, "trimmed"),
            "default/continued": partial(self.of_fitted, "continued"),
            "default/other-rate": self.other_rate,
            "images/inspect": self.inspect_folder,
            "images/evaluate": self.evaluate,
            "images/features": self.features_of_images,
            "scenes/missing": partial(self.of_fitted, "scenes"),
            "scenes/inspect": self.inspect_scenes,
            "scenes/hide": partial(self.inspect_scenes, "--hide", "infrared", "--reconstruction"),
            "scenes/features": self.features_of_scenes,
            "protect": self.protect,
            "deep/jpeg-tables": partial(self.deep, "jpeg-tables", "tables.initial=annex-k"),
            "deep/jpeg-lstm": partial(self.deep, "jpeg-lstm", "attention.hidden=8"),
            "study/bergmann2018": partial(self.study, "bergmann2018", self.data_set),
            "study/xie2019": partial(self.study, "xie2019", self.data_set_of_scenes),
        }
        for tune in ("psnr", "ms-ssim", "balanced", "ssimulacra2"):
            cases[f"jpeg/{tune}"] = partial(self.encode, tune)
        cases["jpeg/lossless"] = self.lossless
        return cases

    def new(self, name: str) -> Path:
        """A folder that is not there yet."""
        self.count += 1
        return self.folder / f"{self.count}-{name}"

    # -- input --

    def images(
        self, draw: Callable[..., NDArray[Any]], count: int = 20, first: int = 0, **options: Any
    ) -> Path:
        folder = self.new("images")
        for seed in range(first, first + count):
            write(folder / f"{seed:03}.png", draw(seed, **options))
        return folder

    def scenes(self, count: int = 3, *, first: int = 0, missing: bool = False) -> Path:
        folder = self.new("scenes")
        for seed in range(first, first + count):
            write_scene(folder / f"scene{seed}", seed)
        (folder / "modalities.yaml").write_text(MODALITIES, encoding="utf-8")
        if missing:
            (folder / f"scene{first + 1}" / "xray.png").unlink()
        return folder

    @cached_property
    def data_set(self) -> Path:
        """In the layout of MVTec AD: 20 images to train on, 8 good ones and 8 with a faint dot to test."""
        folder = self.folder / "data-set"
        mask = np.zeros((48, 56), np.uint8)
        mask[14:22, 24:34] = 255
        for seed in range(20):
            write(folder / "train" / "good" / f"{seed:03}.png", texture(seed))
        for seed in range(8):
            write(folder / "test" / "good" / f"{seed}.png", texture(100 + seed))
            write(folder / "test" / "dot" / f"{seed}.png", texture(200 + seed, dot=12))
            write(folder / "ground_truth" / "dot" / f"{seed}_mask.png", mask)
        return folder

    @cached_property
    def data_set_of_scenes(self) -> Path:
        folder = self.folder / "data-set-of-scenes"
        for seed in range(2):
            write_scene(folder / "train" / f"scene{seed}", seed, 192, 192)
        write_scene(folder / "test" / "scene9", 9, 192, 192)
        for place in ("train", "test"):
            (folder / place / "modalities.yaml").write_text(MODALITIES, encoding="utf-8")
        return folder

    # -- detectors --

    def _fitted(self, name: str) -> Path:
        """The model folder of a fit that several cases use."""
        out = self.new(name)
        fit = partial(blemish.fit, settings=DEFAULT, false_reject_rate=RATE, out=out)
        if name == "objects":
            fit(self.images(part))
        elif name == "textures":
            fit(self.images(texture))
        elif name == "groups":
            folder = self.images(texture)
            with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
                rows = [[f"{seed:03}.png", f"part {seed // 2}"] for seed in range(20)]
                csv.writer(file).writerows([["path", "group"], *rows])
            fit(folder / "list.csv")
        elif name == "trimmed":
            folder = self.images(texture, 24)
            write(folder / "bad.png", texture(300, dot=90))
            trims = ("training.steps=6", "training.trim=0.1", "threshold.trim=0.2")
            fit(folder, settings=[*DEFAULT, *trims])
        elif name == "continued":
            folder = self.images(texture, 28)  # the 20 that the first model saw, and 8 new ones
            fit(folder, settings=["training.steps=2"], continue_from=self.fitted("textures"))
        elif name == "scenes":
            fit(self.scenes(missing=True), "fp-cae-add", settings=TRAINING)
        return out

    def of_fitted(self, name: str) -> dict[str, Any]:
        folder = self.fitted(name)
        if name == "scenes":
            return {**self.decision(folder), **of_model(folder)}
        objects = name == "objects"
        test = [part(100), part(101, broken=True)] if objects else [texture(100), texture(101, dot=90)]
        return self.of_detector(folder, test)

    def decision(self, folder: Path) -> dict[str, Any]:
        detector = blemish.load(folder)
        return {"threshold": float(detector.threshold), "pixel_threshold": pixel_threshold_of(detector)}

    def of_detector(self, folder: Path, test: Sequence[NDArray[Any]]) -> dict[str, Any]:
        detector = blemish.load(folder)
        paths = [write(self.new("test").with_suffix(".png"), image) for image in test]
        return {
            **self.decision(folder),
            "good": of_inspection(detector, paths[0]),
            "defective": of_inspection(detector, paths[1]),
            **of_model(folder),
        }

    def recipe(self, recipe: dict[str, Any]) -> dict[str, Any]:
        out = self.new("model")
        if is_of_scenes(recipe):
            blemish.fit(self.scenes(), recipe["name"], settings=tiny_settings(recipe), out=out)
            found = self.new("found")
            command("inspect", out, self.scenes(1, first=50), "--out", found)
            return {
                **self.decision(out),
                **of_model(out),
                "records": of_records(found),
                "maps": of_tiled(found),
            }
        rate = RATE if recipe["threshold"]["rule"] == "conformal" else None
        blemish.fit(
            self.images(texture, 16),
            recipe["name"],
            settings=tiny_settings(recipe),
            false_reject_rate=rate,
            out=out,
        )
        return self.of_detector(out, [texture(100), texture(101, dot=90)])

    def kind(self, convert: Callable[[NDArray[Any]], NDArray[Any]]) -> dict[str, Any]:
        def draw(seed: int) -> NDArray[Any]:
            return convert(texture(seed))

        out = self.new("model")
        settings = ["patch.size=32", "patch.stride=16", "encoder.latent=8", *TRAINING]
        blemish.fit(self.images(draw, 16), "ssim-ae", settings=settings, false_reject_rate=RATE, out=out)
        return self.of_detector(out, [draw(100), convert(texture(101, dot=90))])

    def other_rate(self) -> dict[str, Any]:
        detector = blemish.load(self.fitted("textures")).with_false_reject_rate(0.4)
        return {
            "threshold": float(detector.threshold),
            "pixel_threshold": pixel_threshold_of(detector),
            "defective": of_inspection(detector, texture(101, dot=90)),
        }

    # -- folders --

    def inspect_folder(self) -> dict[str, Any]:
        out = self.new("found")
        command("inspect", self.fitted("objects"), self.images(part, 3, 100, broken=True), "--out", out)
        return {"records": of_records(out), "images": of_images(out)}

    def evaluate(self) -> dict[str, Any]:
        out = self.new("evaluated")
        blemish.evaluate(blemish.load(self.fitted("textures")), self.data_set, out=out)
        evaluation = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
        keys = ("image", "pixel", "false_rejects", "threshold", "without_mask", "items_sha256")
        return {
            "evaluation": figures_of({key: evaluation[key] for key in keys}),
            "records": of_records(out),
            "images": of_images(out),
        }

    def features_of_images(self) -> dict[str, str]:
        out = self.new("features")
        command("features", self.fitted("textures"), self.images(texture, 1, 100), "--out", out)
        return of_tiled(out)

    def inspect_scenes(self, *words: str) -> dict[str, Any]:
        out = self.new("found")
        command(
            "inspect", self.fitted("scenes"), self.scenes(2, first=50, missing=True), "--out", out, *words
        )
        return {"records": of_records(out), "maps": of_tiled(out), "images": of_images(out)}

    def features_of_scenes(self) -> dict[str, str]:
        out = self.new("features")
        command("features", self.fitted("scenes"), self.scenes(1, first=50), "--out", out)
        return of_tiled(out)

    def study(self, name: str, data: Path) -> dict[str, Any]:
        out = self.new("study")
        settings = [*TRAINING, "training.batch=2", "training.steps=2"]
        if name == "bergmann2018":
            settings += ["patch.size=32", "patch.stride=32", f"threshold.false_reject_rate={RATE}"]
        command("study", name, "--data", data, "--quick", "--out", out, "--seeds", "0", *options(settings))
        return {path.name: figures_of(json.loads(path.read_text())) for path in sorted(out.glob("*.json"))}

    # -- JPEG --

    def encode(self, tune: Any) -> dict[str, str]:
        from blemish.jpeg import Encoder

        encode = partial(Encoder().encode, tune=tune)
        return {
            "input": sha256(b"".join(photo(seed).tobytes() for seed in range(3))),
            "colour, quality 60": sha256(encode(photo(0), quality=60).data),
            "colour, quality 90, 4:4:4": sha256(encode(photo(0), quality=90, sampling="4:4:4").data),
            "grey, quality 35.5": sha256(encode(photo(1)[..., 0], quality=35.5).data),
            "colour, 1 bit per pixel": sha256(encode(photo(2), target_bpp=1.0).data),
            "colour, SSIM 0.95": sha256(encode(photo(2), target_ssim=0.95).data),
        }

    def encoded(self, source: Path, *words: object) -> dict[str, str]:
        """Hashes of the JPEG files that ``blemish jpeg encode`` writes."""
        out = self.new("encoded")
        command("jpeg", "encode", source, "--out", out, "--workers", 1, *words)
        paths = sorted(path for path in out.rglob("*") if path.suffix in (".jpg", ".jpeg"))
        return {path.relative_to(out).as_posix(): sha256(path.read_bytes()) for path in paths}

    def lossless(self) -> dict[str, Any]:
        source = self.new("photos")
        paths = [write(source / f"{seed}.jpg", photo(seed), quality=90) for seed in range(2)]
        return {
            "source": [sha256(path.read_bytes()) for path in paths],
            **self.encoded(source, "--lossless"),
        }

    def protect(self) -> dict[str, str]:
        source = self.images(part, 2, 100, broken=True)
        return self.encoded(source, "--protect", self.fitted("objects"), "--target-bpp", 1)

    def deep(self, recipe: str, *settings: str) -> dict[str, Any]:
        out, photos = self.new("model"), self.images(photo, 4)
        command("jpeg", "fit", photos, "--recipe", recipe, "--out", out, *options([*DEEP, *settings]))
        return {**of_model(out), **self.encoded(self.images(photo, 1, 9), "--model", out, "--quality", 50)}
