"""Pages of the API reference, written before each build from ``rooms.yaml`` and the package's modules."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import blemish

LOGGER = logging.getLogger(__name__)
NOT_DOCUMENTED = {"", "__main__", "_version"}


def package_modules(source: Path) -> list[str]:
    """Names of all modules below the package ``source``, without ``blemish.``, in alphabetical order."""
    names = set()
    for path in source.rglob("*.py"):
        parts = path.relative_to(source).with_suffix("").parts
        names.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names - NOT_DOCUMENTED)


def modules_by_room(rooms: list[dict[str, Any]], modules: list[str]) -> dict[str, list[str]]:
    """The modules of each room; a module belongs to the room that names the longest part of its path.

    Raises
    ------
    ValueError
        When a module is in no room, or a room names no module.
    """
    homes = {name: room["room"] for room in rooms for name in room["modules"]}
    if unknown := sorted(set(homes) - set(modules)):
        raise ValueError(f"rooms.yaml names modules that the package lacks: {', '.join(unknown)}")
    found: dict[str, list[str]] = {room["room"]: [] for room in rooms}
    for module in modules:
        parts = module.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        home = next((homes[prefix] for prefix in prefixes if prefix in homes), None)
        if home is None:
            raise ValueError(f"rooms.yaml has no room for the module {module}")
        found[home].append(module)
    return found


def room_page(room: dict[str, Any], modules: list[str]) -> str:
    """One page in Markdown: the room's sentence, then every module with its documented members."""
    sections = (
        f"## `blemish.{module}`\n\n"
        f"```{{eval-rst}}\n.. automodule:: blemish.{module}\n   :members:\n   :member-order: bysource\n```\n"
        for module in modules
    )
    return "\n".join([f"# {room['title']}\n\n{room['about']}\n", *sections])


def public_page(rooms: list[dict[str, Any]]) -> str:
    """The names of ``blemish.__all__``, each with the first line of its docstring and a link to its entry."""
    rows = []
    for name in blemish.__all__:
        value = getattr(blemish, name)
        if isinstance(value, ModuleType):
            role = f"{{py:mod}}`blemish.{name} <{value.__name__}>`"
        elif inspect.isclass(value) or inspect.isfunction(value):
            role = f"{{py:obj}}`blemish.{name} <{value.__module__}.{value.__qualname__}>`"
        else:
            rows.append(f"| `blemish.{name}` | Version of the package. |")
            continue
        line = (inspect.getdoc(value) or "").partition("\n")[0].replace("|", "\\|").replace("``", "`")
        line = re.sub(r":[a-z:]+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", line)  # :class:`~blemish.x.Y` to `Y`
        rows.append(f"| {role} | {line} |")
    listed = "\n".join(room["room"] for room in rooms)
    return (
        "# API reference\n\n"
        "These names are public: a release that changes one of them says so in the changelog, and keeps the old "
        "name for one release. Everything on the pages below is documented for those who read or extend the "
        "package, and may move.\n\n"
        "| name | |\n|---|---|\n" + "\n".join(rows) + f"\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )


def write_pages(app: Sphinx) -> None:
    """Write the pages that differ from those on disk, and remove those of rooms that are gone."""
    rooms = yaml.safe_load((Path(app.srcdir) / "rooms.yaml").read_text(encoding="utf-8"))
    found = modules_by_room(rooms, package_modules(Path(blemish.__file__).parent))
    pages = {f"{room['room']}.md": room_page(room, found[room["room"]]) for room in rooms}
    pages["index.md"] = public_page(rooms)
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def plain_text(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Read docstrings as they are meant: ``|x|`` and a lone ``*`` are mathematics, not markup.

    Parameters written ``name: text`` become numpydoc's two lines, since the signature holds the types.
    """
    section = ""
    for place, line in enumerate(lines):
        if place + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[place + 1]):
            section = line.strip()
        parts = re.split(r"(``.+?``|:[\w:]+:`.+?`|`.+?`)", line)
        parts[::2] = [re.sub(r"\||\*(?!\w[^*]*\w\*)(?<!\w\*)", r"\\\g<0>", part) for part in parts[::2]]
        line = "".join(parts)
        if section == "Parameters" and (found := re.fullmatch(r"([\w, ]+): (.+)", line)):
            line = f"{found[1]}\n    {found[2]}"
        lines[place] = line
    lines[:] = "\n".join(lines).split("\n")
    if what in {"attribute", "data", "property"}:
        lines.insert(0, "")  # or napoleon takes what precedes a colon in the first line for a type


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Resolve a name where a package re-exports it, such as ``blemish.jpeg.Encoder``; warn of one that is nowhere."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("blemish."):
        return None
    if target.endswith(".Annotated"):
        return None  # autodoc takes the type of a field with conditions for a name of its module
    value: Any = blemish
    path = ""
    for part in target.split(".")[1:]:
        path = f"{path}.{part}"
        try:
            value = getattr(value, part)
        except AttributeError:
            try:
                value = importlib.import_module(f"blemish{path}")
            except ImportError:
                LOGGER.warning("no such name: %s", target, location=node)
                return None
    home = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if all(home) and ".".join(home) != target:
        python = env.get_domain("py")
        return python.resolve_xref(env, node["refdoc"], app.builder, "obj", ".".join(home), node, content)
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", plain_text, priority=100)  # before napoleon
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
