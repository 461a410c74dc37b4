"""Settings of a batch of JPEG files, and the fingerprint by which an earlier run with the same ones is known."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blemish._version import __version__
from blemish.errors import UsageError
from blemish.jpeg.batch.records import file_sha256
from blemish.jpeg.coefficients import Sampling
from blemish.jpeg.protection import DEFAULT_STRENGTH
from blemish.jpeg.rate_targets import check_rate_targets
from blemish.jpeg.tables import shipped_sha256
from blemish.storage.model_folder import MODEL_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from blemish.jpeg.distortion import Tune


@dataclass(frozen=True)
class BatchSettings:
    """Settings of the encoder for every image of a batch.

    quality: 1 to 100; 75 where neither this nor a target is given. target_bpp: bits per pixel. target_ssim: SSIM of
    luma, below 1. tune: "balanced" where it is not given. sampling: where it is not given, that of a JPEG stays, and
    that of other images is chosen for each. lossless: recode the entropy-coded data of JPEG files, and leave their
    coefficients as they are. protect: folder of a detector whose anomaly map
    marks the regions of interest. protect_strength: weight of the errors there, and its inverse elsewhere; 4 where
    it is not given. model: folder of a learned encoder to use instead, which has a tune and sampling of its own.

    Raises
    ------
    UsageError
        Settings that exclude each other or are out of range.
    """

    quality: float | None = None
    target_bpp: float | None = None
    target_ssim: float | None = None
    tune: Tune | None = None
    sampling: Sampling | None = None
    keep_metadata: bool = True
    lossless: bool = False
    protect: Path | None = None
    protect_strength: float | None = None
    model: Path | None = None

    def __post_init__(self) -> None:
        targets = (self.quality, self.target_bpp, self.target_ssim)
        options = ("--quality", "--target-bpp", "--target-ssim")
        check_rate_targets(*targets, names=options)
        if self.lossless:
            choices = zip(
                (*options, "--tune", "--sampling"), (*targets, self.tune, self.sampling), strict=True
            )
            for option in (option for option, value in choices if value is not None):
                raise UsageError(f"--lossless keeps the coefficients as they are; leave {option} out")
        self._check_models()

    def _check_models(self) -> None:
        if self.lossless and self.protect is not None:
            raise UsageError("--lossless keeps the bits where they are; leave --protect out")
        if self.model is not None:
            others = {
                "--lossless": self.lossless,
                "--protect": self.protect is not None,
                "--tune": self.tune is not None,
                "--sampling": self.sampling is not None,
            }
            for option in (option for option, given in others.items() if given):
                raise UsageError(f"--model is an encoder that knows no {option}; leave {option} out")
        if self.protect_strength is not None:
            if self.protect is None:
                raise UsageError("--protect-strength says how much --protect MODEL does; give --protect too")
            if not 1 <= self.protect_strength <= 100:
                raise UsageError(
                    f"--protect-strength {self.protect_strength:g}: choose a number from 1 to 100, such as 4"
                )

    @property
    def strength(self) -> float:
        """Weight of the errors in regions of interest."""
        return DEFAULT_STRENGTH if self.protect_strength is None else self.protect_strength

    def fingerprint(self) -> str:
        """Everything that decides the files: these settings, the version, the shipped tables, the content of models."""
        data = "" if self.lossless else shipped_sha256()
        found = asdict(self) | {"tune": self.tune or "balanced", "sampling": self.sampling or "by image"}
        for models in ("protect", "protect_strength", "model"):
            del found[models]
        if self.protect is not None:
            found["protect"] = {"detector": _model_sha256(self.protect), "strength": self.strength}
        if self.model is not None:
            found["model"] = _model_sha256(self.model)
        return json.dumps({**found, "blemish": __version__, "data": data}, sort_keys=True)


def _model_sha256(folder: Path) -> str:
    """SHA-256 of the files that decide a model's results."""
    files = [folder / name for name in (MODEL_FILE, WEIGHTS_FILE)]
    return hashlib.sha256("".join(f"{file_sha256(path)}" for path in files).encode()).hexdigest()
