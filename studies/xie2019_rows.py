"""Rows, claims and published figures of Xie et al. 2019."""

from __future__ import annotations

from typing import Literal, NamedTuple

PAPER = "Xie, Meeus, Pižurica 2019, Partial Convolution Based Multimodal Autoencoder for Art Investigation"


class Row(NamedTuple):
    """One line of the tables."""

    name: str
    recipe: str
    words: str
    """Name in the paper."""
    tables: tuple[int, ...]
    """Tables of the paper in which it stands; none for rows of our own."""
    published: float | None
    settings: tuple[str, ...] = ()


# The recipes of separated sensors are trained with modality dropout, the paper's are not.
_AS_THE_PAPER = ("corruption=[]",)
ROWS = (
    Row("stacked-ae", "stacked-ae", "normal AE", (1,), 0.9366),
    Row("pen-nde", "pen-nde", "PEN + NDE", (1,), 0.9349),
    Row("pen-upde", "pen-upde", "PEN + UPDE", (1,), 0.9271),
    Row("fp-cae", "fp-cae", "FP-CAE", (1, 2), 0.9377),
    Row("fp-cae-concat", "fp-cae-concat", "FP-CAE, concatenation", (2,), 0.9469, _AS_THE_PAPER),
    Row("fp-cae-add", "fp-cae-add", "FP-CAE, addition", (2,), 0.9450, _AS_THE_PAPER),
    Row("fp-cae-concat-dropout", "fp-cae-concat", "concatenation, with modality dropout", (), None),
    # The paper gives the normal AE a learning rate of its own; here is what the convolutions do alone.
    Row(
        "stacked-ae-same-rate",
        "stacked-ae",
        "normal AE, learning rate of FP-CAE",
        (),
        None,
        ("training.schedule=inverse", "training.learning_rate=0.0012", "training.decay=0.00003"),
    ),
)
WITH_DROPOUT, SAME_RATE = ROWS[-2].name, ROWS[-1].name
CROSSED = ("fp-cae-concat", "fp-cae-add", WITH_DROPOUT)
"""Rows that are asked for each modality from the others."""
Figure = Literal["ssim", "corner"]


class Claim(NamedTuple):
    """One model is above another, which differences on the same test patches put to the test."""

    words: str
    above: str
    below: str
    figure: Figure = "ssim"
    """SSIM of the whole patch, or of the 8 × 8 windows at its corners."""


CLAIMS = (
    Claim("FP-CAE is above the normal AE at the corners (Figure 6, d = 0)", "fp-cae", "stacked-ae", "corner"),
    Claim("the same, at one learning rate (not in the paper)", "fp-cae", SAME_RATE, "corner"),
    Claim("PEN + UPDE is below the normal AE at the corners (Figure 6)", "stacked-ae", "pen-upde", "corner"),
    Claim("FP-CAE is above the normal AE (Table 1)", "fp-cae", "stacked-ae"),
    Claim("the same, at one learning rate (not in the paper)", "fp-cae", SAME_RATE),
    Claim("PEN + NDE is slightly below the normal AE (Table 1)", "stacked-ae", "pen-nde"),
    Claim("PEN + UPDE is below the normal AE (Table 1)", "stacked-ae", "pen-upde"),
    Claim("sensors apart, concatenated, are above stacked ones (Table 2)", "fp-cae-concat", "fp-cae"),
    Claim("sensors apart, added, are above stacked ones (Table 2)", "fp-cae-add", "fp-cae"),
    Claim("concatenation is above addition, not much (Table 2)", "fp-cae-concat", "fp-cae-add"),
    Claim("what dropout costs where nothing is missing (not in the paper)", "fp-cae-concat", WITH_DROPOUT),
)
