from __future__ import annotations

import pytest

from blemish.jpeg.benchmark.baselines import PILLOW_420, PILLOW_444, PillowCodec
from blemish.jpeg.benchmark.records import CodecRecord
from blemish.jpeg.benchmark.summary import summarise

WIDE = (0.01, 20.0)


def test_lpips_falls_with_quality_and_is_compared_so() -> None:
    records = [
        CodecRecord(
            image="a", image_sha256="", encoder=name, description="", quality=quality, width=100, height=100,
            bytes=int(scale * quality * 20), seconds=1.0, measures={"lpips": 1 / quality},
        )
        for name, scale in (("pillow-420", 1), ("pillow-444", 1), ("padded", 3))
        for quality in (10, 20, 40, 80)
    ]  # fmt: skip
    found = summarise(
        records, [PILLOW_420, PILLOW_444, PillowCodec("padded", "4:2:0", optimize=True)], bpp_range=WIDE
    )
    rate = found.rate("pillow-420", "padded", "lpips")
    assert rate is not None
    assert rate.mean == pytest.approx(200)
