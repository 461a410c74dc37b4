"""Texts of the weekly report, one JSON file a language; a further language is one more file."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path

from blemish.errors import UsageError, nearest

DEFAULT = "en"


class ReportTexts:
    """Texts, numbers and dates in one language.

    Parameters
    ----------
    language: name of a file beside this module, such as ``de``.

    Raises
    ------
    UsageError
        When there is no such file.
    """

    def __init__(self, language: str = DEFAULT) -> None:
        if language not in languages():
            raise UsageError(f"--language {language}: {nearest(language, languages())}")
        self.language = language
        self._texts = _read(DEFAULT) | _read(language)

    def __call__(self, key: str, **values: object) -> str:
        """Text of a key, with its values in place; numbers are written as the language does."""
        shown = {
            name: self.number(value) if isinstance(value, int) else value for name, value in values.items()
        }
        return self._texts[key].format(**shown)

    def number(self, value: float, digits: int = 0) -> str:
        """A number with so many digits behind the decimal sign.

        >>> ReportTexts("de").number(1234.5, 1)
        '1.234,5'
        """
        written = f"{value:,.{digits}f}"
        signs = {",": self._texts["number.thousands"], ".": self._texts["number.decimal"]}
        return "".join(signs.get(char, char) for char in written)

    def percent(self, share: float) -> str:
        """A share in percent, without the sign, with the digits that it needs.

        >>> ReportTexts().percent(0.1234), ReportTexts().percent(0.00071)
        ('12.3', '0.071')
        """
        value = 100 * share
        return self.number(value, 1 if value >= 1 or value == 0 else 2 if value >= 0.1 else 3)

    def figure(self, value: float) -> str:
        """A score, with four figures."""
        return f"{value:.4g}".replace(".", self._texts["number.decimal"])

    def day(self, day: date) -> str:
        """A day with the name of its weekday."""
        return f"{self._texts['days'].split()[day.weekday()]} {day.strftime(self._texts['date.day'])}"

    def moment(self, moment: datetime) -> str:
        """A day and a time."""
        return moment.strftime(self._texts["date.moment"])


def languages() -> list[str]:
    """Languages that there are texts in."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.json"))


def _read(language: str) -> dict[str, str]:
    texts: dict[str, str] = json.loads(
        (Path(__file__).parent / f"{language}.json").read_text(encoding="utf-8")
    )
    return texts
