"""Files of the deployment: settings that are read, commands that are understood, extras that there are."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer.main
import yaml
from pydantic import BaseModel

from blemish.cli import app as cli
from blemish.extras import EXTRAS
from blemish.serve.settings import ServeSettings, read_settings
from tests.services import needs

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from names(field.annotation, f"{prefix}{name}.")


def understood(words: list[str]) -> None:
    """Fail where the command line does not understand ``blemish …``."""
    command: Any = typer.main.get_command(cli.app)
    command = command.commands[words[0]]
    command.make_context(words[0], words[1:])


def test_the_settings_file_holds_the_defaults_and_names_every_setting() -> None:
    path = DEPLOY / "serve.yaml"
    text = path.read_text(encoding="utf-8")
    found, default = read_settings(path), read_settings()
    assert found.limits == default.limits
    assert found.log == default.log
    named = set(re.findall(r"^(?:# )? *(?:# )?(\w+):", text, flags=re.MULTILINE))
    missing = {name for name in names(ServeSettings) if name.rpartition(".")[2] not in named}
    assert missing <= {"key"} | {name for name in missing if name.startswith(("keep.", "retention."))}


def test_the_image_has_extras_that_there_are_and_starts_the_server() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    (extras,) = re.findall(r"'\.\[(.*?)\]'", text)
    assert set(extras.split(",")) <= set(EXTRAS)
    assert "torch" not in text.replace("without torch", "")
    entry = yaml.safe_load(re.findall(r"^ENTRYPOINT (.*)$", text, flags=re.MULTILINE)[0])
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    service = compose["services"]["blemish"]
    understood([*entry[1:], *service["command"]])
    assert re.search(r"^USER (?!root)", text, flags=re.MULTILINE)
    for copied in re.findall(r"^COPY (?!--)(.*)$", text, flags=re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split()[:-1])


@pytest.mark.parametrize(
    "name",
    ["compose.yaml", "compose.postgresql.yaml", "Dockerfile", "blemish.service", "blemish-service.xml"],
)
def test_variables_of_the_environment_are_settings(name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    used = set(re.findall(r"\bBLEMISH_([A-Z_]+)", text)) - {"DATABASE_PASSWORD"}
    assert used
    known = {found.replace(".", "__").upper() for found in names(ServeSettings)}
    assert used <= known


def test_services_start_the_server_and_give_it_time_to_stop() -> None:
    unit = (DEPLOY / "blemish.service").read_text(encoding="utf-8")
    line = re.findall(r"^ExecStart=(.*)$", unit, flags=re.MULTILINE)[0]
    understood(shlex.split(line)[1:])
    windows = ElementTree.parse(DEPLOY / "blemish-service.xml").getroot()
    understood(shlex.split((windows.findtext("arguments") or "").replace("\\", "/")))
    needed = 2 * read_settings().limits.stop_seconds
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    times = [
        re.findall(r"^TimeoutStopSec=(\d+)$", unit, flags=re.MULTILINE)[0],
        (windows.findtext("stoptimeout") or "").removesuffix(" sec"),
        compose["services"]["blemish"]["stop_grace_period"].removesuffix("s"),
    ]
    assert all(int(one) > needed for one in times)


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "blemish.service").read_text(encoding="utf-8")
    path = tmp_path / "blemish.service"
    path.write_text(unit.replace("/opt/blemish/bin/blemish", "/bin/true"), encoding="utf-8")
    ran = subprocess.run(
        [needs("systemd-analyze"), "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert "blemish.service" not in ran.stderr, ran.stderr
