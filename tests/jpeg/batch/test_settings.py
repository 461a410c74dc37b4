from __future__ import annotations

from typing import Any

import pytest

from blemish.errors import UsageError
from blemish.jpeg.batch import BatchSettings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quality": 50, "target_bpp": 1.0}, "--quality and --target-bpp exclude each other"),
        ({"target_bpp": 1.0, "target_ssim": 0.9}, "--target-bpp and --target-ssim exclude each other"),
        ({"lossless": True, "quality": 50}, "leave --quality out"),
        ({"lossless": True, "tune": "psnr"}, "leave --tune out"),
        ({"lossless": True, "sampling": "4:4:4"}, "leave --sampling out"),
        ({"quality": 0}, "--quality is 0; choose"),
        ({"quality": 101}, "--quality is 101; choose"),
        ({"quality": float("nan")}, "--quality is nan; choose"),
        ({"target_bpp": 0}, "--target-bpp is 0; choose"),
        ({"target_bpp": float("inf")}, "--target-bpp is inf; choose"),
        ({"target_ssim": 1.0}, "--target-ssim is 1; choose"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BatchSettings(**settings)
