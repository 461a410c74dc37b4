"""A detector as an estimator of scikit-learn, for its pipelines, cross-validation and metrics.

It needs the extra ``blemish[sklearn]``. The class does no arithmetic of its own: :func:`blemish.fit` fits, and every score
and decision is that of :meth:`Detector.inspect <blemish.inspection.detector.Detector.inspect>` on the same image.
"""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from blemish.data.frames import from_memory
from blemish.data.image import LoadedImage
from blemish.errors import BlemishError, MissingExtraError, Stopped, UsageError
from blemish.extras import explain_missing
from blemish.inspection.detection import Detection
from blemish.inspection.detector import Detector, load
from blemish.observer import Observer
from blemish.storage.model_folder import MODEL_FILE, WEIGHTS_FILE

with explain_missing():
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AnomalyDetector", "UnsuitableInputError"]

_LEAST_IMAGES = 3
"""One each to train, to validate and to calibrate."""
_USUAL_CHANNELS = 3
"""Channels of an image, where its shape leaves two readings and nothing else decides."""
_STATE = "model_files"


class UnsuitableInputError(UsageError, ValueError):
    """Images or parameters that the estimator cannot use: an error of Blemish that is a ``ValueError``, too."""


class AnomalyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Anomaly detector of images with the interface of scikit-learn's outlier detectors.

    It is fitted on good images alone. ``score_samples`` is minus the anomaly score, ``predict`` gives 1 for an accepted
    image and -1 for a rejected one, and ``decision_function`` is negative where the score is above the threshold.

    Images ``X`` are an array (N, H, W), (N, C, H, W) or (N, H, W, C), or a list of files, arrays and images of Pillow, of
    any sizes that the recipe takes; or rows (N, features) that ``image_shape`` turns into images. Values of uint8 and
    uint16 are those of image files. All others are scaled from ``value_range`` to [0, 1] and kept as float32, so that
    nothing is rounded to levels. A fitted estimator takes images of the kind that it was fitted on.

    Unless ``settings`` say otherwise, images of another kind (dark, blurred, of another size) are judged by their score
    like all others (``image.other_kinds=accept``), so that ``predict`` is the sign of ``decision_function``.

    Parameters
    ----------
    recipe: name of a recipe, or the path of a YAML file.
    false_reject_rate: share of good images that may be rejected; None for the recipe's.
    budget: seconds of the fit, or a text such as "5m"; None for the recipe's length.
    steps: number of training steps, instead of a budget.
    seed: of the split into training and calibration, and of the training.
    device: of the training: "auto", "cpu", "cuda" or "mps"; None for the recipe's. Images are inspected on the CPU.
    image_shape: shape of the image in each row of a two-dimensional ``X``, (H, W) or (C, H, W), where -1 stands for
        what is left: (1, -1) takes each row for an image of one row. At the fit, C also says which axis of other
        arrays is that of the channels, where these are more than 4.
    value_range: values that become 0 and 1, of arrays that are neither uint8 nor uint16; others are refused.
    settings: ``key=value`` overrides of the recipe, as of :func:`blemish.fit`.

    Attributes
    ----------
    detector_ : Detector
        The fitted detector, with its guarantee, p-values and anomaly maps; ``detector_.save(folder)`` keeps it.
    offset_ : float
        Minus the threshold: ``decision_function`` is ``score_samples - offset_``.
    n_features_in_ : int
        Length of the rows of a two-dimensional ``X``; absent after a fit on images.
    feature_names_in_ : ndarray
        Names of the columns, where a two-dimensional ``X`` has such.

    Notes
    -----
    The fit reads its images several times, from files. It writes arrays without loss to a temporary folder (the
    environment variable ``TMPDIR`` names another place) that is gone when it ends.

    A pickle, and so a file of joblib, holds ``model.json`` and ``model.safetensors`` as a model folder does. Unpickling
    runs code of whoever wrote the file: between people, exchange the folder of ``detector_.save``.
    """

    def __init__(
        self,
        recipe: str | Path = "blemish",
        *,
        false_reject_rate: float | None = None,
        budget: str | float | None = None,
        steps: int | None = None,
        seed: int = 0,
        device: str | None = None,
        image_shape: tuple[int, ...] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        settings: Sequence[str] = (),
    ) -> None:
        self.recipe = recipe
        self.false_reject_rate = false_reject_rate
        self.budget = budget
        self.steps = steps
        self.seed = seed
        self.device = device
        self.image_shape = image_shape
        self.value_range = value_range
        self.settings = settings

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on good images, and calibrate the threshold on a held-out part of them.

        Parameters
        ----------
        X: good images; 38 or more carry a false-reject rate of 5 %. A file that is listed twice counts once.
        y: ignored. Leave defective images out of ``X``.

        Raises
        ------
        UnsuitableInputError, ValueError
            When images, parameters or their number do not suit the recipe.
        """
        with _as_value_errors():
            self._check_parameters()
            images = self._images(X, reset=True)
            with explain_missing():
                from blemish.training.fit import fit
            with TemporaryDirectory(prefix="blemish-") as folder:
                self.detector_ = fit(
                    _write_list(images, Path(folder)),
                    self.recipe,
                    settings=self._all_settings(),
                    false_reject_rate=self.false_reject_rate,
                    budget=self.budget,
                    observer=_WarningObserver(),
                )
        self.offset_ = -self.detector_.threshold
        return self

    def inspect(self, X: Any) -> Iterator[Detection]:
        """Inspect images one by one, with anomaly maps and regions; all other methods are built on it.

        Raises
        ------
        NotFittedError
            Before :meth:`fit`.
        UnsuitableInputError, ValueError
            For images that cannot be read, or are not of the kind that the estimator was fitted on.
        """
        check_is_fitted(self, "detector_")
        with _as_value_errors():
            yield from map(self.detector_.inspect, self._images(X, reset=False))

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Minus the anomaly score of each image, (N,); the lower, the more anomalous. Errors as :meth:`inspect`."""
        return np.array([-found.score for found in self.inspect(X)], np.float64)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Threshold minus anomaly score of each image, (N,); negative above the threshold. Errors as :meth:`inspect`."""
        scores = self.score_samples(X)
        margins: NDArray[np.float64] = scores - self.offset_
        return margins

    def predict(self, X: Any) -> NDArray[np.int64]:
        """1 for each accepted image, -1 for each rejected one, (N,). Errors as :meth:`inspect`."""
        return np.array([-1 if found.is_anomalous else 1 for found in self.inspect(X)], np.int64)

    # -- parameters --------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        if self.steps is not None and self.budget is not None:
            raise UnsuitableInputError("budget and steps both say how long to train; leave one out")
        low, high = self.value_range
        if not (np.isfinite([low, high]).all() and low < high):
            raise UnsuitableInputError(
                f"value_range {self.value_range}: give two finite numbers, the lower one first"
            )
        shape = self.image_shape
        if shape is not None and (
            len(shape) not in (2, 3) or any(n < 1 and n != -1 for n in shape) or list(shape).count(-1) > 1
        ):
            raise UnsuitableInputError(f"image_shape {shape}: give (H, W) or (C, H, W), with at most one -1")

    def _all_settings(self) -> list[str]:
        found = ["image.other_kinds=accept", f"training.seed={self.seed}"]
        if self.steps is not None:
            found += ["training.budget=null", f"training.steps={self.steps}"]
        if self.device is not None:
            found.append(f"training.device={self.device}")
        return [*found, *self.settings]

    # -- images ------------------------------------------------------------------------------------

    def _images(self, X: Any, *, reset: bool) -> Iterator[Path | LoadedImage]:
        """Images of ``X`` one by one, once ``X`` as a whole is checked; ``reset`` at a fit."""
        least = _LEAST_IMAGES if reset else 1
        if _is_list_of_images(X):
            if len(X) < least:
                raise UnsuitableInputError(f"X holds {len(X)} image(s), and at least {least} are needed")
            self._forget_features(reset)
            return self._loaded(X)
        if (
            X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim
        ) <= 2:  # of one dimension: refused here, in the words of scikit-learn
            rows = validate_data(self, X, reset=reset, ensure_min_samples=least)
            if self.image_shape is None:
                raise UnsuitableInputError(
                    f"X has the shape {rows.shape}; set image_shape to the shape of the image in each row, or give "
                    "images (N, H, W), (N, C, H, W) or (N, H, W, C)"
                )
            return self._of_rows(rows)
        self._forget_features(reset)
        return self._loaded(check_array(X, ensure_2d=False, allow_nd=True, ensure_min_samples=least))

    def _forget_features(self, reset: bool) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            if reset and hasattr(self, name):
                delattr(self, name)

    def _of_rows(self, rows: NDArray[Any]) -> Iterator[LoadedImage]:
        shape = self.image_shape or ()
        try:
            images = rows.reshape(len(rows), *shape)
        except ValueError:
            raise UnsuitableInputError(
                f"rows of {rows.shape[1]} values are no images of image_shape {shape}"
            ) from None
        images = images if images.ndim == 4 else images[:, None]  # (N, C, H, W)
        for number, image in enumerate(images):
            # Plane by plane the order of the axes is not in question, however small they are.
            planes = [
                from_memory(self._scaled(plane, number), _name(number), channels=1).pixels for plane in image
            ]
            yield LoadedImage(_name(number), np.concatenate(planes))

    def _loaded(self, X: Sequence[Any]) -> Iterator[Path | LoadedImage]:
        shape = self.image_shape or ()
        channels = shape[0] if len(shape) == 3 and shape[0] > 0 else _USUAL_CHANNELS
        if hasattr(self, "detector_"):
            channels = self.detector_.file.preprocessing.channels
        for number, image in enumerate(X):
            if isinstance(image, (str, os.PathLike)):
                yield Path(image)
            elif isinstance(image, Image.Image):
                yield from_memory(image, _name(number), channels=channels)
            else:
                yield from_memory(self._scaled(np.asarray(image), number), _name(number), channels=channels)

    def _scaled(self, values: NDArray[Any], number: int) -> NDArray[Any]:
        """Values of uint8 and uint16 as they are, all others from ``value_range`` to [0, 1]."""
        if values.dtype in (np.uint8, np.uint16):
            return values
        if values.dtype.kind not in "biuf":
            raise UnsuitableInputError(f"{_name(number)}: is an array of {values.dtype}; give numbers")
        low, high = self.value_range
        if values.size and not ((values >= low) & (values <= high)).all():
            raise UnsuitableInputError(
                f"{_name(number)}: holds values outside {low:g} to {high:g}, or NaN; set value_range to the values "
                "that mean black and white"
            )
        scaled: NDArray[np.float32] = ((values.astype(np.float64) - low) / (high - low)).astype(np.float32)
        return scaled

    # -- pickle ------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        detector: Detector | None = state.pop("detector_", None)
        if detector is not None:
            with TemporaryDirectory(prefix="blemish-") as folder:
                detector.save(folder)
                state[_STATE] = {
                    name: (Path(folder) / name).read_bytes() for name in (MODEL_FILE, WEIGHTS_FILE)
                }
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        others = dict(state)
        files: Mapping[str, bytes] | None = others.pop(_STATE, None)
        super().__setstate__(others)
        if files is not None:
            with TemporaryDirectory(prefix="blemish-") as folder:
                for name in (MODEL_FILE, WEIGHTS_FILE):
                    (Path(folder) / name).write_bytes(files[name])
                self.detector_ = load(folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class _WarningObserver(Observer):
    """Observer that turns each image that a fit leaves out into a warning."""

    def problem(self, error: BlemishError) -> None:
        warnings.warn(f"left out of the fit: {error}", UserWarning, stacklevel=2)


@contextmanager
def _as_value_errors() -> Iterator[None]:
    """Turn errors of images and parameters into those that scikit-learn's tools expect."""
    try:
        yield
    except (UnsuitableInputError, MissingExtraError, Stopped):
        raise
    except BlemishError as error:
        raise UnsuitableInputError(str(error)) from error


def _name(number: int) -> Path:
    """Name of an image in memory, in errors and in the model's document."""
    return Path(f"X[{number}]")


def _is_list_of_images(X: Any) -> bool:
    """True for a sequence of files, arrays (H, W) or more, and images of Pillow; a list of lists of numbers is none."""
    if isinstance(X, np.ndarray):
        return X.ndim == 1 and X.dtype.kind in "UO" and _is_list_of_images(X.tolist())
    return (
        isinstance(X, (list, tuple))
        and len(X) > 0
        and all(
            isinstance(one, (str, os.PathLike, Image.Image))
            or (isinstance(one, np.ndarray) and one.ndim >= 2)
            for one in X
        )
    )


def _write_list(images: Iterator[Path | LoadedImage], folder: Path) -> Path:
    """The images as a CSV list in ``folder``; those in memory become TIFF files without loss."""
    paths: dict[str, None] = {}
    for number, image in enumerate(images):
        if isinstance(image, LoadedImage):
            name = f"{number:07d}.tif"
            pixels = image.pixels
            tifffile.imwrite(
                folder / name,
                pixels if len(pixels) > 1 else pixels[0],
                photometric="minisblack",
                planarconfig="separate" if len(pixels) > 1 else None,
                metadata=None,
            )
            paths[name] = None
        else:
            paths[os.path.abspath(image)] = None
    listed = folder / "images.csv"
    with listed.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path"])
        writer.writerows([path] for path in paths)
    return listed
