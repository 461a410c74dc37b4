"""``blemish serve``: one line for whatever keeps it from starting."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blemish.storage.leftovers import temporary_name
from tests.conftest import Ran


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "there is no model to serve"),
        (("nowhere",), "nowhere: does not exist"),
        (("a", "b/a"), "another model is called a"),
        (("../..=x",), "is no name of a model"),
        (("nowhere", "--host", "0.0.0.0"), "without a key"),
        (("nowhere", "--host", "nowhere.invalid", "--key-file", "{key}"), "nowhere"),
        (("nowhere", "--key-file", "none.txt"), "none.txt: cannot be read"),
        (("nowhere", "--settings", "none.yaml"), "none.yaml: does not exist"),
        (("nowhere", "--port", "70000"), "port: "),
    ],
)
def test_what_cannot_be_served_is_one_line(
    blemish: Callable[..., Ran],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("0123456789abcdef")
    ran = blemish("serve", *(word.format(key=tmp_path / "key") for word in words))
    assert ran.code in (1, 2)
    assert line in ran.error


def test_temporary_folders_of_a_killed_server_go_with_the_next(
    blemish: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (killed := subprocess.Popen([sys.executable, "-c", ""])).wait()
    left = tmp_path / f"blemish-{temporary_name().split('-')[1]}-{killed.pid}-abcdefgh"
    left.mkdir()
    (left / "spooled.png").touch()
    assert blemish("serve", "nowhere").code == 1
    assert not left.exists()


def test_a_model_of_scenes_is_refused(
    blemish: Callable[..., Ran],
    make_detector: Callable[..., Any],
    painting: Callable[..., Path],
    tmp_path: Path,
) -> None:
    scene = painting(tmp_path / "scenes" / "one")
    saved = make_detector(scene.parent).save(tmp_path / "model")
    ran = blemish("serve", saved, "--home", tmp_path / "line")
    assert "was fitted on scenes" in ran.error


def test_without_the_extra_the_line_says_how_to_install_it(
    blemish: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("blemish.serve", "fastapi"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    ran = blemish("serve", "model")
    assert ran.code == 2
    assert "fastapi" in ran.error
    assert "[serve]" in ran.error
