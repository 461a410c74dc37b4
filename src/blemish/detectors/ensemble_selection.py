"""What a detector remembers of its good images, and how much that counts beside its network.

Both are decided on held-out good images that synthetic blemishes have spoiled; no defective image is needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blemish.decision import average_precision, image_score, roc_auc, trimmed
from blemish.detectors.map_normaliser import FEWEST, MapNormaliser
from blemish.detectors.memory_bank import joined
from blemish.errors import Stopped
from blemish.inspection.detector import Detector, EnsembleCandidate
from blemish.models.synthetic_anomalies import SyntheticAnomalies, anomaly_mask
from blemish.observer import Observer

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
HELD_OUT = 32
"""Held-out images that are spoiled, at most."""
SPOILED = 3
"""Spoiled copies of each of them, beside the good one."""
GOOD = 0.9
"""Share of the good held-out images whose score is below 1 by each of the two maps."""
PIXELS = 4
"""Every so many pixels count for the pixel metric."""
LEARNING = 256
"""Held-out images that tell what the network's map usually shows, at most."""
COARSER = 4
"""Pixels of an image to one place of that."""

T = TypeVar("T")


class Images(Protocol):
    """Prepared images (C, h, w) by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> NDArray[np.float32]: ...


class _Tensors:
    """Images of several sources, one after the other; each is read when it is asked for."""

    def __init__(self, *sources: tuple[Images, Sequence[int]]) -> None:
        self._places = [(source, index) for source, indices in sources for index in indices]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int, /) -> Tensor:
        source, index = self._places[number]
        return torch.from_numpy(source[index])


class EnsembleSelection(NamedTuple):
    """What :func:`select_ensemble` gives."""

    candidates: tuple[EnsembleCandidate, ...]
    words: str
    left_out: tuple[int, ...]
    """Numbers of the training images that were forgotten again."""


class _Case(NamedTuple):
    """A held-out image, good or spoiled, in the eyes of the network and of the memory; (h, w) each."""

    image: int
    """Its number among those held out."""
    spoiled: NDArray[np.bool_]
    raw: NDArray[np.float32]
    """The network's map as it is."""
    by_network: dict[bool, Tensor]
    """That beyond what it shows of the other held-out images, by whether places matter."""
    by_memory: dict[bool, Tensor]
    """By whether places matter."""


