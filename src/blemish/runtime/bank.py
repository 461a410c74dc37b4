"""Memory bank as arrays and graphs: that of :mod:`blemish.detectors.patch_bank`, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from blemish.detectors.contracts import AnomalyMaps, Floats
from blemish.detectors.map_arrays import MapScale, axis_matrix, places_matrix, resized_array, separable
from blemish.errors import TooSmallError, UsageError
from blemish.preprocessing.absent import Mask, filled, inside_places, mask_at, resized_mask, zero_outside
from blemish.runtime.features import FeatureArrays
from blemish.runtime.record import ExportedBank, ExportedMemory
from blemish.runtime.sessions import Session

QUERIES = 512
"""Features that are compared at once where places do not matter."""
BLOCK = 4
"""Side in steps of the places that are compared at once where they do."""
SEARCHED, SQUARES = "features", "squares"
"""Names of the input and the output of a graph that searches a bank."""
ABSENT = -65504.0
"""Value of a bank at a place outside the image, as :mod:`~blemish.detectors.patch_bank` sets it."""


class ArrayBank:
    """Distance of an image to features of good images, normalised by good images.

    Parameters
    ----------
    record, extractor: of the bank.
    arrays: ``mean`` (f,), ``basis`` (f, k), ``normaliser.mean`` and ``normaliser.spread``; and where places matter
        ``bank`` (h, w, images, k) and ``size`` (2,), what every image is brought to.
    search: squared distance of features to the nearest of the bank, where places do not matter.
    """

    def __init__(
        self,
        record: ExportedBank,
        extractor: FeatureArrays,
        arrays: Mapping[str, np.ndarray],
        search: Session | None,
    ) -> None:
        self.record, self.extractor, self.search = record, extractor, search
        self.mean, self.basis = arrays["mean"], arrays["basis"]
        self.scale = MapScale(arrays["normaliser.mean"], arrays["normaliser.spread"])
        self.size: tuple[int, int] | None = None
        if search is None:
            height, width = arrays["size"].tolist()
            self.size = (height, width)
            self.bank = arrays["bank"]  # (h, w, images, k) in half precision
            self.has_absent = bool((self.bank[..., 0] == ABSENT).any())
            # Every other place decides which images are the nearest.
            sparse = self.bank[::2, ::2].astype(np.float32)
            sparse[sparse[..., 0] == ABSENT] = np.nan
            self.sparse = np.ascontiguousarray(sparse)

    def check(self, height: int, width: int) -> None:
        """Refuse an image that is too small.

        Raises
        ------
        UsageError
            Naming the size and the least one.
        """
        least, title = self.record.extractor.least_side, self.record.extractor.title
        if min(height, width) < least:
            raise TooSmallError((height, width), least, f"for the features {title}")

    def __call__(self, x: Floats) -> Floats:
        """Map (H, W) of an image (C, H, W), NaN at places outside it: at least 0, and 0 there."""
        self.check(x.shape[1], x.shape[2])
        whole = inside_places(x)
        reduced, inside = _filled_again(self.extractor.reduced(filled(x, whole), whole), whole)
        view = reduced
        if self.size is not None:
            view, inside = _filled_again(resized_array(reduced, self.size), inside)
        features = self.extractor.projected(view, inside, self.mean, self.basis)  # (h, w, k)
        if inside is not None:
            size = (features.shape[0], features.shape[1])
            own = self.record.extractor
            features[~mask_at(inside, own.stride, own.offset, size)] = np.nan
        squares = self._anywhere(features) if self.search is not None else self._by_place(features)
        distances = np.sqrt(np.maximum(squares / np.float32(2 * len(self.mean)), 0))
        values = self.scale(distances)  # (h, w)
        values = filled(values, inside_places(values))  # what is absent must not fade into its neighbours
        own = self.record.extractor
        rows, columns = (
            _at_pixels(places, own.stride, own.offset, side, reduced_side, final)
            for places, side, reduced_side, final in zip(
                values.shape, view.shape[1:], reduced.shape[1:], x.shape[1:], strict=True
            )
        )
        return zero_outside(separable(values, rows, columns), whole)

    def _anywhere(self, features: Floats) -> Floats:
        assert self.search is not None
        queries = features.reshape(-1, features.shape[2])
        # The last column multiplies the squared lengths of the bank's features.
        scaled = np.concatenate([-2 * queries, np.ones((len(queries), 1), np.float32)], 1)
        found = [
            self.search({SEARCHED: scaled[start : start + QUERIES]})
            for start in range(0, len(queries), QUERIES)
        ]
        squares: Floats = np.concatenate(found) + np.einsum("nk,nk->n", queries, queries)
        return squares.reshape(features.shape[:2])

    def _nearest_images(self, queries: Floats) -> np.ndarray:
        """Numbers in the bank of the images nearest to ``queries`` (h, w, k), as the bank in torch finds them."""
        distance = np.zeros(self.sparse.shape[2], np.float32)
        places = np.zeros(self.sparse.shape[2], np.float32)
        for query, row in zip(queries[::2, ::2], self.sparse, strict=True):  # (w, k), (w, images, k)
            difference = row - query[:, None]
            own = np.sqrt(np.einsum("wik,wik->wi", difference, difference))
            distance += np.nansum(own, 0)
            places += (~np.isnan(own)).sum(0)
        distance = np.divide(distance, places, out=np.full_like(distance, np.inf), where=places > 0)
        count = min(self.record.nearest_images, len(distance))
        return np.argpartition(distance, count - 1)[:count]

    def _by_place(self, queries: Floats) -> Floats:
        """Squared distance of each of ``queries`` (h, w, k) to the nearest of the bank near its place: (h, w)."""
        height, width, k = queries.shape
        reach = self.record.reach
        images = self.bank[:, :, self._nearest_images(queries)].astype(np.float32)
        nearest = np.full((height, width), np.nan, np.float32)
        for top in range(0, height, BLOCK):
            rows = slice(max(0, top - reach), top + BLOCK + reach)
            for left in range(0, width, BLOCK):
                columns = slice(max(0, left - reach), left + BLOCK + reach)
                near = images[rows, columns].reshape(-1, k)
                if self.has_absent:
                    near = near[near[:, 0] != ABSENT]
                    if not len(near):
                        continue
                block = queries[top : top + BLOCK, left : left + BLOCK]
                own = block.reshape(-1, k)
                # Features of one place are alike, and their common part would cost most of the precision; so would a
                # square that is the sum of larger ones.
                centre = near[: len(own)].mean(0)
                near, own = near - centre, own - centre
                found = near[(np.einsum("nk,nk->n", near, near) - 2 * (own @ near.T)).argmin(1)]
                difference = own - found
                squares = np.einsum("nk,nk->n", difference, difference)
                nearest[top : top + BLOCK, left : left + BLOCK] = squares.reshape(block.shape[:2])
        return nearest


def _filled_again(x: Floats, inside: Mask | None) -> tuple[Floats, Mask | None]:
    """An image (C, h, w) made of a filled one, filled again from where ``inside`` (H, W) is at its own size; and that."""
    if inside is None:
        return x, None
    own = resized_mask(inside, (x.shape[1], x.shape[2]))
    return filled(x, own), own


@lru_cache(maxsize=64)
def _at_pixels(places: int, stride: int, offset: int, side: int, reduced: int, final: int) -> Floats:
    """Matrix (final, places): places of a view of ``side`` pixels, resized to ``reduced``, then to ``final``."""
    matrix = places_matrix(places, stride, offset, side)
    for of, to in ((side, reduced), (reduced, final)):
        if of != to:
            matrix = axis_matrix(of, to) @ matrix
    return matrix


class ArrayMemory:
    """Anomaly model of banks, whose maps are added."""

    takes_absent = False
    keeps_good_images = True
    is_normalised = True

    def __init__(self, record: ExportedMemory, banks: Sequence[ArrayBank]) -> None:
        self.title = record.title
        self.sees_areas = any(own.extractor.name == "colour" for own in record.banks)
        self.banks = banks

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        """The whole image, because features are relative to it."""
        for bank in self.banks:
            bank.check(*size)
        return slice(0, size[0]), slice(0, size[1])

    def maps(self, x: Floats, *, hidden: Sequence[slice] = ()) -> AnomalyMaps:
        """As :meth:`~blemish.detectors.contracts.AnomalyModel.maps`."""
        if np.isnan(filled(x, inside_places(x))).any():
            raise UsageError(
                "the image has absent values (NaN), which a memory bank cannot take; use fp-cae-add, "
                "fp-cae-concat or fp-cae, or fill them"
            )
        total, *rest = (bank(x) for bank in self.banks)
        for values in rest:
            total = total + values
        return AnomalyMaps(total, None)
