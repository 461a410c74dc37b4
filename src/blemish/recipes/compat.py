"""Names of settings and parts that were renamed: what replaced them, and recipes that still use the old ones.

In a recipe file and in ``--set`` an old name works for one release, with a warning. Recipes in saved models are
upgraded without a word by :func:`upgrade_recipe`.
"""

from __future__ import annotations

import warnings
from typing import Any

RENAMED_SETTINGS = {
    "picture": "image",
    "memory.pictures": "memory.images",
    "memory.alike": "memory.nearest_images",
}
"""Dotted key before, and its key now."""
RENAMED_PARTS = {"corruption": {"blemishes": "synthetic-anomalies"}}
"""Key of a list of parts, with the names of parts before and now."""


class RenamedWarning(FutureWarning):
    """A setting or part was used under a name that the next release no longer takes."""


def upgrade_recipe(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` of a recipe, as YAML or JSON hold it, under the names of today; the original is left as it is.

    >>> upgrade_recipe({"picture": {"size": 256}, "memory": {"name": "structure", "alike": 25}})
    {'image': {'size': 256}, 'memory': {'name': 'structure', 'nearest_images': 25}}
    """
    return _upgraded(data, "")[0]


def upgrade_loudly(data: Any, source: str) -> Any:
    """:func:`upgrade_recipe` with a warning, in one line, of each old name in ``data``; ``source`` is where it stands."""
    if not isinstance(data, dict):
        return data
    upgraded, renamed = _upgraded(data, "")
    for before, now in renamed:
        _warn(f"{source}: {before} is now {now}; the old name works in this release only")
    return upgraded


def upgrade_key(key: str, source: str) -> str:
    """A dotted ``key`` under its name of today, with a warning where it had another."""
    for before, now in RENAMED_SETTINGS.items():
        if key == before or key.startswith(f"{before}."):
            upgraded = now + key.removeprefix(before)
            _warn(f"{source} {key}: is now {upgraded}; the old name works in this release only")
            return upgraded
    return key


def _warn(message: str) -> None:
    warnings.warn(message, RenamedWarning, stacklevel=2)


def _upgraded(data: dict[str, Any], prefix: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    renamed: list[tuple[str, str]] = []
    upgraded: dict[str, Any] = {}
    for key, value in data.items():
        now = RENAMED_SETTINGS.get(key, key)
        if now != key and now not in data:
            renamed.append((f"{prefix}{key}", f"{prefix}{now}"))
            key = now
        if isinstance(value, dict):
            value = dict(value)
            for own in list(value):
                inner = RENAMED_SETTINGS.get(f"{key}.{own}")
                if inner is not None and (short := inner.rpartition(".")[2]) not in value:
                    value = {short if name == own else name: setting for name, setting in value.items()}
                    renamed.append((f"{prefix}{key}.{own}", f"{prefix}{inner}"))
        elif isinstance(value, (list, tuple)) and key in RENAMED_PARTS:
            value, found = _upgraded_parts(value, RENAMED_PARTS[key])
            renamed += [(f"{prefix}{key} '{before}'", f"'{now}'") for before, now in found]
        elif isinstance(value, (list, tuple)) and key == "members":
            members = []
            for place, member in enumerate(value):
                if isinstance(member, dict):
                    member, inner_renamed = _upgraded(member, f"{prefix}members.{place}.")
                    renamed += inner_renamed
                members.append(member)
            value = members
        upgraded[key] = value
    return upgraded, renamed


def _upgraded_parts(
    parts: list[Any] | tuple[Any, ...], names: dict[str, str]
) -> tuple[list[Any], list[tuple[str, str]]]:
    upgraded, renamed = [], []
    for part in parts:
        if isinstance(part, dict) and part.get("name") in names:
            renamed.append((part["name"], names[part["name"]]))
            part = {**part, "name": names[part["name"]]}
        upgraded.append(part)
    return upgraded, renamed
