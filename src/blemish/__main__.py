"""Entry of ``blemish`` and ``python -m blemish``: the command line, with every error as one line."""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from blemish.errors import BlemishError, lacks_memory, printable

TYPER_INTERRUPTED = 130
TRACEBACK = "BLEMISH_TRACEBACK"
"""Environment variable: with any value, the traceback of an unexpected error is printed."""


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show what will change in the next release as one line, and any other warning as Python does."""
    if issubclass(category, FutureWarning) and str(category.__module__).startswith("blemish."):
        print(f"note: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=sys.stderr)


def main() -> None:
    """Run the command line; exit code 0 on success, 1 on failure, 2 on wrong usage."""
    # Read when torch is loaded: threads that spin while they wait for each other keep a core from other programs, and
    # training from the one that could finish (benchmarks/waiting.py).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from blemish.cli.app import app

    warnings.showwarning = _show_warning
    # Pillow warns of damaged metadata in images that it can read; a user can do nothing with that.
    warnings.filterwarnings("ignore", module="PIL")
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold what the terminal's encoding does not
        sys.stdout.reconfigure(errors="backslashreplace")
    _refuse_empty_arguments()
    try:
        app()
    except BlemishError as error:
        _fail(str(error), error.exit_code)
    except SystemExit as end:
        if end.code == TYPER_INTERRUPTED:  # which Typer makes of a KeyboardInterrupt, without a word
            _fail("interrupted; what was finished is on disk")
        _flush_results()
        raise
    except Exception as error:  # a defect of Blemish: one line, and the traceback on request
        _fail_unexpectedly(error)


def _refuse_empty_arguments() -> None:
    """Refuse empty arguments: as a path, one would mean the current folder, which is hardly ever meant."""
    words = sys.argv[1:]
    for place, word in enumerate(words):
        if not word or re.fullmatch(r"--[a-z-]+=", word):
            after = f" after {words[place - 1]}" if place and not word else ""
            _fail(f"the argument {word!r}{after} is empty; give it a value, or leave it out", 2)


def _flush_results() -> None:
    """Write results that are still in memory, and report where that fails, which Python does at the end too late."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # of "| head", which has what it wants
        _close_output()
    except OSError as error:
        _fail_unexpectedly(error)


def _fail_unexpectedly(error: Exception) -> None:
    """End with one line for an error that no function foresaw; what it means and how to report it."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    if lacks_memory(error):
        _fail("out of memory; use smaller images, patch.size or training.batch, or end other programs")
    if isinstance(error, OSError):
        name = "standard output" if error.filename is None else error.filename
        _close_output()
        _fail(f"{name}: {error.strerror or error}; check the disk, the path and its permissions")
    last = traceback.extract_tb(error.__traceback__)[-1]
    _fail(
        f"unexpected {type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}; this is a defect of "
        f"Blemish: please report it with the output of blemish checks, and of this command with {TRACEBACK}=1 set"
    )


def _close_output() -> None:
    """Send the rest of standard output nowhere, or Python would report again at its end that it cannot be written."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(line: str, code: int = 1) -> None:
    print(f"blemish: {printable(line)}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
