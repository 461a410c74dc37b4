from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import nn

from blemish.errors import ModelError, RecipeError
from blemish.inspection import detector
from blemish.storage.model_folder import (
    CARD_FILE,
    DETECTOR,
    JPEG_ENCODER,
    MODEL_FILE,
    WEIGHTS_FILE,
    Document,
    ModelKind,
    load_weights,
    read_document,
    weights_of,
    weights_sha256,
    write_model,
)


class DetectorFile(Document):
    kind: Literal["detector"] = "detector"
    calibration: tuple[float, ...]


class EncoderFile(Document):
    kind: Literal["jpeg encoder"] = "jpeg encoder"
    lambdas: tuple[float, ...]


OWN: dict[ModelKind, tuple[type[Document], dict[str, Any]]] = {
    DETECTOR: (DetectorFile, {"calibration": (0.5,)}),
    JPEG_ENCODER: (EncoderFile, {"lambdas": (0.1,)}),
}
KINDS = pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.name)


def network(features: int = 3) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(2, features)


def written(folder: Path, kind: ModelKind) -> Document:
    """A model of ``kind`` in ``folder``, as it was before its digests were known."""
    schema, own = OWN[kind]
    document = schema(
        kind=kind.name, format=kind.format, blemish="0.1", versions={}, weights_sha256="", **own
    )
    assert write_model(folder, document, weights_of(network()), "# A card\n") == folder
    return document


def content_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
    return content


