"""Problems in the user's language: the key of a message and its values, found by the English text.

Errors are raised in English, as programs and logs have them. The English catalogue holds each text as a template under a
key ``problem.…``; whoever shows the problem fills in the template of another language with the same values.
"""

from __future__ import annotations

import re
from functools import cache

from pydantic import BaseModel

from blemish.serve.page_files import catalogue

PREFIX = "problem."
_PLACE = re.compile(r"\{(\w+)\}")
_VALUE = "(?:(?!; ).)+?"
"""No value goes on into the remedy."""
LONGEST = 2000
"""Characters of a text that is looked for."""


class ProblemText(BaseModel):
    """A message of the catalogues (``/page/messages/LANGUAGE.json``) and the values of its placeholders."""

    key: str
    values: dict[str, str]


def problem_text(text: str | None) -> ProblemText | None:
    """Message of an English text; None where the catalogue has none.

    >>> problem_text("there is no fit 3")
    ProblemText(key='problem.fit_none', values={'number': '3'})
    """
    if not text or len(text) > LONGEST:
        return None
    for key, pattern in _patterns():
        found = pattern.fullmatch(text)
        if found is not None:
            return ProblemText(key=key, values=found.groupdict())
    return None


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Keys and their patterns, those with most text of their own first."""
    templates = {key: text for key, text in catalogue("en").items() if key.startswith(PREFIX)}
    order = sorted(templates, key=lambda key: -len(_PLACE.sub("", templates[key])))
    return tuple((key, _pattern(templates[key])) for key in order)


def _pattern(template: str) -> re.Pattern[str]:
    parts = _PLACE.split(template)  # text, name, text, …
    return re.compile(
        "".join(f"(?P<{part}>{_VALUE})" if place % 2 else re.escape(part) for place, part in enumerate(parts))
    )
