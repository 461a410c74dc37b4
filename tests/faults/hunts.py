"""Hunts for faults: commands of the product that are killed, meet a full disk, or find their inputs changed.

Afterwards the same command is typed again; where the product refuses, with the option that its message offers,
``--resume`` before ``--overwrite``. The end state must be that of an undisturbed run: no record or file lost, none twice,
none with other content, nothing left over. Trial i of a job depends on the seed, the name of the job and i alone, so that a
hunt that was interrupted goes on where it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.faults.changed_inputs import InputChanges, changeable
from tests.faults.counts import Counts, in_words, total
from tests.faults.end_state import differences
from tests.faults.full_disk import PAGE, SmallDisk, fill
from tests.faults.inputs import make_inputs
from tests.faults.kill import Bench, Outcome, Place, Undisturbed
from tests.faults.scenarios import Scenario

GOLDEN = 0.618033988749895
"""Steps of this part of a circle fill it evenly, however many there are."""
AGAIN, MOST = 0.3, 4
"""Chance that a command that is typed again is killed too, and the most kills of one trial."""

Tell = Callable[[str], None]
Trial = Callable[[Scenario, int], Outcome]


def share(number: int, rng: random.Random) -> float:
    """Moment of trial ``number`` as a share of the run, 0 to 1; those of all trials are spread evenly, with some chance."""
    return (number * GOLDEN + 0.05 * rng.random()) % 1


def places(number: int, rng: random.Random) -> list[Place]:
    """Moments of the kills of one trial: of the first run, by operation or by time in turn, and of its repetitions."""
    found = [Place(share(number // 2, rng), number % 2 == 0)]
    while len(found) < MOST and rng.random() < AGAIN:
        found.append(Place(rng.random(), rng.random() < 0.5))
    return found


def rounds(
    scenarios: Sequence[Scenario], counts: Mapping[str, Counts], hits: int
) -> Iterator[tuple[Scenario, int]]:
    """Trials that are still to be made, a scenario after the other, until all have ``hits`` disturbances together.

    Raises
    ------
    RuntimeError
        When many rounds in a row disturb nothing.
    """
    in_vain, number = 0, 0
    while True:
        before = total(counts)["hits"]
        for scenario in scenarios:
            if number % scenario.every:
                continue
            if total(counts)["hits"] >= hits:
                return
            if counts[scenario.name].trials <= number // scenario.every:
                yield scenario, number // scenario.every
        in_vain = in_vain + 1 if total(counts)["hits"] == before and hits else 0
        if in_vain > 1000:
            raise RuntimeError("nothing can be disturbed")
        number += 1


def hunt_kills(
    scenarios: Sequence[Scenario],
    hits: int,
    bench: Bench,
    *,
    seed: int = 0,
    checked: bool = True,
    counts: dict[str, Counts] | None = None,
    tell: Tell = lambda line: None,
) -> dict[str, Counts]:
    """Kill the scenarios, ``hits`` times in all, and count the outcomes of each by its name.

    Parameters
    ----------
    seed: of the moments of the kills.
    checked: whether each scenario is first run twice undisturbed, to see that its end state is the same.
    counts: of an interrupted hunt, which are gone on with.
    tell: hears of the progress after each trial.

    Raises
    ------
    RuntimeError
        When a scenario fails undisturbed, or when two undisturbed runs differ.
    """
    if counts is not None and total(counts)["hits"] >= hits:
        return counts
    references = _undisturbed(bench, scenarios, checked=checked)

    def trial(scenario: Scenario, number: int) -> Outcome:
        rng = random.Random(f"{seed}/{scenario.name}/{number}")
        return bench.kill(scenario, references[scenario.name], places(number, rng))

    return _hunt(scenarios, references, hits, trial, counts, tell)


def hunt_full_disks(
    scenarios: Sequence[Scenario],
    hits: int,
    bench: Bench,
    disk: SmallDisk,
    *,
    seed: int = 0,
    counts: dict[str, Counts] | None = None,
    tell: Tell = lambda line: None,
) -> dict[str, Counts]:
    """Run the scenarios on a disk that is too small, ``hits`` times in all; then again with room.

    Parameters
    ----------
    bench: its folder lies on ``disk``.

    The other parameters and errors are those of :func:`hunt_kills`.
    """
    if counts is not None and total(counts)["hits"] >= hits:
        return counts
    make_room: dict[str, tuple[int, int]] = {}
    references = {}
    for scenario in scenarios:
        make_inputs(scenario.inputs, bench.inputs, bench.server)
        bench.begin(scenario)
        before = disk.used()
        references[scenario.name] = bench.undisturbed(scenario)
        make_room[scenario.name] = (before, disk.used())

    def trial(scenario: Scenario, number: int) -> Outcome:
        rng = random.Random(f"{seed}/{scenario.name}/{number}")
        before, after = make_room[scenario.name]
        pages = int(share(number, rng) * (after - before) / PAGE)  # to which a disk rounds its size up
        size = before + pages * PAGE
        return fill(bench, disk, scenario, references[scenario.name], size)

    return _hunt(scenarios, references, hits, trial, counts, tell)


def hunt_changed_inputs(
    scenarios: Sequence[Scenario],
    hits: int,
    bench: Bench,
    *,
    seed: int = 0,
    counts: dict[str, Counts] | None = None,
    tell: Tell = lambda line: None,
) -> dict[str, Counts]:
    """Let input files vanish, change or be cut while the scenarios run, ``hits`` times in all; then again with the files as they were.

    Only scenarios that read images of a folder take part. The parameters and errors are those of :func:`hunt_kills`.
    """
    if counts is not None and total(counts)["hits"] >= hits:
        return counts
    scenarios = [scenario for scenario in scenarios if changeable(scenario)]
    changes = {}
    for scenario in scenarios:
        make_inputs(scenario.inputs, bench.inputs, bench.server)
        changes[scenario.name] = InputChanges(bench, scenario)
    references = {name: one.reference for name, one in changes.items()}

    def trial(scenario: Scenario, number: int) -> Outcome:
        rng = random.Random(f"{seed}/{scenario.name}/{number}")
        return changes[scenario.name].trial(share(number, rng), number)

    return _hunt(scenarios, references, hits, trial, counts, tell)


def _hunt(
    scenarios: Sequence[Scenario],
    references: Mapping[str, Undisturbed],
    hits: int,
    trial: Trial,
    counts: dict[str, Counts] | None,
    tell: Tell,
) -> dict[str, Counts]:
    counts = {} if counts is None else counts
    for scenario in scenarios:
        counts.setdefault(scenario.name, Counts()).operations = references[scenario.name].operations
    for scenario, number in rounds(scenarios, counts, hits):
        counts[scenario.name].add(trial(scenario, number))
        tell(in_words(total(counts)))
    return counts


def _undisturbed(bench: Bench, scenarios: Sequence[Scenario], *, checked: bool) -> dict[str, Undisturbed]:
    references = {}
    for scenario in scenarios:
        make_inputs(scenario.inputs, bench.inputs, bench.server)
        first = bench.undisturbed(scenario)
        if checked and (lines := differences(first.state, bench.undisturbed(scenario).state).lines):
            raise RuntimeError(f"{scenario.name}: two undisturbed runs differ: {'; '.join(lines)}")
        references[scenario.name] = first
    return references
