"""What this machine has, what is missing, and the line that mends it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, util

from blemish._version import __version__
from blemish.errors import MissingExtraError

# Extra → its packages, as (import name, distribution name).
EXTRAS = {
    "train": (
        ("torch", "torch"),
        ("lightning", "lightning"),
        ("safetensors", "safetensors"),
        ("matplotlib", "matplotlib"),
    ),
}
CORE = (
    "numpy",
    "pillow",
    "scipy",
    "tifffile",
    "imagecodecs",
    "pydantic",
    "typer",
    "rich",
    "jinja2",
    "pyyaml",
)


@dataclass(frozen=True)
class Check:
    """One thing looked at; ``mend`` is the line to type where something is missing."""

    name: str
    found: str
    ok: bool = True
    mend: str = ""


@contextmanager
def explain_missing() -> Iterator[None]:
    """Turn the ImportError of an optional package into the line that installs it.

    Raises
    ------
    MissingExtraError
        Naming the package, the extra and the pip line.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        for extra, packages in EXTRAS.items():
            if any(error.name and error.name.split(".")[0] == module for module, _ in packages):
                raise MissingExtraError(
                    f"{error.name} is not installed; type: pip install 'blemish[{extra}]'"
                ) from None
        raise


def run_checks() -> list[Check]:
    """Look at Python, packages, processor, memory and GPU, quickest first; nothing is changed."""
    checks = [
        Check("Blemish", __version__),
        Check(
            "Python",
            platform.python_version(),
            sys.version_info >= (3, 10),
            "install Python 3.10 or newer",
        ),
        Check("System", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{_memory()}"),
    ]
    checks += [_package(name, f"pip install '{name}'") for name in CORE]
    missing = False
    for extra, packages in EXTRAS.items():
        for module, distribution in packages:
            found = util.find_spec(module) is not None
            missing |= not found
            line = f"pip install 'blemish[{extra}]'"
            checks.append(
                _package(distribution, line) if found else Check(distribution, "missing", False, line)
            )
    if not missing:
        from blemish.training.machine import choose_machine

        checks.append(Check("Training would run on", str(choose_machine())))
    return checks


def _package(distribution: str, mend: str) -> Check:
    try:
        return Check(distribution, metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return Check(distribution, "missing", False, mend)


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return ""
    return f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB of memory"
