"""Compare codecs on real files: bytes and quality over a ladder, BD-rates, encode times.

Every number is of one file: its bytes give the rate, the pixels that Pillow decodes from it the quality.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blemish.data.datasets import find_images
from blemish.data.items import Item
from blemish.errors import BlemishError, FileError, ImageError, UsageError, within_memory
from blemish.jpeg import quality as measuring
from blemish.jpeg.benchmark import bd_rate as bd
from blemish.jpeg.benchmark.baselines import BASELINES
from blemish.jpeg.benchmark.codecs import Codec, decode_checked, describe, encode_checked
from blemish.jpeg.benchmark.find_codecs import find_codecs
from blemish.jpeg.benchmark.records import CodecEvaluation, CodecRecord
from blemish.jpeg.benchmark.summary import summarise
from blemish.jpeg.quality import Measure, Unavailable
from blemish.jpeg.source_image import read_source
from blemish.observer import Observer
from blemish.report.numbers import counted
from blemish.storage.atomic import write_json, write_text
from blemish.storage.run_folder import RunFolder
from blemish.storage.run_lock import owned
from blemish.workers import each

Pixels = NDArray[np.uint8]

LADDER = (4, 7, 11, 16, 23, 32, 42, 53, 64, 75, 85, 92)
"""Qualities whose files lie around 0.2 to 1 bits per pixel on photographs, with neighbours on both sides."""

RECORDS_FILE, EVALUATION_FILE = "records.jsonl", "evaluation.json"
TABLE_FILE, REPORT_FILE = "evaluation.md", "report.html"


def evaluate(
    images: str | Path,
    out: str | Path,
    *,
    encoders: Sequence[Codec] | None = None,
    qualities: Sequence[int] = LADDER,
    bpp_range: tuple[float, float] = bd.BPP_RANGE,
    ssimulacra2: bool = True,
    lpips: bool = True,
    workers: int = 1,
    crops: int = 3,
    overwrite: bool = False,
    command: str = "",
    observer: Observer | None = None,
) -> CodecEvaluation:
    """Encode every image with every codec at every quality, and compare; measured files are not measured again.

    ``out`` gets ``records.jsonl`` (a line a file, from which a later run goes on), ``evaluation.json``,
    ``evaluation.md`` and ``report.html``. Images are taken upright and without metadata. The first encode of
    an encoder in a process, of a corner of the image, is not counted in its time.

    Parameters
    ----------
    images: an image, a folder of images, or a CSV list.
    encoders: by default all of ``find_codecs()``; both Pillow baselines are added where they are missing.
    qualities: whole numbers of 1 to 100; an encoder that has a ``ladder`` of its own is evaluated at that.
    bpp_range: bits per pixel between which BD-rates are taken.
    ssimulacra2, lpips: whether to take these measures, which are slow, where this machine can.
    workers: processes. Times are of each encoder as it is on a machine with that much else to do.
    crops: images of which details are shown side by side, all encoders at about one rate.
    overwrite: measure everything again.

    Raises
    ------
    UsageError, FileError
        In one line that names the option or the file.
    Stopped
        When the observer asked to stop; finished files stay in ``records.jsonl``.
    """
    observer = observer or Observer()
    _check_qualities(qualities)
    bd.RateCurve.through([], []).within(bpp_range)  # refuses a wrong range before any work
    if encoders is None:
        encoders, missing = find_codecs()
    else:
        missing = []
    encoders = list({encoder.name: encoder for encoder in (*BASELINES, *encoders)}.values())
    measures, without = measuring.measures(ssimulacra2=ssimulacra2, lpips=lpips)
    out = Path(out)
    with owned(out):
        items = find_images(images, with_masks=True)
        run = RunFolder(out)
        if overwrite:
            run.remove(RECORDS_FILE)
        log = run.records(RECORDS_FILE, CodecRecord)
        tasks = _tasks(items, encoders, sorted(set(qualities)), measures, observer)
        wanted = {task.key(quality) for task in tasks for quality in task.qualities}
        known = {_key(record): record for record in log.records if record.measures.keys() >= set(measures)}
        open_tasks = [
            task
            for task in (
                replace(task, qualities=tuple(q for q in task.qualities if task.key(q) not in known))
                for task in tasks
            )
            if task.qualities
        ]
        observer.stage(
            f"Evaluating {counted(len(encoders), 'encoder')} on {counted(len(items), 'image')}: "
            f"{counted(sum(len(task.qualities) for task in open_tasks), 'file')} to measure, "
            f"{len(wanted & known.keys())} already done"
        )
        reported: set[str] = set()
        for result in each(run_task, open_tasks, workers=workers, observer=observer):
            if isinstance(result, BlemishError):
                if str(result) not in reported:  # a damaged image fails with every encoder
                    observer.problem(result)
                    reported.add(str(result))
                continue
            for record in result:
                log.append(record)
                known[_key(record)] = record
        records = [known[key] for key in sorted(wanted & known.keys())]
        if not records:
            raise FileError(Path(images), "holds no image that could be encoded", "see the lines above")
        working = {record.encoder for record in records}
        missing += [
            Unavailable(one.name, "it failed on every image") for one in encoders if one.name not in working
        ]
        encoders = [encoder for encoder in encoders if encoder.name in working]
        evaluation = summarise(
            records,
            encoders,
            bpp_range=bpp_range,
            missing={one.name: one.remedy for one in (*missing, *without)},
            command=command,
            workers=workers,
        )
        write_json(out / EVALUATION_FILE, evaluation.model_dump(mode="json"))
        write_text(out / TABLE_FILE, evaluation.markdown())

        from blemish.jpeg.benchmark.page import write_evaluation_page

        shown = {record.image for record in records}
        write_evaluation_page(
            out / REPORT_FILE,
            evaluation,
            [item for item in items if item.name in shown],
            encoders,
            crops=crops,
            workers=workers,
            observer=observer,
        )
        return evaluation


@dataclass(frozen=True)
class EvaluationTask:
    """One image for one codec, at some qualities."""

    item: Item
    sha256: str
    encoder: Codec
    qualities: tuple[int, ...]
    measures: tuple[Measure, ...]

    def key(self, quality: int) -> tuple[str, str, str, str, int]:
        """Key of this task's record at ``quality``; see :class:`CodecRecord`."""
        return (self.item.name, self.sha256, self.encoder.name, describe(self.encoder), quality)


