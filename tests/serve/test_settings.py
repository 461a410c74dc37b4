"""Settings: their order, and one line for each that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from blemish.errors import ServeError
from blemish.serve.settings import models_of, read_settings


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(
        "models: {screw: exported/screw}\nport: 1000\nhome: line\nlimits: {files: 7, pixels: 5000}\nworkers: 3\n"
    )
    monkeypatch.setenv("BLEMISH_PORT", "2000")
    monkeypatch.setenv("BLEMISH_WORKERS", "4")
    monkeypatch.setenv("BLEMISH_LIMITS__PIXELS", "6000")
    found = read_settings(file, {"workers": 5, "home": None})
    assert (found.workers, found.port, found.home) == (5, 2000, Path("line"))
    assert (found.limits.files, found.limits.pixels) == (7, 6000)
    assert found.models == {"screw": Path("exported/screw")}
    assert read_settings().port == 2000


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prot: 1", r"there is no setting prot; did you mean 'port'\?"),
        ("limits: {pixel: 3}", r"there is no setting limits\.pixel; did you mean 'limits\.pixels'\?"),
        ("port: 99999", r"port: .*65535"),
        ("models: {'../x': a}", r"is no name of a model"),
        ("port: [", r"cannot be read"),
        ("- 1", r"serve\.yaml: "),
        ("limits: {pixels: 0}", r"limits\.pixels: "),
        ("history: !!python/object/apply:os.system [id]", r"cannot be read"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(text)
    with pytest.raises(ServeError, match=line) as error:
        read_settings(file)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


def test_a_wrong_variable_of_the_environment_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLEMISH_PORT", "many")
    with pytest.raises(ServeError, match=r"port: .*integer"):
        read_settings()
    monkeypatch.delenv("BLEMISH_PORT")
    monkeypatch.setenv("BLEMISH_LIMITS", "{")
    with pytest.raises(ServeError, match="cannot be read"):
        read_settings()


def test_keys_are_long_enough_and_come_from_one_place(tmp_path: Path) -> None:
    file = tmp_path / "key.txt"
    file.write_text("0123456789abcdef-key\n")
    assert read_settings(None, {"key_file": file}).access_key() == "0123456789abcdef-key"
    with pytest.raises(ServeError, match="both set"):
        read_settings(None, {"key_file": file, "key": "0123456789abcdef"}).access_key()
    file.write_text("short")
    with pytest.raises(ServeError, match="at least 16"):
        read_settings(None, {"key_file": file}).access_key()
    with pytest.raises(ServeError, match="cannot be read"):
        read_settings(None, {"key_file": tmp_path / "none"}).access_key()
    assert "0123" not in repr(read_settings(None, {"key": "0123456789abcdef"}))


def test_models_have_names_of_their_own() -> None:
    assert models_of(["a/screw", "nut=a/screw"]) == {"screw": Path("a/screw"), "nut": Path("a/screw")}
    with pytest.raises(ServeError, match="another model is called screw"):
        models_of(["a/screw", "b/screw"])
    for argument in ("../=x", "=x", "/"):
        with pytest.raises(ServeError, match="NAME=FOLDER"):
            models_of([argument])
