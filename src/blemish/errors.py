"""Errors that a user can correct.

Every error is one line that names the file (or the setting) and the remedy. The command line prints that
line and nothing else; a traceback from Blemish is always a defect of Blemish.
"""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that a terminal acts upon, or that are no text: controls, formats (which turn the direction of
writing), lone surrogates (bytes of a name that are no text), separators of lines and paragraphs."""


def printable(text: str) -> str:
    """``text`` with control characters, line breaks and bytes that are no text escaped, so that it stays one line.

    >>> print(printable("a\\x1b[31m\\nb.png"))
    a\\x1b[31m\\nb.png
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _ESCAPED else char
        for char in text
    )


class BlemishError(Exception):
    """Base of every error that a user can correct; control characters in its message are escaped.

    ``exit_code`` is the exit status of the command line: 1 for a failure met while working (a bad file, a full
    disk), 2 for wrong usage (an unknown recipe, a setting that makes no sense).
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))

    def without_frames(self) -> Self:
        """This error without its traceback and causes, whose frames would keep an image in memory."""
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


class UsageError(BlemishError):
    """A command, setting or combination that cannot work, whatever the files hold."""

    exit_code = 2


class TooSmallError(UsageError):
    """A preprocessed image that is too small for a model; sizes are in pixels at the scale of the model.

    Parameters
    ----------
    size: (height, width) of the image.
    least: shortest side that the model takes.
    what: of the model the image is too small for, such as "for the filters".
    """

    def __init__(self, size: tuple[int, int], least: int, what: str) -> None:
        super().__init__(
            f"an image of {size[1]} × {size[0]} pixels is too small {what}; it needs at least {least} × {least}"
        )
        self.size, self.least, self.what = size, least, what

    def __reduce__(self) -> tuple[type[TooSmallError], tuple[tuple[int, int], int, str]]:
        return type(self), (self.size, self.least, self.what)

    def of_image(self, path: Path, size: tuple[int, int], scale: float, larger: str) -> ImageError:
        """The error of the image file of ``size`` (height, width), in its own pixels; ``larger`` is the setting that helps."""
        least = math.ceil(self.least / scale)
        at_scale = (
            "" if scale == 1 else f" ({self.size[1]} × {self.size[0]} at the model's scale of {scale:.3g})"
        )
        return ImageError(
            path,
            f"is {size[1]} × {size[0]} pixels{at_scale}, too small {self.what}",
            f"give images of at least {least} × {least} pixels, or fit with {larger}",
        )


class FileError(BlemishError):
    """An error of one file or folder; its message is ``PATH: problem; remedy``."""

    def __init__(self, path: str | Path, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}; {remedy}")
        self.path = Path(path)
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[FileError], tuple[Path, str, str]]:
        return type(self), (self.path, self.problem, self.remedy)


class NameInTheWayError(FileError):
    """A file whose name cannot be taken: too long, or that of a folder; files of other names can be written."""

    def of_image(self, path: Path) -> ImageError:
        """The error of the image whose results this file was to hold."""
        return ImageError(path, f"has a name that its results cannot take ({self.problem})", "rename it")


class DiskFullError(FileError):
    """A file that has no room on its disk, or in its user's quota; every other file there would fail as well."""


class ImageError(FileError):
    """An image or mask that cannot be used."""


class ModelError(FileError):
    """A model folder that is incomplete, edited, or from a newer version."""


class RecipeError(UsageError):
    """An unknown recipe or setting, or parts that do not fit each other."""


class CalibrationError(UsageError):
    """Too few good images for the false-reject rate that was asked for."""


class ExportError(BlemishError):
    """An exported model that does not agree with the one in torch."""


class ServeError(BlemishError):
    """A server, source or sink that cannot work as it is set up."""


class HistoryError(ServeError):
    """A history that cannot be opened, read or written; nothing that was stored before is lost by it."""


class DecisionNotFoundError(ServeError, LookupError):
    """A number that no decision of the history has, or no longer has."""


class DeliveryError(BlemishError):
    """A decision that did not arrive at a sink; it is kept and tried again."""


class MissingExtraError(UsageError):
    """A feature whose optional packages are not installed; the message names the command that installs them."""


class Stopped(BlemishError):
    """An interruption by the user; finished parts are on disk."""


def lacks_memory(error: BaseException) -> bool:
    """True if ``error`` says that memory could not be had, in Python's words or in torch's."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("allocate memory", "out of memory")
    )


@contextmanager
def within_memory(path: Path) -> Iterator[None]:
    """Turn a lack of memory in the block into an ImageError of the image at ``path``."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise ImageError(path, "does not fit into memory", "cut it into smaller images") from None


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Suggest the known name that resembles an unknown one, or list all known names; ends an error message.

    ``prefix`` is written before the suggested name, to complete a dotted key.

    >>> nearest("sim-ae", ["l2-ae", "ssim-ae"])
    "did you mean 'ssim-ae'?"
    >>> nearest("zzz", ["l2-ae", "ssim-ae"])
    'there are l2-ae, ssim-ae'
    """
    names = list(known)
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return f"did you mean '{prefix}{near[0]}'?" if near else f"there are {', '.join(names) or 'none'}"