def _key(record: CodecRecord) -> tuple[str, str, str, str, int]:
    return (record.image, record.image_sha256, record.encoder, record.description, record.quality)


def _tasks(
    items: Sequence[Item],
    encoders: Sequence[Codec],
    qualities: Sequence[int],
    measures: Sequence[Measure],
    observer: Observer,
) -> list[EvaluationTask]:
    tasks = []
    for item in items:
        try:
            sha256 = hashlib.sha256(item.path.read_bytes()).hexdigest()
        except OSError as error:
            observer.problem(
                ImageError(item.path, f"cannot be read ({error.strerror})", "check its permissions")
            )
            continue
        tasks += [
            EvaluationTask(
                item, sha256, encoder, tuple(getattr(encoder, "ladder", qualities)), tuple(measures)
            )
            for encoder in encoders
        ]
    return tasks


def run_task(task: EvaluationTask) -> list[CodecRecord] | BlemishError:
    """Encode, decode and measure; runs in a worker process."""
    try:
        with within_memory(task.item.path):
            pixels = read_source(task.item.path, keep_metadata=False).pixels
            _warm_up(task.encoder, pixels)
            return [_record(task, pixels, quality) for quality in task.qualities]
    except BlemishError as error:
        return error


_warm: set[str] = set()


def _warm_up(encoder: Codec, pixels: Pixels) -> None:
    """Let an encoder load and compile its code, once in each process."""
    if encoder.name not in _warm:
        encode_checked(encoder, np.ascontiguousarray(pixels[:64, :64]), 50)
        _warm.add(encoder.name)


def _record(task: EvaluationTask, pixels: Pixels, quality: int) -> CodecRecord:
    begun = time.perf_counter()
    data = encode_checked(task.encoder, pixels, quality)
    seconds = time.perf_counter() - begun
    found = decode_checked(task.encoder, data)
    if found.shape != pixels.shape:
        raise ImageError(
            task.item.path, f"came back from {task.encoder.name} as {found.shape}", "leave the encoder out"
        )
    return CodecRecord(
        image=task.item.name,
        image_sha256=task.sha256,
        encoder=task.encoder.name,
        description=describe(task.encoder),
        quality=quality,
        width=pixels.shape[1],
        height=pixels.shape[0],
        bytes=len(data),
        seconds=seconds,
        measures=measuring.measure(pixels, found, task.measures),
    )


def _check_qualities(qualities: Sequence[int]) -> None:
    wrong = [quality for quality in qualities if not 1 <= quality <= 100]
    if wrong:
        raise UsageError(f"--qualities: {wrong[0]} is not between 1 and 100")
    if len(set(qualities)) < 2:
        raise UsageError("--qualities: give at least two, or there is no curve")
