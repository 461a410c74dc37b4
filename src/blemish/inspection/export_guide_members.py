"""Steps of memory banks and filter banks in the guide to an exported folder."""

from __future__ import annotations

from blemish.detectors.filter_responses import (
    CELL,
    DARKEST,
    DIRECTIONS,
    LEAST_SIDE,
    LENGTHS,
    OCTAVES,
    QUIETEST,
    SLOW,
)
from blemish.runtime.bank import BLOCK, SEARCHED, SQUARES
from blemish.runtime.features import CONTRAST_SIGMA, CONTRAST_SIZE, FEATURES, IMAGE, QUIET, REDUCTION
from blemish.runtime.record import ExportedBank, ExportedExtractor, ExportedMemory


def memory_section(member: ExportedMemory, prefix: str) -> str:
    """Section of a memory bank, whose arrays begin with ``prefix``."""
    sections = [_bank(bank, f"{prefix}banks.{number}.", number) for number, bank in enumerate(member.banks)]
    total = "Its map is the sum of the maps of its banks.\n\n" if len(member.banks) > 1 else ""
    return (
        f"## Memory bank: {member.title}\n\n{total}"
        "Arrays are in `model.safetensors` (a length of 8 bytes, that much JSON with type, shape and place of each array, "
        "then the arrays; little-endian).\n\n" + "\n".join(sections)
    )


def _bank(bank: ExportedBank, prefix: str, number: int) -> str:
    own = bank.extractor
    steps = [_view(own)]
    if bank.search is None:
        steps.append(f"Resample it to the height and width in `{prefix}size`.")
    steps += [
        _features(own),
        f"Project each: q = (feature − mean) · basis, with `{prefix}mean` (f) and `{prefix}basis` (f, k).",
        _search(bank, prefix),
        "The distance is √(max(0, square) / 2f), with f the number of values of a feature, before projection.",
        f"Read it in spreads of good images: with `{prefix}normaliser.mean` and `{prefix}normaliser.spread`, d = spread + "
        "2 · (mean of spread) + 10⁻⁶, and max(0, (distance − mean) / d), mean and d resampled to the places.",
        f"Bring it to pixels: pixel y of an axis is the linear interpolation at place (y − {own.offset}) / {own.stride}, "
        "or the first or the last place beyond them"
        + (
            "; then resample it to the size before step 2"
            + (", then to that of the preprocessed image." if own.name == "local-contrast" else ".")
            if bank.search is None
            else (
                "; then resample it to the size of the preprocessed image."
                if own.name == "local-contrast"
                else "."
            )
        ),
    ]
    listed = "\n".join(f"{place}. {step}" for place, step in enumerate(steps, start=1))
    return f"### Bank {number}: {own.title}\n\n{listed}\n"


def _view(own: ExportedExtractor) -> str:
    least = f"Take the preprocessed image, {own.least_side} pixels a side at least"
    if own.name != "local-contrast":
        return f"{least}."
    return (
        f"{least}; subtract the mean of each channel. With the Gaussian of {CONTRAST_SIGMA:g} pixels and "
        f"r = {CONTRAST_SIZE // 2}, G, the local contrast of a channel is c = √max(0, G(x²) − G(x)²); take "
        f"ln(c + {QUIET:g} · (mean of c) + 10⁻⁶), and resample H × W to ⌊H / {REDUCTION}⌋ × ⌊W / {REDUCTION}⌋."
    )


def _features(own: ExportedExtractor) -> str:
    if own.graph is not None:
        return (
            f"`{own.graph}`: input `{IMAGE}` float32 (1, C, H, W) of any size; output `{FEATURES}` (1, h, w, f), a feature "
            "at each of h × w places."
        )
    cut = (
        f"Mirror the border, {own.patch // 2} pixels on each side, and cut patches of {own.patch} × {own.patch} pixels out "
        f"at every {own.stride}-th row and column from the first, as long as they fit: h × w places."
    )
    if own.name == "colour":
        return f"{cut} The feature of a place is the mean of each channel, f = C values."
    return (
        f"{cut} Take the mean of each channel out of each patch; its values, channel by channel and row by row, are "
        f"f = C · {own.patch}² numbers x. With v = √(mean of x²) of a patch, and v̄ the mean of v over all places, the "
        f"feature is x / (v + {own.floor:g} · max(v̄, 10⁻⁶))."
    )


