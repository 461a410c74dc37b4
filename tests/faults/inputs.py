"""Inputs of the killed commands: tiny generated images, and what the product makes of them.

Every input is made once, in a folder of its name, and only read from then on.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from blemish.demo.generated import make_sample
from blemish.demo.painting import write_paintings
from tests.faults.fork_server import Command, ForkServer

GOOD = 24
IMAGE_FOLDERS = frozenset({"good", "more", "new", "labelled", "rods", "photos", "jpegs", "scenes"})
"""Inputs that are folders of images."""
_NAMED = re.compile(r"\{inputs\}/([\w-]+)")


def settings(*given: str) -> tuple[str, ...]:
    """Words of the command line that set each of ``given``, ``key=value``."""
    return tuple(word for setting in given for word in ("--set", setting))


# A look after every step, at which the fork server lets the trainer write a checkpoint.
STEPWISE = ("training.validate_every=1", "training.device=cpu", "training.precision=float32")
RATE = ("--false-reject-rate", "0.2")
OUT = ("--out", "out")
TINY = (
    "patch.size=32", "patch.stride=16", "encoder.latent=8", "training.batch=16", "training.steps=6", *STEPWISE
)  # fmt: skip
FIT = ("fit", "{inputs}/good", "--recipe", "ssim-ae", *RATE, *settings(*TINY), *OUT)
FIT_SCENES = (
    "fit", "{inputs}/scenes", "--recipe", "fp-cae-concat", *RATE,
    *settings("training.batch=4", "training.steps=4", *STEPWISE), *OUT
)  # fmt: skip
INSPECT = ("inspect", "{inputs}/model", "{inputs}/new", *OUT)
INSPECT_SCENES = ("inspect", "{inputs}/scene-model", "{inputs}/scenes", *OUT)
FEATURES = ("features", "{inputs}/model", "{inputs}/new", *OUT)


def make_inputs(names: Iterable[str], folder: Path, server: ForkServer) -> None:
    """Make the inputs ``names`` in ``folder``, with all that they are made of, unless they are there.

    Raises
    ------
    RuntimeError
        When a command of the product fails.
    """
    for name in names:
        if (folder / name).exists():
            continue
        maker = _MAKERS[name]
        if callable(maker):
            maker(folder / name)
            continue
        make_inputs(inputs_of(maker), folder, server)
        place = folder / f"making {name}"
        place.mkdir()
        log = folder / f"{name}.log"
        ended = server.run(Command(with_inputs(maker, folder), str(place), str(log)))
        if ended.code != 0:
            raise RuntimeError(f"input {name} could not be made:\n{log.read_text(encoding='utf-8')}")
        (place / "out").rename(folder / name)
        shutil.rmtree(place)


def inputs_of(words: Iterable[str]) -> list[str]:
    """Names of the inputs in the words of a command."""
    return [name for word in words for name in _NAMED.findall(word)]


def with_inputs(words: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Words of a command, with the paths of the inputs in ``folder``."""
    return tuple(word.replace("{inputs}", str(folder)) for word in words)


# -- drawing -------------------------------------------------------------------------------------------


def _waves(seed: int, *, dot: bool = False) -> NDArray[np.uint8]:
    """A grey image (40, 48) of a fine pattern, or the same with a bright dot."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :48]
    waves = np.sin(2 * np.pi * (x / 8 + rng.random())) * np.sin(2 * np.pi * (y / 8 + rng.random()))
    values: NDArray[np.float64] = 128 + 50 * waves + rng.normal(0, 4, waves.shape)
    if dot:
        values[12:20, 20:30] = 250
    return np.clip(values, 0, 255).astype(np.uint8)


def _photo(seed: int) -> NDArray[np.uint8]:
    """A colour image (40, 56, 3)."""
    y, x = np.mgrid[:40, :56]
    waves = np.stack([128 + 80 * np.sin(x / (4 + seed + c)) * np.cos(y / 7) for c in range(3)], -1)
    noise = np.random.default_rng(seed).normal(0, 8, waves.shape)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def _draw_good(folder: Path) -> None:
    for seed in range(GOOD):
        _save(folder / f"{seed}.png", _waves(seed))


def _draw_more(folder: Path) -> None:
    """The good images under other names, and new ones."""
    for seed in range(GOOD):
        _save(folder / f"old-{seed}.png", _waves(seed))
    for seed in range(10):
        _save(folder / f"new-{seed}.png", _waves(500 + seed))


def _draw_new(folder: Path) -> None:
    for number in range(6):
        _save(folder / f"{number}.png", _waves(100 + number, dot=number > 3))


def _draw_earlier(folder: Path) -> None:
    """Other images under the names of the new ones, and one more."""
    for number in range(7):
        _save(folder / f"{number}.png", _waves(200 + number))


def _draw_labelled(folder: Path) -> None:
    """MVTec layout."""
    _draw_good(folder / "train" / "good")
    mask = np.zeros((40, 48), np.uint8)
    mask[12:20, 20:30] = 255
    for number in range(3):
        _save(folder / "test" / "good" / f"{number}.png", _waves(100 + number))
        _save(folder / "test" / "dot" / f"{number}.png", _waves(200 + number, dot=True))
        _save(folder / "ground_truth" / "dot" / f"{number}_mask.png", mask)


def _draw_rods(folder: Path) -> None:
    for seed in range(GOOD):
        _save(folder / f"{seed}.png", make_sample("rod", "good", seed=seed, size=96).image[0])


def _draw_photos(folder: Path) -> None:
    for seed in range(6):
        _save(folder / f"{seed}.png", _photo(seed))


def _draw_jpegs(folder: Path) -> None:
    for seed in range(6):
        _save(folder / f"{seed}.jpg", _photo(seed))


def _draw_scenes(folder: Path) -> None:
    write_paintings(folder, 2, size=128)


def _draw_line(folder: Path) -> None:
    """Images that a server is brought in a folder, and others that are sent to it; its sources and sinks."""
    for number in range(4):
        _save(folder / "incoming" / f"part-{number}.png", _waves(100 + number, dot=number > 2))
    for number in range(4):
        _save(folder / "uploads" / f"upload-{number}.png", _waves(200 + number, dot=number > 2))
    line = {
        "sources": [
            {"name": "in", "type": "folder", "path": "incoming", "settle": 0.05, "poll": 0.2, "after": "move",
             "move_to": "done"}
        ],
        "sinks": [
            {"name": "table", "type": "csv", "path": "decisions.csv"},
            {"name": "rejects", "type": "folder", "path": "rejects"},
        ],
    }  # fmt: skip
    (folder / "line.yaml").write_text(yaml.safe_dump(line), encoding="utf-8")


_MAKERS: dict[str, Callable[[Path], None] | tuple[str, ...]] = {
    "good": _draw_good,
    "more": _draw_more,
    "new": _draw_new,
    "earlier": _draw_earlier,
    "labelled": _draw_labelled,
    "rods": _draw_rods,
    "photos": _draw_photos,
    "jpegs": _draw_jpegs,
    "scenes": _draw_scenes,
    "line": _draw_line,
    "model": FIT,
    "other-model": (*FIT, *settings("training.steps=3", "training.seed=1")),
    "scene-model": FIT_SCENES,
    "found": INSPECT,
    "earlier-found": ("inspect", "{inputs}/model", "{inputs}/earlier", *OUT),
    "scene-found": INSPECT_SCENES,
    "features": FEATURES,
    "earlier-features": ("features", "{inputs}/model", "{inputs}/earlier", *OUT),
}
