from __future__ import annotations

import copy
import pickle
import pickletools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.utils.estimator_checks as checks
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from blemish.data.image import LoadedImage, read_image
from blemish.errors import BlemishError, MissingExtraError, UsageError
from blemish.inspection.detector import load
from blemish.sklearn import AnomalyDetector, UnsuitableInputError, _write_list
from blemish.training.fit import fit

SETTINGS = ("image.pose=never", "image.size=null")
RATE = 0.2
GOOD = 24

# -- scikit-learn's own checks -------------------------------------------------------------------------

# Their data are rows of a few numbers of any size. Each row is an image of one row here, which the recipe enlarges to 8
# pixels a column.
OF_ROWS = AnomalyDetector(
    str(Path(__file__).with_suffix(".yaml")),
    false_reject_rate=0.5,
    device="cpu",
    image_shape=(1, -1),
    value_range=(-1000.0, 1000.0),
)
CANNOT_APPLY: dict[str, str] = {}
"""Checks that an estimator of images cannot pass, and why: none."""


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of the checks fit on 300 rows three times over; 20 of them show the same."""
    draw = checks.make_blobs

    def fewer(n_samples: int = 100, **others: Any) -> Any:
        return draw(n_samples=min(n_samples, 20), **others)

    monkeypatch.setattr(checks, "make_blobs", fewer)


@pytest.mark.usefixtures("few_rows")
@checks.parametrize_with_checks([OF_ROWS], expected_failed_checks=lambda _: CANNOT_APPLY)
def test_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


# -- one code path with the detector -------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(draw: Callable[..., NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Good images (24, 40, 48)."""
    return np.stack([draw(seed) for seed in range(GOOD)])


