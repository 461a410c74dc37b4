"""Entry of ``blemish`` and ``python -m blemish``: the command line, with every error as one line."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TextIO

from blemish.errors import BlemishError

TYPER_INTERRUPTED = 130


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
    try:
        app()
    except BlemishError as error:
        print(f"blemish: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code != TYPER_INTERRUPTED:  # which Typer makes of a KeyboardInterrupt, without a word
            raise
        print("blemish: interrupted; what was finished is on disk", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
