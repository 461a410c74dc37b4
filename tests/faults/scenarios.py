"""Scenarios of the kills: commands of the product, and what is typed after a kill."""

from __future__ import annotations

from dataclasses import dataclass

from tests.faults.fork_server import ENTRY
from tests.faults.inputs import (
    FEATURES,
    FIT,
    FIT_SCENES,
    INSPECT,
    INSPECT_SCENES,
    OUT,
    RATE,
    STEPWISE,
    TINY,
    inputs_of,
    settings,
)


@dataclass(frozen=True)
class Scenario:
    """A command that is killed, and the one that is typed afterwards."""

    name: str
    words: tuple[str, ...]
    before: tuple[tuple[str, str], ...] = ()
    """Inputs that are copied into the folder of the run first, and their names there."""
    again: tuple[str, ...] = ()
    """Words that are typed after the kill; where there are none, the same as before."""
    entry: str = ENTRY
    ignored: tuple[str, ...] = ()
    """Patterns of paths that are not compared."""
    every: int = 1
    """It takes part in one of so many rounds, as befits its time."""
    not_kept: tuple[str, ...] = ()
    """Patterns of paths that the product says it does without on a full disk."""
    goes_on: bool = False
    """True if a full disk does not end it: it goes on when there is room again."""

    @property
    def after(self) -> tuple[str, ...]:
        """Words that are typed after the kill."""
        return self.again or self.words

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (*inputs_of(self.words), *inputs_of(self.after), *(name for name, _ in self.before))


_SERVE = (
    "serve",
    "waves={inputs}/model",
    "--home",
    "line/home",
    "--line",
    "line/line.yaml",
    "--workers",
    "1",
)
_OVERWRITE = ("--overwrite",)
_JPEG = ("jpeg", "encode", "--workers", "1")


def _on_ray(name: str, *words: str) -> Scenario:
    return Scenario(
        name,
        (*words, *OUT, "--on", "local", "--workers", "2"),
        entry="tests.faults.archives:run_and_list",
        # Which images share a part depends on the time, and the entry reads their records into a file; Ray keeps its own logs.
        ignored=("out/parts/*", "out/parts.jsonl", "out/summary.json", "tmp/ray/*"),
        every=8,  # a cluster is started
    )


SCENARIOS = (
    Scenario("fit", FIT),
    Scenario("fit --overwrite", (*FIT, *_OVERWRITE), (("other-model", "out"),)),
    Scenario("fit --overwrite, then without", (*FIT, *_OVERWRITE), (("other-model", "out"),), again=FIT),
    Scenario(
        "fit --continue",
        ("fit", "{inputs}/more", "--continue", "{inputs}/model", *OUT, *settings("training.steps=4")),
    ),
    Scenario(
        "fit of an ensemble",
        (
            "fit", "{inputs}/rods", *RATE, *OUT,
            *settings(
                "image.size=96", "patch.size=32", "patch.stride=32", "encoder.widths=[4, 8, 8]",
                "memory.patch=8", "memory.dimensions=16", "memory.capacity=2000", "training.budget=null",
                "training.batch=4", "training.steps=4", *STEPWISE,
            ),
        ),
    ),
    Scenario("calibrate", ("calibrate", "{inputs}/model", "{inputs}/good", *OUT)),
    Scenario("inspect", INSPECT),
    # The earlier inspection is of other pixels under the same names, and of an image that is no longer there.
    Scenario("inspect --overwrite", (*INSPECT, *_OVERWRITE), (("earlier-found", "out"),)),
    Scenario("inspect --overwrite, then without", (*INSPECT, *_OVERWRITE), (("found", "out"),), again=INSPECT),
    Scenario("evaluate --out", ("evaluate", "{inputs}/model", "{inputs}/labelled", *OUT)),
    Scenario("features", FEATURES),
    Scenario("features --overwrite", (*FEATURES, *_OVERWRITE), (("earlier-features", "out"),)),
    Scenario(
        "features --overwrite, then without", (*FEATURES, *_OVERWRITE), (("features", "out"),), again=FEATURES
    ),
    Scenario(
        "compare",
        (
            "compare", "{inputs}/labelled", "--recipes", "l2-ae,ssim-ae", *OUT,
            *settings(*TINY, "training.steps=3", "threshold.false_reject_rate=0.2"),
        ),
    ),
    Scenario("jpeg encode --out", (*_JPEG, "{inputs}/photos", "--quality", "60", *OUT)),
    Scenario("jpeg encode --in-place", (*_JPEG, "own", "--quality", "60", "--in-place"), (("jpegs", "own"),)),
    Scenario(
        "jpeg encode --workers 2",
        ("jpeg", "encode", "--workers", "2", "{inputs}/photos", "--quality", "60", *OUT),
        every=8,  # worker processes load their libraries anew
    ),
    Scenario("jpeg encode --lossless", (*_JPEG, "{inputs}/jpegs", "--lossless", *OUT)),
    Scenario(
        "jpeg fit",
        (
            "jpeg", "fit", "{inputs}/photos", *OUT,
            *settings(
                "loss.gamma=0", "loss.sigma=0", "tables.initial=annex-k", "lambdas=[0.001, 0.1]",
                "patch.size=32", "training.batch=2", "training.steps=6", *STEPWISE,
            ),
        ),
    ),
    Scenario("scenes: fit", FIT_SCENES),
    Scenario("scenes: inspect", INSPECT_SCENES),
    Scenario("scenes: inspect --workers 2", (*INSPECT_SCENES, "--workers", "2"), every=8),
    Scenario(
        "scenes: inspect --overwrite, then without",
        (*INSPECT_SCENES, *_OVERWRITE),
        (("scene-found", "out"),),
        again=INSPECT_SCENES,
    ),
    Scenario("scenes: features", ("features", "{inputs}/scene-model", "{inputs}/scenes", *OUT)),
    _on_ray("inspect --on local", "inspect", "{inputs}/model", "{inputs}/new"),
    _on_ray("jpeg encode --on local", "jpeg", "encode", "{inputs}/photos", "--quality", "60"),
    Scenario(
        "serve",
        _SERVE,
        (("line", "line"),),
        entry="tests.faults.line:serve_until_done",
        # What history and sinks hold is read by the entry into files without times and numbers.
        ignored=(
            "line/home/history.sqlite3*", "line/home/history.lock", "line/home/server.log*", "line/decisions.csv",
            "line/rejects/*", "acknowledged",
        ),
        # A decision whose image has no room is stored without it (docs/guides/operations.md).
        not_kept=("line/home/images/*", "line/rejects.jsonl*"),
        goes_on=True,
    ),
)  # fmt: skip
