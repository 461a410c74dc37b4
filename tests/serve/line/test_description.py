"""The description of a line: what it takes, and one line for each fault, with the key and the remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import blemish
from blemish.errors import ServeError
from blemish.serve.line.description import LineDescription, parse_line, read_line
from blemish.serve.line.secrets import resolved, without_password
from blemish.serve.line.source_settings import EachTrigger, FolderSettings, IntervalTrigger

EXAMPLE = Path(blemish.__file__).parents[2] / "examples" / "line.yaml"


def folder(**more: Any) -> dict[str, Any]:
    return {"sources": [{"name": "in", "type": "folder", "path": "incoming", **more}]}


def webhook(**more: Any) -> dict[str, Any]:
    return {"sinks": [{"name": "hook", "type": "webhook", "url": "https://mes.example/parts", **more}]}


def test_the_example_has_every_type_of_source_trigger_and_sink() -> None:
    line = read_line(EXAMPLE)
    assert {source.type for source in line.sources} == {
        "folder", "video", "stream", "webcam", "snapshot", "genicam",
    }  # fmt: skip
    assert {source.trigger.type for source in line.sources} == {"each", "interval", "http", "mqtt"}
    assert {sink.type for sink in line.sinks} == {
        "folder", "csv", "webhook", "mqtt", "opcua-server", "opcua-client",
    }  # fmt: skip


def test_a_description_that_is_written_as_json_is_read_as_the_same() -> None:
    line = read_line(EXAMPLE)
    assert parse_line(line.model_dump(mode="json"), "request") == line


def test_an_empty_file_is_a_line_without_parts(tmp_path: Path) -> None:
    (tmp_path / "line.yaml").write_text("")
    assert read_line(tmp_path / "line.yaml") == LineDescription()


def test_times_are_seconds_or_have_a_unit() -> None:
    for written, seconds in ((2, 2.0), ("500ms", 0.5), ("1.5 s", 1.5), ("2m", 120.0)):
        (source,) = parse_line(folder(trigger={"type": "interval", "every": written}), "x").sources
        assert isinstance(source.trigger, IntervalTrigger)
        assert source.trigger.every == pytest.approx(seconds)


def test_a_trigger_may_be_its_name_and_is_each_image_without_one() -> None:
    (short,) = parse_line(folder(trigger="http"), "x").sources
    assert short.trigger.type == "http"
    (none,) = parse_line(folder(), "x").sources
    assert none.trigger == EachTrigger()
    assert isinstance(none, FolderSettings)


def test_sinks_take_all_sources_or_those_that_they_name() -> None:
    line = parse_line(
        {
            "sources": [
                {"name": "left", "type": "folder", "path": "a"},
                {"name": "right", "type": "folder", "path": "b"},
            ],
            "sinks": [
                {"name": "all", "type": "csv", "path": "all.csv"},
                {"name": "rejects", "type": "folder", "path": "rejects", "sources": ["left", "api"]},
            ],
        },
        "x",
    )
    assert line.sinks_of("left") == {"all": "all", "rejects": "rejected"}
    assert line.sinks_of("right") == {"all": "all"}
    assert line.sinks_of("api") == {"all": "all", "rejects": "rejected"}


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"source": []}, "x: unknown key 'source'; did you mean 'sources'?"),
        (folder(patern="*.png"), "x: unknown key 'sources[0].patern'; did you mean 'sources[0].pattern'?"),
        ({"sources": [{"name": "a", "type": "folder"}]}, "x: key 'sources[0].path' is missing; add it"),
        ({"sources": [{"name": "a", "type": "foldr"}]}, "x: 'sources[0].type' is 'foldr'; did you mean 'folder'?"),
        (
            {"sources": [{"name": "a"}]},
            "x: key 'sources[0].type' is missing; there are folder, video, stream, webcam, snapshot, genicam",
        ),
        (folder(trigger="htp"), "x: 'sources[0].trigger.type' is 'htp'; did you mean 'http'?"),
        (folder(trigger={"type": "interval"}), "x: key 'sources[0].trigger.every' is missing; add it"),
        (
            folder(trigger={"type": "interval", "evry": 2, "every": 1}),
            "x: unknown key 'sources[0].trigger.evry'; did you mean 'sources[0].trigger.every'?",
        ),
        (
            folder(trigger={"type": "interval", "every": "soon"}),
            "x: 'sources[0].trigger.every' is no time; write seconds as a number, or with a unit, such as 500ms, 2s or 5m",
        ),
        (
            folder(after="move"),
            "x: 'sources[0]' has one of 'after: move' and 'move_to' without the other; give both, or neither",
        ),
        (
            folder(name="../x"),
            "x: 'sources[0].name' '../x' is no name: write at most 100 characters without slashes, that do not begin with "
            "a dot or a space",
        ),
        (folder(name="api"), "x: 'sources' has the name 'api', which uploads have; take another"),
        ({"sources": folder()["sources"] * 2}, "x: 'sources' has the name 'in' twice; give each its own"),
        (webhook(sources=["inn"]), "x: 'sinks[0].sources' has 'inn'; there are api"),
        (
            webhook(url="file:///etc/passwd"),
            "x: 'sinks[0].url' is no URL of http, https; write one such as http://192.168.0.10/path",
        ),
        (
            webhook(token="hunter2"),
            "x: 'sinks[0].token' is the secret itself; write a reference such as ${BLEMISH_LINE_PASSWORD}, and set that "
            "environment variable",
        ),
        (
            webhook(url="https://a:hunter2@mes.example/"),
            "x: 'sinks[0].url' holds a password; write ${BLEMISH_LINE_PASSWORD} in its place, and set that environment "
            "variable",
        ),
        (
            webhook(token="${HOME}"),
            "x: 'sinks[0].token' refers to ${HOME}; the name of a variable of the line begins with BLEMISH_LINE_ and has "
            "capitals, digits and underscores",
        ),
        (
            {"sinks": [{"name": "plc", "type": "opcua-server", "host": "0.0.0.0"}]},
            "x: 'sinks[0]' is reached from other machines without a password; add user and password",
        ),
        (
            {"sinks": [{"name": "m", "type": "mqtt", "host": "h", "topic": "a/{part}"}]},
            "x: 'sinks[0].topic' has the field {part}; there are decision, id, model, name, source",
        ),
        (
            {"sinks": [{"name": "m", "type": "mqtt", "host": "no host"}]},
            "x: 'sinks[0].host' is no name or address of a machine; write one such as broker.local or 192.168.0.10",
        ),
        (
            webhook(url=f"http://{'a' * 64}/"),
            "x: 'sinks[0].url' is no name or address of a machine; write one such as broker.local or 192.168.0.10",
        ),
        (
            {"sources": [{"name": "a", "type": "folder", "path": "parts\0"}]},
            "x: 'sources[0].path' has a line break or another control character; leave it out",
        ),
        ([1], "x: it is not written as keys and values; write it as in examples/line.yaml"),
        ({"sources": 1}, "x: 'sources' is not written as keys and values; write it as in examples/line.yaml"),
    ],
)  # fmt: skip
def test_each_fault_is_one_line_with_its_key(data: Any, line: str) -> None:
    with pytest.raises(ServeError) as error:
        parse_line(data, "x")
    assert str(error.value) == line
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff", "is not UTF-8 text"),
        (b"a: [", "is not valid YAML"),
        (b"date: 2024-13-45", "is not valid YAML"),
        (b"a: !!python/object:os.system x", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_description_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "line.yaml"
    path.write_bytes(content)
    with pytest.raises(ServeError, match=words) as error:
        read_line(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="cannot be read"):
        read_line(tmp_path / "line.yaml")


def test_secrets_come_from_the_environment_and_are_shown_nowhere() -> None:
    url = "rtsp://operator:${BLEMISH_LINE_CAMERA}@10.0.0.5/stream"
    (source,) = parse_line({"sources": [{"name": "c", "type": "stream", "url": url}]}, "x").sources
    assert yaml.safe_dump(source.model_dump(mode="json")).count("BLEMISH_LINE_CAMERA") == 1
    full = resolved(url, "sources[0].url", {"BLEMISH_LINE_CAMERA": "hunter2"})
    assert full == "rtsp://operator:hunter2@10.0.0.5/stream"
    assert without_password(full) == "rtsp://10.0.0.5/stream"
    with pytest.raises(
        ServeError, match=r"'sources\[0\].url' needs the environment variable BLEMISH_LINE_CAMERA"
    ):
        resolved(url, "sources[0].url", {})


def test_the_tables_of_the_guide_have_the_keys_of_each_type() -> None:
    guide = (EXAMPLE.parents[1] / "docs" / "guides" / "sources-and-sinks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (`[^|]+`) \|", guide, re.MULTILINE)
    found = {(kind, tuple(re.findall(r"`([a-z_]+)`", keys))) for kind, keys in rows}
    shared = {"name", "type", "model", "trigger", "wants", "sources"}
    models = [
        (source.type, type(source)) for source in read_line(EXAMPLE).sources
    ] + [(sink.type, type(sink)) for sink in read_line(EXAMPLE).sinks]  # fmt: skip
    expected = {(kind, frozenset(model.model_fields) - shared) for kind, model in models}
    assert {(kind, frozenset(keys)) for kind, keys in found if kind in dict(expected)} == expected
