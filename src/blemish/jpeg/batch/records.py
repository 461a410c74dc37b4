"""Records of encoded files, one line of JSON each, and the summary of a batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from blemish.jpeg.protection import Protection, decisions_changed
from blemish.report.numbers import counted

JOURNAL_FILE = "blemish-jpeg.jsonl"

Action: TypeAlias = Literal["encoded", "recoded", "kept"]


class EncodedFile(BaseModel):
    """One line of the log.

    ``input`` and ``output`` are names within their folders. ``action``: encoded from pixels, recoded without
    loss, or kept, where the input's own bytes are the fewest. ``protection``: of files that were encoded with a
    detector.
    """

    model_config = ConfigDict(frozen=True)

    input: str
    input_sha256: str
    output: str
    output_sha256: str
    settings: str
    action: Action
    bytes_before: int
    bytes_after: int
    bits_per_pixel: float
    quality: float | None
    notices: tuple[str, ...]
    protection: Protection | None = None


@dataclass(frozen=True)
class BatchResult:
    """Records of all images that could be encoded; ``done_before`` of them are of an earlier run.

    ``pages``: reports on the protection, one beside each log.
    """

    files: tuple[EncodedFile, ...]
    done_before: int
    pages: tuple[Path, ...] = ()

    def in_words(self) -> str:
        """Sizes before and after."""
        before = sum(file.bytes_before for file in self.files)
        after = sum(file.bytes_after for file in self.files)
        kept = sum(file.action == "kept" for file in self.files)
        change = f" ({100 * (after / before - 1):+.1f} %)" if before else ""
        words = f"{counted(len(self.files), 'image')}: {_megabytes(before)} before, {_megabytes(after)} now{change}"
        if self.done_before:
            words += f"; {self.done_before} done by an earlier run"
        if kept:
            words += f"; {kept} kept as they were, for the new file would not have been smaller"
        protected = [file.protection for file in self.files if file.protection is not None]
        if protected:
            changed, unprotected = decisions_changed(protected)
            words += (
                f"; compression changed the detector's decision on {changed} of {len(protected)}, without "
                f"protection at the same size on {unprotected}"
            )
        return words


def file_sha256(path: Path) -> str | None:
    """SHA-256 of a file's bytes; None where there is no file that can be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
