"""Options of the command line that several questions share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.detection.trials import MEMORY_ALONE


def listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Values of one kind, separated by commas."""
    return lambda text: [kind(word) for word in text.split(",")]


def shared() -> argparse.ArgumentParser:
    """Options of every question."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seeds", type=listed(int), default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], help="setting of every fit")
    parser.add_argument("--work", type=Path, default=Path("runs/detection"), help="keeps fits")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.set_defaults(on=None, recipe="blemish", fast=False, budget=None, keep=False, strength=1.0)
    return parser


def one_dataset(parser: argparse.ArgumentParser) -> None:
    """A data set that is split anew for each trial."""
    parser.add_argument("datasets", metavar="dataset", type=Path, nargs=1, help="folder in the MVTec layout")
    parser.add_argument("--recipe", default="blemish")
    parser.add_argument("--fast", action="store_true", help=f"first of all, {' '.join(MEMORY_ALONE)}")


def whole_dataset(parser: argparse.ArgumentParser) -> None:
    """A data set whose fits the table uses too."""
    parser.add_argument(
        "datasets",
        metavar="dataset",
        type=Path,
        nargs=1,
        help="folder in the MVTec layout, or a generated family",
    )
    parser.add_argument("--budget", help="of every training, such as 2m, instead of the recipe's length")
    parser.add_argument(
        "--strength", type=float, default=1.0, help="contrast of the defects of a generated family"
    )
