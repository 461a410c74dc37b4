"""Frame of every command: progress, results as JSON, exit codes."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import typer

import blemish
from blemish.errors import Stopped, UsageError, printable

if TYPE_CHECKING:
    from blemish.cli.console import ConsoleObserver
    from blemish.jpeg.deep.recipe import DeepRecipe
    from blemish.recipes import Recipe


@contextmanager
def working(
    *, quiet: bool = False, after_stop: Callable[[], tuple[str, ...]] = tuple
) -> Iterator[ConsoleObserver]:
    """Show progress on stderr, and take Ctrl-C as a request to stop.

    After a stop the line to go on with is printed: this command again, with the options that ``after_stop``
    gives then.
    """
    from blemish.cli.console import ConsoleObserver
    from blemish.extras import explain_missing
    from blemish.interruption import interruptible
    from blemish.storage.leftovers import remove_temporary_folders

    remove_temporary_folders()
    with explain_missing(), interruptible() as pressed, ConsoleObserver(pressed, quiet=quiet) as observer:
        try:
            yield observer
        except Stopped as stop:
            raise Stopped(f"{stop}; go on with: {_this_command(after_stop())}") from None


def end(observer: ConsoleObserver) -> None:
    """Exit with code 1 when files had to be skipped, and report their number after the results."""
    if observer.problems:
        plural = "s were" if observer.problems > 1 else " was"
        typer.echo(f"blemish: finished, but {observer.problems} file{plural} skipped, see above", err=True)
        raise typer.Exit(1)


def _this_command(options: tuple[str, ...]) -> str:
    words = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
    return shlex.join(["blemish", *words, *options])


def say(text: str, *, err: bool = False) -> None:
    """Print lines for people; control characters that come from names are escaped."""
    for line in text.split("\n"):
        typer.echo(printable(line), err=err)


def print_json(value: Any) -> None:
    # Escaped, because a name may hold what the terminal's encoding does not.
    typer.echo(json.dumps(value, indent=2))


def integers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} {text}: write whole numbers separated by commas, such as 0,1,2") from None


def print_recipes(recipes: Sequence[Recipe] | Sequence[DeepRecipe], *, as_json: bool) -> None:
    """Print a line for each recipe, or all of them as JSON."""
    if as_json:
        print_json([recipe.model_dump(mode="json") for recipe in recipes])
        return
    width = max(len(recipe.name) for recipe in recipes)
    for recipe in recipes:
        needs = ", ".join(recipe.needs)
        say(f"{recipe.name:<{width}}  {recipe.title}. {recipe.paper}. Needs: {needs}.")


def load_detector(
    model: Path, false_reject_rate: float | None, threshold: float | None, *, calibrated: bool = True
) -> Any:
    """The detector of a model folder, with the decision that the options ask for."""
    from blemish.inspection.detector import load

    if false_reject_rate is not None and threshold is not None:
        raise UsageError("--false-reject-rate and --threshold exclude each other; give one")
    detector = load(model, calibrated=calibrated)
    if false_reject_rate is not None:
        return detector.with_false_reject_rate(false_reject_rate)
    if threshold is not None:
        return detector.with_threshold(threshold)
    return detector


def load_studies() -> ModuleType:
    """Import the package ``studies`` of the checkout that this installation runs from; wheels leave it out.

    Raises
    ------
    UsageError
        When Blemish was not installed from a checkout.
    """
    checkout = Path(blemish.__file__).resolve().parents[2]
    if not (checkout / "studies" / "__init__.py").is_file():
        raise UsageError(
            "studies are part of the source tree, not of the installed package; get the source, install it with "
            "pip install -e '.[train]', and run this command again"
        )
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    return import_module("studies")