def _search(bank: ExportedBank, prefix: str) -> str:
    if bank.search is not None:
        return (
            f"`{bank.search}` finds the nearest feature of good images: input `{SEARCHED}` float32 (n, k + 1), −2 q and "
            f"then 1, n of any number; output `{SQUARES}` (n). The square of the distance is this plus Σ q²."
        )
    return (
        f"`{prefix}bank` (h, w, images, k) in half precision has features of good images at the same places. Take the "
        f"{bank.nearest_images} images, or all if there are fewer, with the least Σ √(Σ (q − feature)²), the outer sum over "
        "every other row and column of places from the first. Divide the places into blocks of "
        f"{BLOCK} × {BLOCK} from the first; the square of a place is the least Σ (q − feature)² over these images and all "
        f"places of its block and of {bank.reach} more on each side."
    )


def filters_section(prefix: str) -> str:
    """Section of a filter bank, whose arrays begin with ``prefix``."""
    coarsest = 2 ** (OCTAVES - 1)
    lengths = ", ".join(map(str, LENGTHS))
    return f"""## Filter bank

Here the Gaussian has r = ⌊3σ + ½⌋. Gσ(I) smooths an image, and its derivatives have along their axis in place of w(x) the
weights w(x) · x / σ² (first, Iᵣ along rows downwards and I꜀ along columns) or w(x) · (x² / σ⁴ − 1 / σ²) (second), times
I(i + x); the other axis is smoothed. *Cells* of n are squares of n × n pixels from the first; meanₙ, maxₙ and minₙ take one
value of each.

1. Take the preprocessed image, {LEAST_SIDE} pixels a side at least, without the last rows and columns beyond a multiple of
   {coarsest}. b is the mean of its channels.
2. Take the steps 3 to 5 twice: of g = ln(b + {DARKEST:g}), and of g = e / (√(mean of e²) + 0.005) with
   e = b − G₁₆(b), σ = {SLOW:g}.
3. Octave 0 is g; each of octaves 1 to {OCTAVES - 1} is the mean₂ of the one before. Of octave o, I, with cells of
   n = {CELL}, 2, 1 and 1 in octaves 0, 1, 2 and 3, take in this order:
   - D = I − G(I) of σ 2.5: meanₙ(D);
   - √(Iᵣ² + I꜀²) of σ 1: its meanₙ;
   - of the second derivatives of σ 1.2, R along rows, C along columns, B once along each: with m = (R + C) / 2 and
     a = √(((R − C) / 2)² + B²), maxₙ(m + a) and minₙ(m − a);
   - in octaves 0 and 1: maxₙ(D), minₙ(D), ln(√meanₙ(D²) + {QUIETEST:g});
   - in octaves 0, 1 and 2, with lines of L = {lengths} pixels: R, C and B are reduced by mean₂ in octaves 0 and 1. Of each
     of the directions θ = π j / {DIRECTIONS}, j = 0 … {DIRECTIONS - 1}, A = sin²θ · C − 2 sinθ cosθ · B + cos²θ · R,
     averaged over the different points (round(t sinθ) rows, round(t cosθ) columns), t = −⌊L / 2⌋ … ⌊L / 2⌋, mirrored with
     the edge. The largest over the directions, as the max, and the smallest, as the min, of the cells that are left
     (2, 1 and 1).
   Each value of octave 3 is repeated for 2 × 2 places, so that all have the same h × w places.
4. With K(I, σ, τ) = ln(√max(0, G(E²)) + {QUIETEST:g}), G of τ and E = I − G(I) of σ: mean₄ of K(octave 0, 2, 4); K(octave 2,
   2, 3); and G of σ 2 of octave 2.
5. Of an image of more than one channel: mean₄ of each channel of the preprocessed image minus the mean of them, G of σ 1.
6. These are k responses, in this order. `{prefix}mean` and `{prefix}spread` (2, k, h, w) have mean and spread of good
   images, for the first and the second g; resample them to h × w. The deviation of a place is the mean over both g of
   the largest |response − mean| / spread of its k responses.
7. The map is the deviation resampled to 4h × 4w pixels; rows and columns beyond repeat the last one.
"""
