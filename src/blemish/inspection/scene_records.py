"""Records of an inspection of scenes: a line for each block in the log of a scene, and one for each scene."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, FiniteFloat

from blemish.decision import Inspection
from blemish.storage.tiled_array import BlockRecord


class ScoredSquare(BaseModel):
    """One scored square of a scene, in its pixels."""

    model_config = ConfigDict(frozen=True)

    x: int
    y: int
    width: int
    height: int
    score: FiniteFloat
    p_value: FiniteFloat


class ModalityRecord(BaseModel):
    """One modality of a scene: its presence, and the similarity of its reconstruction."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: Literal["present", "missing", "hidden"]
    similarity: FiniteFloat | None
    """1 − mean residual of its reconstruction from all modalities that the model was shown; None where it was not."""
    from_others: FiniteFloat | None
    """The same of its reconstruction from the other modalities alone; None where there is none."""
    measure: str = "SSIM"
    """Name of these two figures."""
    linear: FiniteFloat | None = None
    """SSIM of linear regression on the pixels of the others, on the held-out patches of the fit."""
    constant: FiniteFloat | None = None
    """SSIM of the mean of each patch, on the same."""
    is_learned: bool = True
    """False of a modality that is left out of score and maps, because the model reconstructs a constant."""


class SceneRecord(Inspection):
    """Decision on one scene.

    A scene is scored square by square, since it is no image among many of one kind: ``score`` is the highest
    and ``threshold`` that of a square. ``p_value`` combines those of all squares (Simes 1986), and
    ``is_anomalous`` says whether any square stays called when the false-discovery rate among the squares is kept
    to the false-reject rate (Benjamini and Hochberg 1995); with a threshold without a promise, whether any
    square is above it. The largest ``regions`` come first; they are found on the overview, so their boxes and
    areas are as coarse as it is.
    """

    squares: int
    """Number of scored squares."""
    above: int
    """Number of squares above the threshold; the false-reject rate is the share allowed of good ones."""
    called: int
    """Number of anomalous squares after correction for the number of squares (Benjamini and Hochberg)."""
    strongest: tuple[ScoredSquare, ...]
    modalities: tuple[ModalityRecord, ...]
    notices: tuple[str, ...]


class Sum(NamedTuple):
    """Sum of values over the pixels that have any, and their number."""

    total: float
    pixels: int


class InspectedBlock(BlockRecord):
    """Line of a finished block in the log of a scene."""

    scores: tuple[tuple[FiniteFloat | None, ...], ...]
    """Scores of its squares, row by row; None where less than half of a square is present."""
    own: tuple[Sum, ...]
    """Sum, for each modality, of 1 − SSIM of its reconstruction."""
    cross: tuple[Sum, ...]
    """Sum, for each modality, of 1 − SSIM of its reconstruction from the others."""
    reading: FiniteFloat
    computing: FiniteFloat
    writing: FiniteFloat
    """Seconds."""
