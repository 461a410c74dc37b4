"""Report of this machine: packages, memory and GPU that Blemish needs, and the remedy for each that is missing."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util

from blemish._version import __version__
from blemish.errors import FileError
from blemish.extras import EXTRAS, install_line, one_line, reinstall_line

# Optional extras, and who needs them; `blemish recipes` lists the recipes that do.
OPTIONAL = {
    "train": "training and models in torch",
    "backbones": "recipes that need backbones",
    "features": "memory banks of EfficientNet-Lite features",
    "jpeg": "the JPEG commands",
    "large": "scenes of several modalities",
    "sklearn": "users of blemish.sklearn",
    "export": "exports",
    "openvino": "models that are exported for OpenVINO",
    "serve": "blemish serve and blemish history",
    "line": "sources and sinks of a line",
    "genicam": "industrial cameras",
    "postgresql": "histories in PostgreSQL",
    "parquet": "tables in Parquet",
    "scale": "archives on a cluster",
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
    "onnxruntime",
    "safetensors",
)


@dataclass(frozen=True)
class Check:
    """Result of one check; ``remedy`` says what to do if something is wrong."""

    name: str
    found: str
    ok: bool = True
    remedy: str = ""


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
    checks += [_package(name, f"type: pip install '{name}'") for name in CORE]
    for extra, packages in EXTRAS.items():
        for module, distribution in packages:
            remedy = install_line(extra)
            if util.find_spec(module) is not None:
                checks.append(_package(distribution, remedy))
            else:
                found = f"not installed; only {OPTIONAL[extra]} ask for it: {remedy}"
                checks.append(Check(distribution, found, remedy=remedy))
    if all(util.find_spec(module) is not None for module, _ in EXTRAS["train"]):
        machine = _machine()
        checks += [*_weights(), machine] if machine.ok else [machine]
    return checks


def _weights() -> Iterator[Check]:
    """Check the ImageNet weights on this machine."""
    from blemish.layers.pretrained import SOURCES, expected_path, find_weights

    for name, source in SOURCES.items():
        title = f"{source.title} weights"
        try:
            path = find_weights(name)
        except FileError as error:
            yield Check(title, f"{error.path}: {error.problem}", False, error.remedy)
            continue
        if path is None:
            remedy = f"put {source.url} into {expected_path(name).parent}"
            yield Check(
                title, f"not here; only recipes that need weights ask for them: {remedy}", remedy=remedy
            )
        else:
            yield Check(title, str(path))


def _machine() -> Check:
    name = "Training would run on"
    try:
        from blemish.training.device import choose_machine

        return Check(name, str(choose_machine()))
    except (ImportError, OSError, RuntimeError) as error:
        # An installed torch whose libraries are damaged or of another processor or driver.
        return Check(
            name, f"nothing: torch cannot be loaded ({one_line(error)})", False, reinstall_line("train")
        )


def _package(distribution: str, remedy: str) -> Check:
    try:
        return Check(distribution, metadata.version(distribution.partition("[")[0]))  # without its extra
    except metadata.PackageNotFoundError:
        return Check(distribution, "missing", False, remedy)


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return ""
    return f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB of memory"