def select_ensemble(
    detector: Detector,
    images: Images,
    held_out: Images,
    observer: Observer,
    groups: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
) -> EnsembleSelection:
    """Fill the memory of ``detector``'s model in place, and weigh it.

    With ``training.trim`` the training images that are least like all the others in the chosen memory, as many as it
    says, are forgotten again.

    The network's map is read by what it shows of held-out good images, at each place where places matter. Network
    and memory are each scaled so that most of these images score below 1, which makes them together
    (:func:`~blemish.detectors.memory_bank.joined`) a map of one fixed scale. A memory that does not help is emptied.

    Parameters
    ----------
    images: prepared training images (C, h, w).
    held_out: prepared good images that did not train; once the choice is made they are remembered too.
    groups: what each of ``images`` and each of ``held_out`` is of: what is usual is told between groups, unless all
        are of one. Without it each image is by itself.

    Raises
    ------
    Stopped
        When the observer asked to stop.
    """
    memory = detector.model.memory
    assert memory is not None
    seed = detector.recipe.training.seed
    good = _Tensors((images, range(len(images))))
    if groups is None:
        count = len(images)
        groups = range(count), range(count, count + len(held_out))
    shown = _cases(detector, held_out, seed)
    if not any(spoiled.ravel()[::PIXELS].any() for _, _, spoiled in shown):
        memory.forget()
        said = "The network alone decides; on these images no synthetic blemish can be seen to weigh a memory by."
        return EnsembleSelection((), said, ())
    cases = [
        _Case(image, spoiled, detector.by_network(x)[0], {}, {})
        for image, x, spoiled in _watched(shown, observer)
    ]
    usually = [case.raw for case in cases[:: 1 + SPOILED]]
    more = range(len(usually), min(len(held_out), LEARNING))
    usually += [detector.by_network(held_out[index])[0] for index in _watched(more, observer)]
    for by_place in {False, *memory.ways}:
        for image, some in groupby(cases, lambda case: case.image):
            usual = MapNormaliser()
            _learn(usual, usually, groups[1], by_place, without=image)
            for case in some:
                case.by_network[by_place] = usual(torch.from_numpy(case.raw))
    for by_place in memory.ways:
        memory.fill(good, torch.Generator().manual_seed(seed), by_place=by_place, groups=groups[0])
        for case, (_, x, _) in zip(cases, _watched(shown, observer), strict=True):
            case.by_memory[by_place] = torch.from_numpy(detector.by_memory(x))
    units = {by_place: _units(detector, cases, by_place) for by_place in {False, *memory.ways}}
    shares = SHARES if memory.share is None else (memory.share,)
    candidates = [
        _tried(detector, cases, by_place, share, units[by_place])
        for share in shares
        for by_place in (memory.ways if share else (False,))
    ]
    spoiled = sum(bool(case.spoiled.any()) for case in cases)
    best = _chosen(candidates, len(cases) - spoiled, spoiled)
    candidates = [one.model_copy(update={"is_chosen": one is best}) for one in candidates]
    words = _in_words(best, min(len(held_out), HELD_OUT))
    if best.by_place is None:
        memory.forget()
        _learn(memory.network, usually, groups[1], False)
        memory.weigh(units[False], 0.0)
        return EnsembleSelection(tuple(candidates), words, ())
    by_place = best.by_place

    def fill(good: _Tensors, of: Sequence[Hashable]) -> None:
        memory.fill(good, torch.Generator().manual_seed(seed), by_place=by_place, groups=of)

    left_out: tuple[int, ...] = ()
    trim = detector.recipe.training.trim
    if trim and len(good) > 1:
        observer.stage("Looking for training images that are unlike all the others")
        fill(good, groups[0])
        left_out = trimmed(_alone(detector, good, observer), trim)
    stay = [number for number in range(len(images)) if number not in left_out]
    # What the choice was made on may be remembered now: the decision rests on other images still.
    both = _Tensors((images, stay), (held_out, range(len(held_out))))
    fill(both, [*(groups[0][number] for number in stay), *groups[1]])
    _learn(memory.network, usually, groups[1], by_place)
    memory.weigh(units[by_place], best.share)
    return EnsembleSelection(tuple(candidates), words, left_out)


def _learn(
    usual: MapNormaliser,
    maps: Sequence[NDArray[np.float32]],
    groups: Sequence[Hashable],
    by_place: bool,
    without: int | None = None,
) -> None:
    """Let ``usual`` learn the network's maps but those of the group of number ``without``, in the same manner with and
    without them.
    """
    together = Counter(groups[: len(maps)])
    if len(together) == 1:  # or nothing would be left
        groups = range(len(maps))
        together = Counter(groups)
    others = [
        torch.from_numpy(one)
        for number, one in enumerate(maps)
        if without is None or groups[number] != groups[without]
    ]
    fewest = len(maps) - max(together.values())
    if fewest:
        usual.learn(others, by_place=by_place and fewest >= FEWEST, coarser=COARSER)


def _alone(detector: Detector, good: _Tensors, observer: Observer) -> list[float]:
    """How unlike all other remembered images each of ``good`` is."""
    return [
        _score(detector, torch.from_numpy(detector.by_memory(good[number].numpy(), number)))
        for number in _watched(range(len(good)), observer)
    ]


def _watched(things: Sequence[T], observer: Observer) -> Iterator[T]:
    """``things`` one by one, counted, until the observer asks to stop."""
    for done, one in enumerate(things, start=1):
        if observer.should_stop():
            raise Stopped("stopped while weighing the memory; the trained network is in the checkpoint")
        yield one
        observer.count(done, len(things))


