"""Records of encoded files, one line of JSON each, and the summary of a batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from blemish.jpeg.coefficients import Sampling
from blemish.jpeg.protection import Protection, decisions_changed
from blemish.report.numbers import counted

JOURNAL_FILE = "blemish-jpeg.jsonl"

Action: TypeAlias = Literal["encoded", "recoded", "kept"]


class EncodedFile(BaseModel):
    """One line of the log.

    ``input`` and ``output`` are names within their folders. ``action``: encoded from pixels, recoded without
    loss, or kept, where the input's own bytes are the fewest. ``sampling``: of chroma, of files that were encoded.
    ``metadata_kept``, ``metadata_left_out``: bytes of metadata in the new file, and of a JPEG's that are not.
    ``after_end_left_out``: bytes behind the end of a JPEG that are not in the new file. ``protection``: of files that
    were encoded with a detector.
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
    sampling: Sampling | None = None
    metadata_kept: int = 0
    metadata_left_out: int = 0
    after_end_left_out: int = 0
    protection: Protection | None = None


@dataclass(frozen=True)
class BatchResult:
    """Records of all images that could be encoded; ``done_before`` of them are of an earlier run.

    ``pages``: reports on the protection, one beside each log. ``passed_over``: lines on files of other kinds.
    """

    files: tuple[EncodedFile, ...]
    done_before: int
    pages: tuple[Path, ...] = ()
    passed_over: tuple[str, ...] = ()

    def in_words(self) -> str:
        """Sizes before and after, and what was kept and left out."""
        before = sum(file.bytes_before for file in self.files)
        after = sum(file.bytes_after for file in self.files)
        recoded, kept = (sum(file.action == action for file in self.files) for action in ("recoded", "kept"))
        change = f" ({100 * (after / before - 1):+.1f} %)" if before else ""
        words = f"{counted(len(self.files), 'image')}: {size_in_words(before)} before, {size_in_words(after)} now{change}"
        if self.done_before:
            words += f"; {self.done_before} done by an earlier run"
        if recoded:
            words += f"; {recoded} recoded without loss"
        if kept:
            words += f"; {kept} kept as they were, for the new file would not have been smaller"
        words += self._metadata_in_words()
        protected = [file.protection for file in self.files if file.protection is not None]
        if protected:
            changed, unprotected = decisions_changed(protected)
            words += (
                f"; compression changed the detector's decision on {changed} of {len(protected)}, without "
                f"protection at the same size on {unprotected}"
            )
        return words

    def _metadata_in_words(self) -> str:
        held, left = (
            (
                sum(sizes)
                for sizes in zip(
                    *((file.metadata_kept, file.metadata_left_out) for file in self.files), strict=True
                )
            )
            if self.files
            else (0, 0)
        )
        behind = [file.after_end_left_out for file in self.files if file.after_end_left_out]
        parts = []
        if held:
            parts.append(f"{size_in_words(held)} of metadata kept")
        if left:
            parts.append(f"{size_in_words(left)} of metadata left out")
        if behind:
            files = counted(len(behind), "file")
            parts.append(f"{size_in_words(sum(behind))} behind the end of {files} left out")
        return "".join(f"; {part}" for part in parts)


def file_sha256(path: Path) -> str | None:
    """SHA-256 of a file's bytes; None where there is no file that can be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def size_in_words(size: int) -> str:
    """A number of bytes in kB or MB."""
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
