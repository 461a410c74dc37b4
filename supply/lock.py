"""Lock files: every requirement with its version and the SHA-256 of its files, for ``pip install --require-hashes``.

    make lock

Versions are those of ``constraints.txt`` where it names them; the platforms and Pythons (3.11 and newer) for which a
requirement is needed stand beside it. ``--check`` compares the files with pyproject.toml and constraints.txt, without a network.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
PYTHON = "3.11.5"
"""Oldest Python of the locks; packages of the documentation refuse earlier ones."""
LOCKS = {
    "core": ("pyproject.toml",),
    "train": ("pyproject.toml", "--extra", "train"),
    "dev": ("pyproject.toml", "--extra", "train", "--extra", "dev"),
    "supply": ("requirements/supply.in",),
}
"""What each lock is made from, as words of ``uv pip compile``."""
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


def main() -> int:
    """Make the locks, or check them; 1 where one is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m supply.lock", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    if options.check:
        found = problems()
        print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
        return int(bool(found))
    FOLDER.mkdir(exist_ok=True)
    for name, source in LOCKS.items():
        words = [
            "uv",
            "pip",
            "compile",
            "--quiet",
            "--python",
            sys.executable,
            "--generate-hashes",
            "--universal",
            "--python-version",
            PYTHON,
        ]
        words += ["--constraint", "constraints.txt", "--custom-compile-command", "make lock"]
        subprocess.run([*words, *source, "--output-file", f"requirements/{name}.txt"], cwd=ROOT, check=True)
    return 0


def pins(text: str) -> dict[str, str]:
    """Versions by canonical name in a lock or a list of constraints."""
    return {canonicalize_name(name): version for name, version in _PIN.findall(text)}


def entries(text: str) -> dict[str, int]:
    """Number of hashes of each requirement of a lock."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return {
        canonicalize_name(found[1]): len(_HASH.findall(line))
        for line in joined.splitlines()
        if (found := _PIN.match(line))
    }


def asked(*extras: str) -> set[str]:
    """Names that pyproject.toml asks for, of the core and of ``extras`` with the extras that these name in turn."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[str] = set()
    lines = [*project["dependencies"], *(f"blemish[{extra}]" for extra in extras)]
    while lines:
        requirement = Requirement(lines.pop())
        if requirement.name == "blemish":
            for extra in requirement.extras:
                lines += project["optional-dependencies"][extra]
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def problems() -> list[str]:
    """Lines that say where the locks do not agree with pyproject.toml and constraints.txt; ``make lock`` is the remedy."""
    constraints = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    found = []
    for name, source in LOCKS.items():
        path = FOLDER / f"{name}.txt"
        if not path.is_file():
            found.append(f"{path}: is missing; make lock")
            continue
        text = path.read_text(encoding="utf-8")
        locked = pins(text)
        found += [
            f"{path}: {package} is {version}, in constraints.txt {constraints[package]}; make lock"
            for package, version in locked.items()
            if constraints.get(package, version) != version
        ]
        found += [
            f"{path}: {package} has no hash; make lock"
            for package, count in entries(text).items()
            if not count
        ]
        if source[0] == "pyproject.toml":
            missing = asked(*source[2::2]) - locked.keys()
            found += [f"{path}: {package} is missing; make lock" for package in sorted(missing)]
    return found


if __name__ == "__main__":
    sys.exit(main())
