"""Generated paintings in five modalities, with ground-truth masks of each modality.

The painting is built up as a real one is, and every sensor looks at the same layers:

- a wooden panel or a canvas, whose grain or weave the X-ray shows;
- a white ground, and on it an underdrawing of carbon, which infrared sees through thin paint;
- paint of pigments that differ in colour, in how much infrared they let through, in how much X-ray they stop
  (lead white above all, and so the lights of the painting) and in how they fluoresce;
- a part that was painted over: the figure below is in no photograph, but in infrared and X-ray;
- craquelure through all of it;
- losses that were retouched, a yellowed varnish above, and a window in it that has been cleaned: what the
  photograph before treatment and ultraviolet show. The photograph during treatment is without varnish and
  retouching, and shows the losses.

The eleven channels are those of Xie, Meeus, Pižurica 2019, section 1: photographs during and before treatment,
infrared reflectography, X-ray and ultraviolet fluorescence.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import yaml
from PIL import Image
from scipy import ndimage, spatial

from blemish.data.scene_description import MODALITIES_FILE
from blemish.demo.painting_layers import (
    Floats,
    Mask,
    _Canvas,
    _compose,
    _covered,
    _mix,
    _Paint,
    _paint,
    _ramp,
    _smooth,
    _support,
    _underdrawing,
)
from blemish.errors import FileError, UsageError
from blemish.storage.atomic import atomic_path, write_text

__all__ = ["MASKS", "MODALITIES", "Painting", "make_painting", "write_painting", "write_paintings"]


MODALITIES = {"visible": 3, "before": 3, "infrared": 1, "xray": 1, "ultraviolet": 3}
"""Channels of each modality, in their order."""
MASKS = ("craquelure", "underdrawing", "overpainting", "losses")
SMALLEST = 64

_SIXTEEN_BITS = ("infrared", "xray")
_TILE = 256


@dataclass(frozen=True)
class Painting:
    """A generated painting, and the ground-truth masks of its content."""

    images: dict[str, Floats]
    """Image (C, H, W) in [0, 1] of each of ``MODALITIES``."""
    masks: dict[str, Mask]
    """Mask (H, W) of each of ``MASKS``."""

    @property
    def stacked(self) -> Floats:
        """All modalities as one image, (11, H, W)."""
        return np.concatenate([self.images[name] for name in MODALITIES])


def make_painting(seed: int, size: int = 512) -> Painting:
    """Draw one painting, fully determined by ``seed``.

    Parameters
    ----------
    seed: at least 0; another one is another composition, in other pigments, on another support.
    size: side of the square painting in pixels, at least 64. The composition grows with it; cracks, brush marks and
        the support keep their size in pixels.

    Raises
    ------
    UsageError
        For a value out of range.

    Examples
    --------
    >>> painting = make_painting(0, 96)
    >>> {name: image.shape for name, image in painting.images.items()}["infrared"]
    (1, 96, 96)
    >>> painting.stacked.shape, sorted(painting.masks)
    ((11, 96, 96), ['craquelure', 'losses', 'overpainting', 'underdrawing'])
    """
    if seed < 0 or size < SMALLEST:
        raise UsageError(
            f"a generated painting needs seed >= 0 and size >= {SMALLEST}, not seed {seed}, size {size}"
        )
    rng = np.random.default_rng([seed, 2019])
    canvas = _Canvas(rng, size)
    support = _support(rng, canvas)
    hidden, seen = _compose(rng, canvas)
    covered = _covered(rng, canvas, seen.hidden_at)
    above = _paint(canvas, seen.layers)
    below = _Paint(*(_mix(a, b, covered) for a, b in zip(above, _paint(canvas, hidden), strict=True)))
    drawing = _underdrawing(canvas, hidden)
    losses = _losses(rng, canvas, covered)
    cracks = _craquelure(rng, canvas, along_grain=support.wood) * (1 - losses)
    varnish = _varnish(rng, canvas)

    # The photographs see the upper paint. Where it covers something its colour was not matched quite.
    matched = 1 + 0.05 * rng.uniform(-1, 1, (3, 1, 1)).astype(np.float32) * covered
    colour = above.colour * matched
    colour = _mix(colour, colour * np.array([0.33, 0.30, 0.27], np.float32)[:, None, None], 0.8 * cracks)
    chalk = np.array([0.86, 0.81, 0.71], np.float32)[:, None, None] * (0.94 + 0.06 * canvas.grain)
    visible = _mix(colour, chalk, losses)
    retouching = colour * np.array([1.05, 0.98, 0.92], np.float32)[:, None, None]
    retouching = ndimage.gaussian_filter(retouching, (0, 2.5, 2.5))  # its brush does not follow the old one's
    yellowed = np.exp(-varnish * np.array([0.16, 0.34, 0.85], np.float32)[:, None, None])
    before = _mix(colour, retouching, losses) * yellowed

    # Infrared: what the paint reflects itself, and what it lets through, there and back, of ground and drawing.
    thin_below = np.exp(-2 * below.infrared_stop)
    thin_above = np.exp(-1.1 * above.infrared_stop)
    ground = 0.9 * (1 - 0.85 * drawing)
    infrared = below.infrared * (1 - thin_below) + ground * thin_below
    over = above.infrared * (1 - thin_above) + infrared * thin_above
    infrared = _mix(infrared, over, covered)
    infrared = _mix(infrared, 0.45 * infrared, 0.7 * cracks)
    infrared = _mix(infrared, 0.55 + 0.1 * infrared, losses)

    # X-ray: what stops it adds up, layer by layer; where paint is lost or cracked there is less of it.
    paint = below.xray_stop + 0.55 * above.xray_stop * covered
    stopped = support.xray_stop + 0.10 + paint * (1 - 0.75 * cracks) * (1 - 0.9 * losses)
    xray = 1 - np.exp(-1.15 * stopped)

    # Ultraviolet: varnish glows and hides the paint's own glow; retouching on top of it is dark.
    hiding = np.exp(-0.7 * varnish)
    glow = above.fluorescence * hiding
    glow += np.array([0.42, 0.66, 0.55], np.float32)[:, None, None] * (1 - hiding)
    glow *= 1 - 0.5 * cracks
    ultraviolet = _mix(glow, np.broadcast_to(np.float32(0.07), glow.shape), 0.85 * losses)

    images = {
        "visible": _sensed(rng, visible, blur=0.0, noise=0.006),
        "before": _sensed(rng, before, blur=0.0, noise=0.006),
        "infrared": _sensed(rng, infrared[None], blur=0.7, noise=0.007),
        "xray": _sensed(rng, xray[None], blur=0.8, noise=0.010),
        "ultraviolet": _sensed(rng, ultraviolet, blur=0.6, noise=0.008),
    }
    masks = {
        "craquelure": cracks > 0.5,
        "underdrawing": drawing > 0.4,
        "overpainting": covered > 0.5,
        "losses": losses > 0.5,
    }
    return Painting(images, masks)


def write_painting(folder: str | Path, *, seed: int = 0, size: int = 512) -> Path:
    """Write one painting as a scene: tiled TIFFs, a ``modalities.yaml``, and ``masks/`` as PNG (0 or 255).

    Infrared and X-ray have 16 bits, the others 8. The same arguments give the same bytes.

    Raises
    ------
    FileError
        When the folder is there already and not empty, or cannot be written.
    UsageError
        As :func:`make_painting`.
    """
    folder = _claimed(Path(folder))
    _write_scene(folder, make_painting(seed, size))
    _write_description(folder)
    return folder


def write_paintings(root: str | Path, count: int, *, seed: int = 0, size: int = 512) -> Path:
    """Write ``count`` paintings as ``root/painting-000`` …, with one ``root/modalities.yaml`` for all.

    Raises
    ------
    FileError, UsageError
        As :func:`write_painting`.
    """
    root = _claimed(Path(root))
    for number in range(count):
        _write_scene(root / f"painting-{number:03d}", make_painting(seed + number, size))
    _write_description(root)
    return root


# -- what everything is drawn with ---------------------------------------------------------------------


# -- support -------------------------------------------------------------------------------------------


# -- pigments and paint --------------------------------------------------------------------------------


# -- composition ---------------------------------------------------------------------------------------


# -- what time did -------------------------------------------------------------------------------------


def _craquelure(rng: np.random.Generator, canvas: _Canvas, *, along_grain: bool) -> Floats:
    """A network of cracks, in [0, 1]: edges between islands of paint, not all of them open.

    The islands are the Voronoi cells of jittered points, in coordinates that are bent, and drawn out along the grain
    of a panel.
    """
    size, pitch = canvas.size, float(rng.uniform(26, 36))
    stretch = 1.9 if along_grain else 1.15
    v = (canvas.rows + 5 * _smooth(rng, size, 14) + 1.2 * _smooth(rng, size, 3)) / (pitch * stretch)
    u = (canvas.columns + 5 * _smooth(rng, size, 14) + 1.2 * _smooth(rng, size, 3)) / pitch
    across = np.arange(-2, size / pitch + 3)
    down = np.arange(-2, size / pitch / stretch + 3)
    cells = np.stack(np.meshgrid(down, across, indexing="ij"), axis=-1).reshape(-1, 2)
    points = cells + rng.uniform(-0.46, 0.46, cells.shape)
    found = spatial.cKDTree(points).query(np.stack([v, u], axis=-1).reshape(-1, 2), k=2)
    distance, index = np.asarray(found[0], np.float64), np.asarray(found[1], np.intp)  # (pixels, 2)
    first, second = points[index[:, 0]], points[index[:, 1]]
    apart = np.hypot(*(first - second).T)
    # From the bisector of the two nearest points, in pixels.
    off = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart) * pitch
    pair = np.sort(index, axis=1).astype(np.uint64)
    chance = (pair[:, 0] * np.uint64(2654435761) + pair[:, 1] * np.uint64(40503)) % np.uint64(9973) / 9973.0
    width = np.where(chance < 0.24, 0.0, 0.4 + 1.4 * chance)
    cover = np.where(width > 0, np.clip(width / 2 - off + 0.5, 0, 1), 0).reshape(size, size)
    fading = np.clip(0.85 + 0.45 * _smooth(rng, size, 22), 0, 1)
    return np.asarray(cover * fading, np.float32)


def _losses(rng: np.random.Generator, canvas: _Canvas, covered: Floats) -> Floats:
    """Coverage by losses of paint and their retouching, in [0, 1]; some flakes, more of them in one corner."""
    corner = rng.choice([0.15, 0.85], 2)
    near = np.exp(-((canvas.x - corner[0]) ** 2 + (canvas.y - corner[1]) ** 2) / 0.06)
    flakes = _smooth(rng, canvas.size, 7) + 0.35 * _smooth(rng, canvas.size, 2)
    lost: Floats = _ramp(((flakes + 0.9 * near - 2.15) * 5).astype(np.float32)) * (1 - covered)
    return lost


def _varnish(rng: np.random.Generator, canvas: _Canvas) -> Floats:
    """Thickness of the varnish, about 1; 0 in the window that has been cleaned."""
    patchy = 1 + 0.30 * _smooth(rng, canvas.size, canvas.size / 9) + 0.10 * canvas.brush(0.15)
    drips = np.clip(_smooth(rng, canvas.size, 4)[0] - 1, 0, 1)[None] * np.clip(canvas.y - 0.2, 0, 1)
    x, y = rng.uniform(0.25, 0.7), rng.uniform(0.3, 0.75)
    half = rng.uniform(0.06, 0.09)
    cleaned = _ramp((half - np.maximum(np.abs(canvas.x - x), np.abs(canvas.y - y))) * canvas.size)
    return np.asarray(np.maximum(patchy + drips, 0.25) * (1 - cleaned), np.float32)


def _sensed(rng: np.random.Generator, image: Floats, *, blur: float, noise: float) -> Floats:
    """(C, H, W) as a sensor gives it, in [0, 1]."""
    if blur:
        image = ndimage.gaussian_filter(image, (0, blur, blur))
    noisy = image + noise * rng.standard_normal(image.shape, np.float32)
    return np.clip(noisy, 0, 1).astype(np.float32)


# -- files ---------------------------------------------------------------------------------------------


def _claimed(folder: Path) -> Path:
    if os.path.lexists(folder) and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise FileError(folder, "is there already", "name a new folder or remove this one")
    return folder


def _write_scene(folder: Path, painting: Painting) -> None:
    for name, image in painting.images.items():
        top = 65535 if name in _SIXTEEN_BITS else 255
        counts = np.rint(image * top).astype(np.uint16 if name in _SIXTEEN_BITS else np.uint8)
        with atomic_path(folder / f"{name}.tif") as partial:
            tifffile.imwrite(
                partial,
                counts[0] if len(counts) == 1 else np.moveaxis(counts, 0, -1),
                photometric="minisblack" if len(counts) == 1 else "rgb",
                tile=(_TILE, _TILE),
                compression="zlib",
                metadata=None,
            )
    for name, mask in painting.masks.items():
        with atomic_path(folder / "masks" / f"{name}.png") as partial:
            Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(partial, format="PNG")


def _write_description(folder: Path) -> None:
    listed = [
        {"name": name, "file": f"{name}.tif", "channels": channels} for name, channels in MODALITIES.items()
    ]
    write_text(folder / MODALITIES_FILE, yaml.safe_dump({"modalities": listed}, sort_keys=False))
