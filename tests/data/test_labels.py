from __future__ import annotations

import pytest

from blemish.data.labels import means_bad, means_good, means_masks, normal_labels


@pytest.mark.parametrize(
    "word",
    [
        "good",
        "Good",
        "OK",
        "ok",
        "i.O.",
        "IO",
        "normal",
        "Normal",
        "PASS",
        "defect_free",
        "Non-defective",
        "gut",
    ],
)
def test_usual_words_for_good(word: str) -> None:
    assert means_good(word)
    assert not means_bad(word)
    assert normal_labels([word, "scratch"]) == {word: "good", "scratch": "scratch"}


@pytest.mark.parametrize(
    "word", ["bad", "NG", "nok", "KO", "anomaly", "Defective", "n.i.O.", "FAIL", "not_ok"]
)
def test_usual_words_for_defective(word: str) -> None:
    assert means_bad(word)
    assert not means_good(word)


@pytest.mark.parametrize(
    "word", ["goodyear", "okapi", "left", "crack", "3", "", "normality", "camera 1", "position"]
)
def test_other_words_say_neither(word: str) -> None:
    assert not means_good(word)
    assert not means_bad(word)
    assert not means_masks(word)


def test_a_word_of_the_users_own_takes_the_place_of_the_usual_ones() -> None:
    assert normal_labels(["A", "b", "ok"], good="a") == {"A": "good", "b": "b", "ok": "ok"}


@pytest.mark.parametrize(
    ("labels", "meaning"),
    [
        (["0", "1"], ["good", "defective"]),
        (["False", "TRUE"], ["good", "defective"]),
        (["0", "1", "2"], ["0", "1", "2"]),
        (["1", "ok"], ["1", "good"]),
    ],
)
def test_numbers_mean_a_defect_or_none_where_there_is_nothing_else(
    labels: list[str], meaning: list[str]
) -> None:
    assert list(normal_labels(labels).values()) == meaning