def _cases(
    detector: Detector, held_out: Images, seed: int
) -> list[tuple[int, NDArray[np.float32], NDArray[np.bool_]]]:
    """Each held-out image by number, as it is and then spoiled; with the mask of what changed."""
    spoiling = next(part for part in detector.model.corruptions if isinstance(part, SyntheticAnomalies))
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for index in range(min(len(held_out), HELD_OUT)):
        x = torch.from_numpy(held_out[index])[None]
        cases.append((index, held_out[index], np.zeros(x.shape[2:], dtype=np.bool_)))
        others = x.expand(SPOILED, -1, -1, -1)
        spoiled = spoiling.spoil(others, 0.0, generator)
        where = anomaly_mask(spoiled, others)[:, 0] > 0.5
        cases += [(index, one.numpy(), mask.numpy()) for one, mask in zip(spoiled, where, strict=True)]
    return cases


def _units(detector: Detector, cases: Sequence[_Case], by_place: bool) -> tuple[float, float]:
    """The score that most good images stay below by the network, and by the memory, if that was asked.

    Of scores and not of pixels: an image is judged by its worst place, and how far that sticks out differs.
    """
    good = [case for case in cases if not case.spoiled.any()]

    def most(maps: Sequence[Tensor]) -> float:
        return max(float(np.quantile([_score(detector, one) for one in maps], GOOD)), 1e-6)

    asked = [case.by_memory[by_place] for case in good if case.by_memory.get(by_place) is not None]
    return most([case.by_network[by_place] for case in good]), most(asked) if asked else 1.0


def _score(detector: Detector, shown: Tensor) -> float:
    rule = detector.recipe.score
    return image_score(shown.numpy(), kind=rule.name, quantile=rule.quantile, sigma=rule.sigma)


def _tried(
    detector: Detector, cases: Sequence[_Case], by_place: bool, share: float, units: tuple[float, float]
) -> EnsembleCandidate:
    maps = [joined(case.by_network[by_place], case.by_memory.get(by_place), units, share) for case in cases]
    scores = np.array([_score(detector, one) for one in maps])
    labels = np.array([case.spoiled.any() for case in cases])
    pixels = np.concatenate([one.numpy().ravel()[::PIXELS] for one in maps])
    truth = np.concatenate([case.spoiled.ravel()[::PIXELS] for case in cases])
    return EnsembleCandidate(
        by_place=by_place if share else None,
        share=share,
        image_auroc=roc_auc(labels, scores),
        pixel_ap=average_precision(truth, pixels),
    )


def _chosen(candidates: Sequence[EnsembleCandidate], good: int, spoiled: int) -> EnsembleCandidate:
    """The candidate with most memory that is not clearly worse than the best, nor worse than the network alone.

    Clearly is by two standard errors, and as good as the network alone is within one. The network has learned to
    find blemishes of the kind that it is tried on here, and real ones are of other kinds; whatever is unlike the good
    images is unlike the memory. So the trial says how far the memory can be trusted, but not how much the network
    can: in doubt the memory counts.
    """

    def within(one: EnsembleCandidate, errors: int) -> float:
        return one.image_auroc - errors * _standard_error(one.image_auroc, good, spoiled)

    best = max(candidates, key=lambda one: one.image_auroc)
    enough = max([within(best, 2), *(within(one, 1) for one in candidates if not one.share)])
    near = [one for one in candidates if one.image_auroc >= enough]
    return max(near, key=lambda one: (one.share, one.image_auroc))


def _standard_error(auroc: float, good: int, spoiled: int) -> float:
    """Of an area under the ROC curve (Hanley and McNeil, Radiology 143(1), 1982, equations 1 and 2)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc) + (spoiled - 1) * (q1 - auroc**2) + (good - 1) * (q2 - auroc**2)
    return math.sqrt(max(variance, 0) / (good * spoiled))


def _in_words(best: EnsembleCandidate, count: int) -> str:
    how = f"on synthetic blemishes in {count} held-out good images (image AUROC {best.image_auroc:.3f})"
    if not best.share:
        return f"The network alone decides; the memory of the good images did not help {how}."
    where = "each place with the same place" if best.by_place else "each place with any place"
    return f"The map is {100 * best.share:.0f} % memory, comparing {where} of the good images; chosen {how}."
