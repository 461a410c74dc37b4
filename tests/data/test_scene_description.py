from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blemish.data.maps import write_image
from blemish.data.scene_description import MODALITIES_FILE, description_of, read_description
from blemish.data.scenes import find_scenes
from blemish.errors import FileError


@pytest.fixture
def paintings(tmp_path: Path) -> Path:
    """Two paintings, of which the second lacks its X-ray."""
    for name, file, channels in (("adam", "rgb.png", 3), ("eve", "rgb.png", 3), ("adam", "x.png", 1)):
        (tmp_path / name).mkdir(exist_ok=True)
        write_image(tmp_path / name / file, np.full((channels, 8, 8), 0.5))
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_a_description_is_the_file_itself_or_lies_in_the_folder(tmp_path: Path) -> None:
    assert description_of(tmp_path) is None
    assert description_of(tmp_path / "other.yml") == tmp_path / "other.yml"
    (tmp_path / MODALITIES_FILE).write_text(
        "root: scans\ngrid: a\nmodalities: [{name: a, file: a.png, range: [0, 9]}, {name: b, file: b.png}]"
    )
    path = description_of(tmp_path)
    assert path == tmp_path / MODALITIES_FILE
    described = read_description(path)
    assert (described.root, described.grid) == ("scans", "a")
    first, second = described.modalities
    assert (first.name, first.range, first.channels) == ("a", (0, 9), None)
    assert (second.file, second.range, second.grey) == ("b.png", None, None)
    with pytest.raises(FileError, match="does not exist"):
        read_description(tmp_path / "other.yml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modalities: [{name: a, file: a.png}, {name: a, file: b.png}]", "gives the name 'a' twice"),
        ("modalities: [{name: a, file: a.png}, {name: b, file: ./a.png}]", "gives the file 'a.png' twice"),
        ("modalities: [{name: a, flie: a.png}]", "unknown key 'modalities.0.flie'; did you mean 'file'?"),
        ("modalities: [{name: a}]", "key 'modalities.0.file' is missing"),
        ("modalities: [{name: a, file: rgb.png, file: x.png}]", "key 'file' is given twice"),
        ("modalities: []\nmodalities: []", "key 'modalities' is given twice"),
        ("modalities: [{name: a, file: ''}]", "'modalities.0.file' is ''"),
        ("modalities: [{name: a, file: a.png, range: [5, 1]}]", "write the lower value first"),
        ("modalities: [{name: a, file: a.png, channels: none}]", "'modalities.0.channels' is 'none'"),
        ("modalities: []", "'modalities' is []"),
        ("modality: []", "unknown key 'modality'; did you mean 'modalities'?"),
        ("grid: b\nmodalities: [{name: a, file: rgb.png}]", "has the grid 'b', which is no modality"),
        ("root: gone\nmodalities: [{name: a, file: rgb.png}]", "names the root gone"),
        ("modalities: [{name: a, file: gone.png}]", "names files that are nowhere"),
        (
            "modalities: [{name: a, file: rgb.png}, {name: b, file: y.png}]",
            "names 'b', of which there is no file",
        ),
        ("- a", "holds no keys and values"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_wrong_yaml_is_one_line_that_names_it(paintings: Path, text: str, words: str) -> None:
    path = paintings / MODALITIES_FILE
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileError) as caught:
        find_scenes(paintings)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
