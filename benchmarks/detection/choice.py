"""Which members of the default's ensemble would be chosen by test labels, with each data set left out in turn.

    python -m benchmarks.detection.choice --out benchmarks/results

Reads the tables that ``members`` wrote into ``--out`` and fits nothing. A candidate is all members together, one alone, or
all without one. For each family of sets the candidate with the best mean image AUROC on the *other* families is chosen, and
compared on the family that had no part in it with the default as it is, and with the best candidate in hindsight.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.detection.members import WHOLE
from blemish.storage.atomic import write_json, write_text
from studies.protocol import spread, table

CANDIDATES = (
    WHOLE,
    "network alone",
    "memory bank alone",
    "without network",
    "without memory bank",
    "without filter bank",
    "without colour bank",
)
"""Those that every set has; without a member that a set does not have is all of its members."""
STEM = "detection-members-"

Figures = Mapping[str, list[float]]


def read_members(folder: Path) -> dict[str, Figures]:
    """Image AUROC of each candidate with each seed, by the name of the set."""
    found: dict[str, Figures] = {}
    for path in sorted(folder.glob(f"{STEM}*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        own: dict[str, list[float]] = {}
        for row in rows:
            own.setdefault(row["name"], []).append(row["image_auroc"])
        alone = [name.removesuffix(" alone") for name in own if name.endswith(" alone")]
        if len(alone) == 2:  # all without one is the other one, which has a row already
            own |= {f"without {one}": own[f"{other} alone"] for one, other in (alone, alone[::-1])}
        found[path.stem.removeprefix(STEM)] = {name: own.get(name, own[WHOLE]) for name in CANDIDATES}
    return found


def family_of(name: str) -> str:
    """Sets of one generator are one family: ``figures-strength-0_3-2m`` is of ``figures``."""
    return name.split("-")[0]


def means_of_families(sets: Mapping[str, Figures]) -> dict[str, dict[str, float]]:
    """Mean image AUROC of each candidate over the sets of each family.

    >>> means_of_families({"rod-a": dict.fromkeys(CANDIDATES, [0.5]), "rod-b": dict.fromkeys(CANDIDATES, [0.7])})["rod"][WHOLE]
    0.6
    """
    names = dict.fromkeys(map(family_of, sets))
    return {
        family: {
            candidate: fmean(fmean(own[candidate]) for name, own in sets.items() if family_of(name) == family)
            for candidate in CANDIDATES
        }
        for family in names
    }


def chosen_without(means: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The candidate with the best mean over all other families, by family; the default's members where it is equal.

    >>> means = {name: {**dict.fromkeys(CANDIDATES, 0.5), "network alone": value} for name, value in (("a", 0.9), ("b", 0.4))}
    >>> chosen_without(means)
    {'a': 'all, as fitted', 'b': 'network alone'}
    """
    return {
        left: max(
            CANDIDATES,
            key=lambda candidate: fmean(own[candidate] for name, own in means.items() if name != left),
        )
        for left in means
    }


def answer(folder: Path) -> dict[str, Any]:
    """Choice, default and best of each set in ``folder``, and their means over the families."""
    sets = read_members(folder)
    means = means_of_families(sets)
    if len(means) < 3:
        raise SystemExit(
            f"{folder}: has the members of {len(means)} families of sets; run members on three at least"
        )
    chosen = chosen_without(means)
    rows = []
    for name, own in sets.items():
        choice = chosen[family_of(name)]
        best = max(CANDIDATES, key=lambda candidate: fmean(own[candidate]))
        rows.append(
            {
                "set": name,
                "chosen": choice,
                "chosen_auroc": own[choice],
                "default_auroc": own[WHOLE],
                "best": best,
                "best_auroc": own[best],
            }
        )
    lines = [
        [
            row["set"],
            row["chosen"],
            *(spread(row[key]) for key in ("chosen_auroc", "default_auroc")),
            row["best"],
            spread(row["best_auroc"]),
        ]
        for row in rows
    ]
    overall = {
        key: fmean(means[family][candidates[family]] for family in means)
        for key, candidates in (
            ("chosen", chosen),
            ("default", dict.fromkeys(means, WHOLE)),
            ("best", {family: max(CANDIDATES, key=own.__getitem__) for family, own in means.items()}),
        )
    }
    return {"rows": rows, "mean_over_families": overall, "lines": lines}


def markdown(found: Mapping[str, Any], command: str) -> str:
    overall = found["mean_over_families"]
    return (
        "# choice: members with sets left out\n\n"
        "For each set the candidate with the best mean image AUROC on the sets of all *other* families, its figure on the set "
        "that had no part in the choice, that of the default, and the best candidate in hindsight. Every family counts once.\n\n"
        f"    {command}\n\n"
        + table(
            ("set", "chosen without it", "image AUROC", "default", "best in hindsight", "its image AUROC"),
            found["lines"],
            left=2,
        )
        + f"\nMean over the families: chosen {overall['chosen']:.3f}, default {overall['default']:.3f}, in hindsight {overall['best']:.3f}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder with the tables of members")
    out = parser.parse_args().out
    found = answer(out)
    command = shlex.join(["python", "-m", "benchmarks.detection.choice", *sys.argv[1:]])
    write_text(out / "detection-choice.md", markdown(found, command))
    write_json(
        out / "detection-choice.json",
        {"command": command, **{key: value for key, value in found.items() if key != "lines"}},
    )


if __name__ == "__main__":
    main()
