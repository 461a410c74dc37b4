"""Catalogues of the page: every message that its code names is there, in every language, with the same placeholders."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from blemish.serve.page_files import MESSAGES, PAGE, catalogue, languages

CATALOGUES = sorted(MESSAGES.glob("*.json"))
CODE = sorted(PAGE.rglob("*.js"))
CALL = re.compile(r"\b(tn?)\(\s*(?:\"([^\"]+)\"|([^\"\s]))")
FORMS = ("zero", "one", "two", "few", "many", "other")


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def named_keys() -> tuple[set[str], set[str]]:
    """Keys of messages, and of those with a count, that scripts and the page name."""
    plain, counted = set[str](), set[str]()
    for path in CODE:
        for function, key, _ in CALL.findall(path.read_text(encoding="utf-8")):
            if key:
                (counted if function == "tn" else plain).add(key)
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    return plain | set(re.findall(r'data-t(?:-label)?="([^"]+)"', html)), counted


# Of the texts in index.html; the keys are found there.
FROM_ATTRIBUTES = {
    "app.js: t(e",
    "messages.js: t(k",
    "messages.js: tn(k",
    "messages.js: t(f",
    "messages.js: t(t",
}


def test_keys_are_written_out_where_they_are_used() -> None:
    """A key that is put together at run time could not be checked."""
    found = []
    for path in CODE:
        found += [
            f"{path.name}: {function}({start}"
            for function, key, start in CALL.findall(path.read_text("utf-8"))
            if not key
        ]
    assert set(found) - FROM_ATTRIBUTES == set()


def test_every_message_that_the_code_names_exists_and_is_used() -> None:
    plain, counted = named_keys()
    assert len(plain) > 100
    known = set(catalogue("en"))
    assert plain - known == set()
    assert {f"{key}.{form}" for key in counted for form in ("one", "other")} - known == set()
    used = plain | {f"{key}.{form}" for key in counted for form in FORMS} | {"language.name"}
    # Those of problems are found by their English text: tests/serve/test_problem_texts.py.
    assert {key for key in known - used if not key.startswith("problem.")} == set()


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_catalogues_have_the_same_keys_and_placeholders(path: Path) -> None:
    english, messages = catalogue("en"), json.loads(path.read_text(encoding="utf-8"))

    def of(key: str) -> str:
        """The key, without the form of a count, of which languages have different ones."""
        stem, _, form = key.rpartition(".")
        return stem if form in FORMS and f"{stem}.other" in english else key

    assert {of(key) for key in messages} == {of(key) for key in english}
    for key, text in messages.items():
        model = english.get(key) or english[f"{of(key)}.other"]
        if key.startswith("problem."):  # a value may be words of the English text
            assert placeholders(text) <= placeholders(model), key
        else:
            assert placeholders(text) == placeholders(model), key
        assert text.strip() == text != "", key


def test_a_file_names_each_key_once() -> None:
    for path in CATALOGUES:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
        keys = [key for key, _ in pairs]
        assert len(keys) == len(set(keys)), path.name


def test_languages_have_their_own_names() -> None:
    assert languages()[0] == {"code": "en", "name": "English"}
    assert {"code": "de", "name": "Deutsch"} in languages()
    for wrong in ("fr", "../en", "en.json", "EN", ""):
        with pytest.raises(KeyError):
            catalogue(wrong)


def test_signs_of_decisions_differ_in_words_and_in_shape() -> None:
    """Who sees no colours has the word and the outline."""
    for path in CATALOGUES:
        words = catalogue(path.stem)
        assert len({words[f"decision.{kind}"] for kind in ("accepted", "rejected", "other")}) == 3
    signs = re.search(r"const SIGNS = \{(.*?)\};", (PAGE / "dom.js").read_text("utf-8"), re.S)
    assert signs is not None
    assert len(set(re.findall(r'\["(M[^"]+)"', signs[1]))) == 3