def vouched(folder: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as Blemish would."""
    content = {key: value for key, value in content.items() if key != "content_sha256"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / MODEL_FILE).write_text(json.dumps({**content, "content_sha256": digest}), encoding="utf-8")


def read(folder: Path, kind: ModelKind) -> Document:
    return read_document(folder, kind, OWN[kind][0])


@KINDS
def test_what_is_written_is_read(tmp_path: Path, kind: ModelKind) -> None:
    document = written(tmp_path / "deep" / "model", kind)
    folder = tmp_path / "deep" / "model"
    assert {path.name for path in folder.iterdir()} == {MODEL_FILE, WEIGHTS_FILE, CARD_FILE}
    assert (folder / CARD_FILE).read_text() == "# A card\n"
    assert content_of(folder)["kind"] == kind.name
    found = read(folder, kind)
    weights = (folder / WEIGHTS_FILE).read_bytes()
    assert found.weights_sha256 == hashlib.sha256(weights).hexdigest() == weights_sha256(network())
    assert found.model_copy(update={"weights_sha256": "", "content_sha256": None}) == document
    other = nn.Linear(2, 3)
    assert weights_of(load_weights(folder, found, lambda: other)) == weights == weights_of(network())


def test_weights_are_those_of_the_module_however_they_lie_in_memory() -> None:
    model = nn.Conv2d(2, 3, 3)
    before = weights_of(model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert weights_of(model) == before
    assert torch.equal(load_tensors(before)["weight"], model.weight)


@KINDS
def test_one_kind_is_not_taken_for_the_other(tmp_path: Path, kind: ModelKind) -> None:
    written(tmp_path, kind)
    other = JPEG_ENCODER if kind is DETECTOR else DETECTOR
    with pytest.raises(ModelError) as caught:
        read(tmp_path, other)
    give = f"give the folder that {other.command} --out made"
    assert str(caught.value) == f"{tmp_path}: is {kind.words}, not {other.words}; {give}"


def test_a_detector_that_does_not_say_what_it_is_is_one(tmp_path: Path) -> None:
    written(tmp_path, DETECTOR)
    content = content_of(tmp_path)
    del content["kind"]
    vouched(tmp_path, content)
    assert read(tmp_path, DETECTOR).kind == "detector"
    with pytest.raises(ModelError, match="is a detector, not a JPEG encoder"):
        read(tmp_path, JPEG_ENCODER)


def test_a_fitted_detector_that_does_not_say_what_it_is_loads(model: Path) -> None:
    content = content_of(model)
    assert content.pop("kind") == "detector"
    vouched(model, content)
    before = detector.load(model)
    before.save(model)
    assert content_of(model)["kind"] == "detector"
    assert detector.load(model).threshold == before.threshold


@KINDS
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blemish": "0.2"}, "was edited after it was written"),
        ({"weights_sha256": 5}, "was edited or is incomplete: 'weights_sha256': Input should be"),
        ({"colour": "blue"}, "was edited or is incomplete: 'colour': Extra inputs"),
        ({"kind": ["cat"]}, "was edited or is incomplete: 'kind': Input should be"),
        ({"format": 3, "blemish": "9.1"}, r"reads up to format 2; upgrade Blemish to 9\.1 or newer"),
    ],
)
def test_other_content_is_reported_in_one_line(
    tmp_path: Path, kind: ModelKind, changes: dict[str, Any], words: str
) -> None:
    written(tmp_path, kind)
    (tmp_path / MODEL_FILE).write_text(json.dumps({**content_of(tmp_path), **changes}), encoding="utf-8")
    with pytest.raises(ModelError, match=words) as caught:
        read(tmp_path, kind)
    assert caught.value.path == tmp_path / MODEL_FILE
    assert "\n" not in str(caught.value)


def test_only_a_detector_has_a_decision_to_change(tmp_path: Path) -> None:
    for kind in OWN:
        written(tmp_path / kind.name, kind)
        content = {**content_of(tmp_path / kind.name), "blemish": "0.2"}
        (tmp_path / kind.name / MODEL_FILE).write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ModelError) as caught:
            read(tmp_path / kind.name, kind)
        assert ("--threshold" in str(caught.value)) == (kind is DETECTOR)


@KINDS
def test_what_is_no_model_folder_says_what_would_be(tmp_path: Path, kind: ModelKind) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "bare").mkdir()
    for name, problem in (
        ("nowhere", "does not exist"),
        ("file", "is a file, not a model folder"),
        ("bare", "holds no model.json, so it is no finished model"),
    ):
        with pytest.raises(ModelError) as caught:
            read(tmp_path / name, kind)
        assert caught.value.problem == problem
        assert caught.value.remedy.startswith(f"give the folder that {kind.command} --out made")


@KINDS
@pytest.mark.parametrize(
    ("text", "words"), [("{", "is not readable JSON"), ("[]", "no model's JSON"), ("{}", "'format': Field")]
)
def test_other_json_is_not_loaded_as_a_model(tmp_path: Path, kind: ModelKind, text: str, words: str) -> None:
    (tmp_path / MODEL_FILE).write_text(text)
    with pytest.raises(ModelError, match=words) as caught:
        read(tmp_path, kind)
    assert "\n" not in str(caught.value)


class OldFile(DetectorFile):
    """Has in format 1 the scores as text."""

    @classmethod
    def upgraded(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        return {**content, "format": 2, "calibration": content["calibration"].split(", ")}


def of_format_1(folder: Path, calibration: object) -> dict[str, Any]:
    """A model in ``folder`` as format 1 kept it."""
    written(folder, DETECTOR)
    content = {**content_of(folder), "format": 1, "calibration": calibration}
    vouched(folder, content)
    return content_of(folder)


def test_format_1_is_verified_as_stored_then_upgraded(tmp_path: Path) -> None:
    content = of_format_1(tmp_path, "0.25, 0.5")
    found = read_document(tmp_path, DETECTOR, OldFile)
    assert (found.format, found.calibration, found.stored_format) == (2, (0.25, 0.5), 1)
    assert "stored_format" not in found.model_dump()
    content["calibration"] = "0.75, 0.5"
    (tmp_path / MODEL_FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="was edited after it was written"):
        read_document(tmp_path, DETECTOR, OldFile)


def test_format_1_that_lacks_something_is_no_document(tmp_path: Path) -> None:
    of_format_1(tmp_path, ["not a text"])
    with pytest.raises(ModelError, match="is no complete document of format 1; undo the edit") as caught:
        read_document(tmp_path, DETECTOR, OldFile)
    assert caught.value.path == tmp_path / MODEL_FILE
    of_format_1(tmp_path, "low, high")
    with pytest.raises(ModelError, match=r"was edited or is incomplete: 'calibration\.0'"):
        read_document(tmp_path, DETECTOR, OldFile)


def test_weights_of_format_1_get_their_present_names(tmp_path: Path) -> None:
    def upgrade(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {f"0.{name}": tensor for name, tensor in tensors.items()}

    written(tmp_path / "new", DETECTOR)
    with pytest.raises(ModelError, match="does not fit the recipe"):
        load_weights(
            tmp_path / "new", read(tmp_path / "new", DETECTOR), lambda: nn.Sequential(network()), upgrade
        )
    of_format_1(tmp_path, "0.25")
    document = read_document(tmp_path, DETECTOR, OldFile)
    found = load_weights(tmp_path, document, lambda: nn.Sequential(nn.Linear(2, 3)), upgrade)
    assert torch.equal(found.state_dict()["0.weight"], network().weight)


def test_weights_that_are_not_vouched_for_or_do_not_fit(tmp_path: Path) -> None:
    written(tmp_path, DETECTOR)
    document, path = read(tmp_path, DETECTOR), tmp_path / WEIGHTS_FILE

    def of_no_part() -> nn.Linear:
        raise RecipeError("unknown encoder 'bergman'")

    with pytest.raises(ModelError, match=r"does not fit the recipe in model\.json \(Error.* upgrade to the"):
        load_weights(tmp_path, document, lambda: network(features=4))
    with pytest.raises(ModelError, match=r"does not fit the recipe in model\.json \(unknown encoder"):
        load_weights(tmp_path, document, of_no_part)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match="is damaged, or not the one"):
        load_weights(tmp_path, document, network)
    path.unlink()
    with pytest.raises(ModelError, match=r"cannot be read .*copy the whole model folder") as caught:
        load_weights(tmp_path, document, network)
    assert caught.value.path == path


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="choose another --out"):
        written(tmp_path / "file" / "model", DETECTOR)


def test_the_names_of_the_files_need_no_torch() -> None:
    code = "import sys, blemish.storage.model_folder; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False"]
