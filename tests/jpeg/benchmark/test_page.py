from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from blemish.data.items import Item
from blemish.jpeg.benchmark.baselines import PILLOW_420
from blemish.jpeg.benchmark.codecs import BlemishCodec
from blemish.jpeg.benchmark.page import CropTask, busiest, detail_rows, nearest_rate


def test_nearest_rate_by_trying_all() -> None:
    y, x = np.mgrid[:64, :64]
    waves = np.stack([128 + 80 * np.sin(x / (6 + c)) * np.cos(y / 9) for c in range(3)], -1)
    noise = np.random.default_rng(0).normal(0, 6, waves.shape)
    pixels = np.clip(waves + noise, 0, 255).astype(np.uint8)
    sizes = {quality: len(PILLOW_420.encode(pixels, quality)) for quality in range(1, 101)}
    for bpp in (0.01, 1.5, 3.0, 50.0):
        quality, data = nearest_rate(PILLOW_420, pixels, bpp)
        assert len(data) == sizes[quality]
        assert abs(len(data) - bpp * 512) == min(abs(size - bpp * 512) for size in sizes.values())


def test_the_busiest_window_of_an_image_smaller_than_it_is_the_image() -> None:
    assert busiest(np.zeros((5, 300), np.uint8), 160)[0] == slice(0, 5)
    assert busiest(np.zeros((1, 1, 3), np.uint8), 160) == (slice(0, 1), slice(0, 1))


def test_details_are_at_equal_bytes_and_maps_show_where_the_bits_are(tmp_path: Path) -> None:
    """An image with grain in one corner: there is the detail, and there most bits are."""
    pixels = np.full((192, 256, 3), 128, np.uint8)
    grain = np.random.default_rng(0).integers(60, 200, (96, 96, 3))
    pixels[:96, 160:] = grain
    Image.fromarray(pixels).save(tmp_path / "a.png")
    codecs = (PILLOW_420, BlemishCodec("psnr"))
    found = detail_rows(CropTask(Item(tmp_path / "a.png", "a.png"), codecs, 0.5))
    assert found is not None
    details, bits = found
    assert [panel.label.split(":")[0].split()[0] for panel in details.panels] == [
        "original",
        "pillow-420",
        "blemish-psnr",
    ]
    rates = [float(panel.label.split(": ")[1].split(" bpp")[0]) for panel in details.panels[1:]]
    assert all(0.4 < rate < 0.6 for rate in rates)
    assert {panel.image.shape for panel in details.panels} == {details.panels[0].image.shape}
    assert len(bits.panels) == 3
    for panel in bits.panels[1:]:
        assert panel.image.shape == pixels.shape
        assert int(panel.label.split(": ")[1].split("%")[0]) > 60
        light = panel.image.astype(int).sum(-1)
        assert light[20:80, 180:240].mean() > 2 * light[120:180, 20:80].mean()


def test_a_file_that_is_not_read_has_no_map_of_bits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    class Halved:
        name = "4:2:2"

        def encode(self, pixels: np.ndarray, quality: int) -> bytes:
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling=1)
            return stream.getvalue()

    found = detail_rows(CropTask(Item(tmp_path / "a.png", "a.png"), (Halved(),), 2.0))
    assert found is not None
    assert len(found.details.panels) == 2
    assert found.bits.panels == []
