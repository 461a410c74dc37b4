from __future__ import annotations

import pytest

from blemish.errors import UsageError
from blemish.jpeg.benchmark.find_codecs import find_codecs


def test_both_pillow_baselines_always_take_part() -> None:
    found, _ = find_codecs(["mozjpeg-psnr"])
    assert [encoder.name for encoder in found] == ["pillow-420", "pillow-444", "mozjpeg-psnr"]
    with pytest.raises(UsageError, match="did you mean 'mozjpeg'"):
        find_codecs(["mozjepg"])


def test_blemish_codecs_are_among_the_encoders() -> None:
    names = [encoder.name for encoder in find_codecs()[0]]
    assert {"blemish-psnr", "blemish-ms-ssim", "blemish-balanced", "blemish-ssimulacra2"} <= set(names)