@pytest.fixture(scope="module")
def mixed(draw: Callable[..., NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """New images (10, 40, 48), good and with a bright dot by turns, and 1 or -1 for each."""
    return (
        np.stack([draw(100 + seed, dot=bool(seed % 2)) for seed in range(10)]),
        np.array([1, -1] * 5),
    )


def estimator(**changes: Any) -> AnomalyDetector:
    known: dict[str, Any] = {"false_reject_rate": RATE, "device": "cpu", "settings": SETTINGS}
    return AnomalyDetector("filter-bank", **{**known, **changes})


@pytest.fixture(scope="module")
def fitted(images: NDArray[np.uint8]) -> AnomalyDetector:
    """An estimator that was fitted on ``images``; not to be changed."""
    return estimator().fit(images)


def test_scores_and_decisions_are_those_of_the_detector(
    fitted: AnomalyDetector, mixed: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path: Path
) -> None:
    X, y = mixed
    files = [tmp_path / f"{number}.png" for number in range(len(X))]
    for path, pixels in zip(files, X, strict=True):
        Image.fromarray(pixels).save(path)
    found = [fitted.detector_.inspect(path) for path in files]
    scores = np.array([one.score for one in found])
    assert (fitted.score_samples(X) == -scores).all()
    assert (fitted.score_samples(files) == -scores).all()
    assert (fitted.score_samples([Image.open(path) for path in files]) == -scores).all()
    assert fitted.offset_ == -fitted.detector_.threshold
    assert (fitted.decision_function(X) == fitted.detector_.threshold - scores).all()
    rejected = np.array([one.is_anomalous for one in found])
    assert ((fitted.predict(X) == -1) == rejected).all()
    assert ((fitted.decision_function(X) < 0) == rejected).all()
    assert rejected[y == -1].all()
    assert roc_auc_score(y, fitted.score_samples(X)) == 1
    maps = [one.map for one in fitted.inspect(X)]
    assert all((one == other.map).all() for one, other in zip(maps, found, strict=True))


def test_a_fit_in_memory_is_the_fit_of_the_same_files(
    fitted: AnomalyDetector, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
    detector = fit(
        tmp_path,
        "filter-bank",
        settings=["image.other_kinds=accept", "training.device=cpu", *SETTINGS],
        false_reject_rate=RATE,
    )
    own = fitted.detector_.file
    assert own.calibration == detector.file.calibration
    assert {part: len(names) for part, names in own.split.items()} == {
        part: len(names) for part, names in detector.file.split.items()
    }
    assert fitted.detector_.threshold == detector.threshold
    assert fitted.detector_.guarantee == detector.guarantee


@pytest.mark.parametrize(
    "kind", ["(N, C, H, W) uint16", "(N, H, W, C) float64", "rows of 11 channels", "range"]
)
def test_images_of_any_layout_and_kind(
    images: NDArray[np.uint8], mixed: tuple[NDArray[np.uint8], NDArray[np.int64]], kind: str
) -> None:
    def shaped(grey: NDArray[np.uint8]) -> NDArray[Any]:
        if kind == "(N, C, H, W) uint16":
            return np.stack([257 * grey.astype(np.uint16)] * 3, axis=1)
        if kind == "(N, H, W, C) float64":
            return np.stack([grey / 255] * 3, axis=3)
        if kind == "range":
            return grey.astype(np.int64) - 40  # degrees, say
        return np.stack([grey] * 11, axis=1).reshape(len(grey), -1)

    changes: dict[str, Any] = {
        "rows of 11 channels": {"image_shape": (11, 40, -1)},
        "range": {"value_range": (-40, 215)},
    }.get(kind, {})
    X, y = mixed
    found = estimator(**changes).fit(shaped(images))
    data = found.detector_.file.fingerprint
    assert (data.count, data.channels, data.kind, data.width.max, data.height.max) == {
        "(N, C, H, W) uint16": (24, 3, "uint16", 48, 40),
        "(N, H, W, C) float64": (24, 3, "float32", 48, 40),
        "rows of 11 channels": (24, 11, "uint8", 48, 40),
        "range": (24, 1, "float32", 48, 40),
    }[kind]
    assert hasattr(found, "n_features_in_") == (kind == "rows of 11 channels")
    assert roc_auc_score(y, found.decision_function(shaped(X))) == 1
    if kind == "rows of 11 channels":
        planes = shaped(X).reshape(len(X), 11, 40, 48)
        assert (found.score_samples(planes) == found.score_samples(shaped(X))).all()
        assert (found.score_samples(planes.transpose(0, 2, 3, 1)) == found.score_samples(planes)).all()


@pytest.mark.parametrize(
    "shape", [(1, 40, 48), (1, 1, 7), (2, 9, 5), (3, 1, 4), (4, 3, 3), (11, 6, 8), (3, 30, 1)]
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_images_in_memory_are_written_without_loss(
    shape: tuple[int, ...], dtype: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    full = 1 if dtype == "float32" else np.iinfo(dtype).max
    pixels = (full * rng.random(shape)).astype(dtype)
    listed = _write_list(iter([LoadedImage(Path("a"), pixels)]), tmp_path)
    assert listed.read_text().split() == ["path", "0000000.tif"]
    read = read_image(tmp_path / "0000000.tif").pixels
    assert read.dtype == pixels.dtype
    assert read.shape == shape
    assert (read == pixels).all()


def test_files_of_any_name_and_left_out_images(
    images: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a, b;c.png", 'quoted "d".png', "ö |e.png"]
    names += [f"{number}.png" for number in range(GOOD - len(names))]
    for name, pixels in zip(names, images, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.warns(UserWarning, match=r"left out of the fit: .*broken\.png: "):
        found = estimator().fit([*names, names[0], "broken.png"])
    split = found.detector_.file.split
    assert sorted(name for part in split.values() for name in part) == sorted(
        (tmp_path / name).as_posix().lstrip("/") for name in names
    )
    assert list(temporary.iterdir()) == []
    again = estimator().fit(np.array(names, dtype=object))
    assert again.offset_ == found.offset_


def test_images_of_another_kind_are_rejected_where_settings_ask_for_it(images: NDArray[np.uint8]) -> None:
    flat = np.full((1, 40, 48), 3, np.uint8)
    found = estimator(settings=(*SETTINGS, "image.other_kinds=reject")).fit(images)
    assert next(found.inspect(flat)).other_kind is not None
    assert found.predict(flat) == [-1]


def test_seed_and_steps_reach_the_recipe() -> None:
    found = AnomalyDetector(seed=7, steps=3, device="cpu", settings=("patch.size=64",))._all_settings()
    assert found == [
        "image.other_kinds=accept",
        "training.seed=7",
        "training.budget=null",
        "training.steps=3",
        "training.device=cpu",
        "patch.size=64",
    ]


# -- tools of scikit-learn -----------------------------------------------------------------------------


def test_copies_and_pickles_score_the_same_and_hold_no_pickle_of_torch(
    fitted: AnomalyDetector, mixed: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path: Path
) -> None:
    X, _ = mixed
    content = pickle.dumps(fitted)
    strings = [str(argument) for _, argument, _ in pickletools.genops(content) if argument is not None]
    assert not [one for one in strings if one.startswith("torch")]
    assert {"model.json", "model.safetensors"} <= set(strings)
    expected = fitted.score_samples(X)
    for other in (pickle.loads(content), copy.deepcopy(fitted)):
        assert (other.score_samples(X) == expected).all()
        assert other.get_params() == fitted.get_params()
        assert other.detector_.guarantee == fitted.detector_.guarantee
    fitted.detector_.save(tmp_path / "model")
    assert load(tmp_path / "model").threshold == -fitted.offset_
    fresh = clone(fitted)
    assert not hasattr(fresh, "detector_")
    assert fresh.get_params() == fitted.get_params()


def test_pipeline_cross_validation_and_search(
    images: NDArray[np.uint8], mixed: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    X, y = np.concatenate([images, mixed[0]]), np.concatenate([np.ones(GOOD, np.int64), mixed[1]])
    # Good images fit, in every fold; all others test.
    folds = [(np.arange(GOOD), np.arange(GOOD, len(X)))]
    dimmed = make_pipeline(FunctionTransformer(lambda images: images // 2), estimator())
    assert cross_val_score(dimmed, X, y, scoring="roc_auc", cv=folds).tolist() == [1.0]
    dimmed.fit(images)
    assert roc_auc_score(mixed[1], dimmed.score_samples(mixed[0])) == 1
    assert (dimmed.predict(mixed[0]) == dimmed[-1].predict(mixed[0] // 2)).all()
    search = GridSearchCV(
        estimator(), {"false_reject_rate": [0.2, 0.4]}, scoring="accuracy", cv=folds, refit=False
    )
    search.fit(X, y)
    assert search.cv_results_["mean_test_score"].shape == (2,)
    assert (search.cv_results_["mean_test_score"] > 0.5).all()


# -- errors --------------------------------------------------------------------------------------------


def test_unsuitable_images_are_refused(
    fitted: AnomalyDetector, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    with pytest.raises(NotFittedError):
        estimator().predict(images)
    for wrong, message in (
        (images[0], "set image_shape"),
        (images[0, 0], "1D array"),
        (images.astype(np.uint16), r"X\[0\]: is 16-bit, the model was fitted on 8-bit images"),
        (images.astype(np.float64), r"X\[0\]: holds values outside 0 to 1.*set value_range"),
        (np.full((1, 40, 48), np.nan), "NaN"),
        (images.astype(str), "numeric values"),
        (images[:0], "0 sample"),
        ([tmp_path / "none.png"], "none.png"),
        ([images[0].astype(complex)], r"X\[0\]: is an array of complex128"),
        (np.stack([images] * 5, axis=1), "channels"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.predict(wrong)
    with pytest.raises(UnsuitableInputError) as error:
        fitted.predict([tmp_path / "none.png"])
    assert isinstance(error.value, BlemishError)
    assert isinstance(error.value, UsageError)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 3, "budget": "5m"}, "leave one out"),
        ({"value_range": (1, 1)}, "value_range"),
        ({"value_range": (0, np.inf)}, "value_range"),
        ({"image_shape": (40,)}, "image_shape"),
        ({"image_shape": (-1, -1)}, "image_shape"),
        ({"recipe": "no-recipe"}, "no-recipe"),
        ({"false_reject_rate": 0.01}, "99"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_unsuitable_parameters_are_refused(
    images: NDArray[np.uint8], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsuitableInputError, match=message):
        estimator().set_params(**changes).fit(images)


def test_unsuitable_images_of_a_fit_are_refused(images: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="at least 3"):
        estimator().fit(list(images[:2]))
    with pytest.raises(ValueError, match="minimum of 3"):
        estimator().fit(images[:2])
    with pytest.raises(ValueError, match=r"rows of 1920 values are no images of image_shape \(40, 47\)"):
        estimator(image_shape=(40, 47)).fit(images.reshape(GOOD, -1))


def test_without_scikit_learn_the_error_names_the_line_that_installs_it() -> None:
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'sklearn':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import blemish, blemish.inspection.detector\n"
        "try: import blemish.sklearn\n"
        "except blemish.BlemishError as error: print(type(error).__name__, error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"{MissingExtraError.__name__} sklearn is not installed; type")
    assert "[sklearn]'" in ran.stdout


@pytest.mark.parametrize("name", ["blemish", "blemish.inspection.detector"])
def test_nothing_else_imports_scikit_learn(name: str) -> None:
    code = f"import sys, {name}; print('sklearn' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False"]
