"""The README's examples: Python blocks are run on small pictures, command lines must be understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
from PIL import Image

from blemish import cli
from blemish.images.generated import make_sample

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
# The README's lengths are for real work; the same code must run at these.
SMALLER = {
    '"training.steps=2000"': '"training.steps=4", "patch.size=32", "patch.stride=16", "encoder.latent=8"',
}
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
LINES = sorted(
    {
        line.split("#")[0].strip().removeprefix(".venv/bin/")
        for line in re.findall(r"^(?:\.venv/bin/)?blemish .*$", README, flags=re.MULTILINE)
    }
    | set(re.findall(r"`(blemish (?:inspect|fit|evaluate|study|recipes)[^`]*)`", README))
)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_example_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good").mkdir()
    for seed in range(48):
        sample = make_sample("checkerboard", "good", seed=seed, size=64)
        Image.fromarray(sample.picture[0]).save(f"good/{seed}.png")
    Image.fromarray(make_sample("checkerboard", "stroke", seed=99, size=64).picture[0]).save("part.png")
    for long, short in SMALLER.items():
        block = block.replace(long, short)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("line", LINES)
def test_command_line_is_understood(line: str) -> None:
    program, command, *arguments = shlex.split(line)
    assert program == "blemish"
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert command in commands, f"there is no command '{command}'"
    commands[command].make_context(command, arguments)  # raises on an unknown option or a missing argument


def test_the_readme_has_examples_of_both_kinds() -> None:
    assert len(BLOCKS) >= 2
    assert len(LINES) >= 5
