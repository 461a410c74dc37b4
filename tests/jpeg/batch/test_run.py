from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from blemish import jpeg
from blemish.errors import BlemishError, DiskFullError, FileError, ModelError, Stopped, UsageError
from blemish.jpeg import Coefficients, Plane, blocks_dct, from_bytes, planes_of, quantise, to_bytes
from blemish.jpeg.batch import JOURNAL_FILE, BatchResult, BatchSettings, EncodedFile, encode_folder
from blemish.jpeg.batch import run as batch_run
from blemish.jpeg.batch import worker as batch_worker
from blemish.jpeg.batch.plan import plan_jobs
from blemish.jpeg.distortion import TUNES
from blemish.observer import Observer
from blemish.storage.records_log import RecordsLog

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Made:
    data: bytes
    coefficients: Coefficients
    bits_per_pixel: float
    quality: float
    notice: str


class StandIn:
    """The encoder's interface with a flat table; counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.damaging = False

    def encode(
        self, pixels: Pixels, *, segments: bytes, tune: str, sampling: str, **targets: float | None
    ) -> Made:
        target = {name: value for name, value in targets.items() if value is not None}
        self.asked.append({"tune": tune, "sampling": sampling, **target})
        quality = target.get("quality", 75.0)
        table = np.full((8, 8), max(1, round(100 - quality)), np.uint16)
        sampling = "4:4:4" if pixels.ndim == 2 else "4:2:0" if sampling == "auto" else sampling
        planes = [Plane(quantise(blocks_dct(p), table), table) for p in planes_of(pixels, sampling)]  # type: ignore[arg-type]
        made = Coefficients(pixels.shape[1], pixels.shape[0], tuple(planes), sampling)  # type: ignore[arg-type]
        data = to_bytes(made, segments=segments)
        if self.damaging:
            planes[0].coefficients[0, 0, 0, 0] ^= 1  # the file no longer holds these coefficients
        notice = "out of reach" if "target_bpp" in target else ""
        return Made(data, made, 8 * len(data) / pixels.shape[0] / pixels.shape[1], quality, notice)


class RecordingObserver(Observer):
    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.problems: list[str] = []
        self.counts = 0

    def problem(self, error: BlemishError) -> None:
        self.problems.append(str(error))

    def count(self, done: int, total: int) -> None:
        self.counts += 1

    def should_stop(self) -> bool:
        return self.stop_after is not None and self.counts >= self.stop_after


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(batch_worker, "_encoder", lambda: stand_in)
    return stand_in


def pixels(seed: int = 0, height: int = 40, width: int = 56) -> Pixels:
    y, x = np.mgrid[:height, :width]
    waves = np.stack([128 + 80 * np.sin(x / (5 + seed + c)) * np.cos(y / 6) for c in range(3)], -1)
    noise = np.random.default_rng(seed).normal(0, 6, waves.shape)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def save(path: Path, seed: int = 0, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed)).save(path, **options)
    return path


def exif(orientation: int = 6, artist: str = "Ada") -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x013B] = orientation, artist
    return tags


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.png, b.jpg of high quality with metadata, below/c.bmp."""
    root = tmp_path / "images"
    save(root / "a.png", 0)
    save(root / "b.jpg", 1, quality=97, exif=exif(), comment=b"made by hand")
    save(root / "below" / "c.bmp", 2)
    return root


def files(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def decoded(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.array(image)


# -- a folder --------------------------------------------------------------------------------------------


def test_every_image_becomes_a_jpeg(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = encode_folder(folder, out)
    assert files(out) == ["a.jpg", "b.jpg", "below/c.jpg", JOURNAL_FILE]
    assert [file.input for file in done.files] == ["a.png", "b.jpg", "below/c.bmp"]
    for file, seed in zip(done.files, range(3), strict=True):
        path = out / file.output
        with Image.open(path) as image:
            assert image.format == "JPEG"
        assert np.abs(decoded(path).astype(int) - pixels(seed)).mean() < 8
        assert (file.action, file.bytes_after) == ("encoded", path.stat().st_size)
        assert file.bits_per_pixel == pytest.approx(8 * file.bytes_after / (40 * 56))


def test_one_file(folder: Path, tmp_path: Path) -> None:
    encode_folder(folder / "a.png", tmp_path / "out")
    assert files(tmp_path / "out") == ["a.jpg", JOURNAL_FILE]


def test_several_sources_keep_apart(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "more" / "a.png", 3)
    encode_folder([folder, tmp_path / "more", folder / "a.png"], tmp_path / "out")
    assert files(tmp_path / "out") == [
        "a.jpg", JOURNAL_FILE, "images/a.jpg", "images/b.jpg", "images/below/c.jpg", "more/a.jpg",
    ]  # fmt: skip


def test_names_that_would_collide_are_kept_apart(tmp_path: Path) -> None:
    for name in ("a.png", "a.JPG", "a.tif", "b.png"):
        save(tmp_path / "images" / name)
    encode_folder(tmp_path / "images", tmp_path / "out")
    assert files(tmp_path / "out") == ["a.JPG", "a.png.jpg", "a.tif.jpg", "b.jpg", JOURNAL_FILE]


def test_colliding_names_are_refused(tmp_path: Path) -> None:
    one, other = save(tmp_path / "one" / "a.jpg"), save(tmp_path / "other" / "a.jpg")
    with pytest.raises(UsageError, match=r"would both become a\.jpg"):
        encode_folder([one, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_reach_the_encoder(folder: Path, tmp_path: Path, encoder: StandIn) -> None:
    encode_folder(folder / "a.png", tmp_path / "1")
    encode_folder(folder / "a.png", tmp_path / "2", settings=BatchSettings(quality=33, tune="psnr"))
    missed = encode_folder(
        folder / "a.png", tmp_path / "3", settings=BatchSettings(target_bpp=0.5, sampling="4:4:4")
    )
    assert missed.files[0].notices == (f"{folder / 'a.png'}: out of reach",)
    encode_folder(folder / "a.png", tmp_path / "4", settings=BatchSettings(target_ssim=0.9))
    assert encoder.asked == [
        {"tune": "balanced", "sampling": "auto"},
        {"tune": "psnr", "sampling": "auto", "quality": 33},
        {"tune": "balanced", "sampling": "4:4:4", "target_bpp": 0.5},
        {"tune": "balanced", "sampling": "auto", "target_ssim": 0.9},
    ]


def test_worker_processes(folder: Path, tmp_path: Path) -> None:
    # A lossless batch needs no encoder, whose stand-in other processes do not know.
    save(folder / "d.jpg", 3, quality=90)
    settings = BatchSettings(lossless=True)
    observer = RecordingObserver()
    encode_folder(folder, tmp_path / "2", settings=settings, workers=2, observer=observer)
    encode_folder(folder, tmp_path / "1", settings=settings)
    assert files(tmp_path / "2") == ["b.jpg", JOURNAL_FILE, "d.jpg"]
    assert (tmp_path / "2" / "b.jpg").read_bytes() == (tmp_path / "1" / "b.jpg").read_bytes()
    assert len(observer.problems) == 2


def test_out_or_in_place(folder: Path, tmp_path: Path) -> None:
    for options in ({}, {"out": tmp_path / "out", "in_place": True}):
        with pytest.raises(UsageError, match="give either --out"):
            encode_folder(folder, **options)
    with pytest.raises(UsageError, match="holds the images themselves"):
        encode_folder(folder, folder)
    with pytest.raises(UsageError, match="no images are named"):
        encode_folder([], tmp_path / "out")


# -- going on ----------------------------------------------------------------------------------------------


def test_a_second_run_does_nothing(folder: Path, tmp_path: Path, encoder: StandIn) -> None:
    first = encode_folder(folder, tmp_path / "out")
    before = tree(tmp_path / "out")
    encoder.asked.clear()
    again = encode_folder(folder, tmp_path / "out")
    assert encoder.asked == []
    assert tree(tmp_path / "out") == before
    assert again == BatchResult(first.files, 3)


def test_changed_images_are_encoded_again(folder: Path, tmp_path: Path, encoder: StandIn) -> None:
    out = tmp_path / "out"
    encode_folder(folder, out)
    encoder.asked.clear()
    save(folder / "a.png", 9)  # another image
    (out / "below" / "c.jpg").unlink()
    assert encode_folder(folder, out).done_before == 1
    assert len(encoder.asked) == 2
    assert files(out) == ["a.jpg", "b.jpg", "below/c.jpg", JOURNAL_FILE]

    encoder.asked.clear()
    done = encode_folder(folder, out, settings=BatchSettings(quality=30))  # other settings
    assert len(encoder.asked) == 3
    log = RecordsLog(out / JOURNAL_FILE, EncodedFile).records
    assert sorted(record.output for record in log) == ["a.jpg", "b.jpg", "below/c.jpg"]
    assert set(log) == set(done.files)


def test_a_former_record_stays_until_all_is_written(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    encode_folder(folder, out)
    save(folder / "a.png", 9)
    save(folder / "below" / "c.bmp", 21)
    with pytest.raises(Stopped):
        encode_folder(folder, out, observer=RecordingObserver(stop_after=1))
    log = RecordsLog(out / JOURNAL_FILE, EncodedFile).records
    assert [record.output for record in log] == ["a.jpg", "b.jpg", "below/c.jpg", "a.jpg"]
    assert encode_folder(folder, out).done_before == 2
    assert len(RecordsLog(out / JOURNAL_FILE, EncodedFile).records) == 3


def test_outputs_below_the_images_are_no_images(folder: Path) -> None:
    encode_folder(folder, folder / "small")
    assert encode_folder(folder, folder / "small").done_before == 3
    assert not (folder / "small" / "small").exists()


def test_a_stopped_run_resumes(folder: Path, tmp_path: Path) -> None:
    encode_folder(folder, tmp_path / "whole")
    with pytest.raises(Stopped, match="stopped after 1 of 3, which are finished"):
        encode_folder(folder, tmp_path / "out", observer=RecordingObserver(stop_after=1))
    assert files(tmp_path / "out") == ["a.jpg", JOURNAL_FILE]
    assert encode_folder(folder, tmp_path / "out").done_before == 1
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_killed_between_the_line_and_its_file(folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "out"
    encode_folder(folder, whole)
    before = tree(whole)
    (whole / "b.jpg").unlink()
    encode_folder(folder, whole)
    assert {name: data for name, data in tree(whole).items() if name != JOURNAL_FILE} == {
        name: data for name, data in before.items() if name != JOURNAL_FILE
    }


def test_a_file_of_someone_else_stays(folder: Path, tmp_path: Path) -> None:
    theirs = save(tmp_path / "out" / "a.jpg", 8).read_bytes()
    observer = RecordingObserver()
    encode_folder(folder, tmp_path / "out", observer=observer)
    assert (tmp_path / "out" / "a.jpg").read_bytes() == theirs
    assert len(observer.problems) == 1
    assert "a.jpg: is there already and not of an earlier run; use --overwrite" in observer.problems[0]
    encode_folder(folder, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "a.jpg").read_bytes() != theirs


# -- never larger, and lossless ----------------------------------------------------------------------------


def test_a_jpeg_never_gets_larger(tmp_path: Path) -> None:
    path = save(tmp_path / "images" / "a.jpg", quality=10, optimize=True, comment=b"made by hand")
    done = encode_folder(path, tmp_path / "out", settings=BatchSettings(quality=99))
    assert (tmp_path / "out" / "a.jpg").read_bytes() == path.read_bytes()
    assert done.files[0].action == "kept"
    assert "kept as it is" in done.files[0].notices[0]
    assert "1 kept as they were" in done.in_words()


@pytest.mark.parametrize("subsampling", [1, 2])
def test_metadata_is_dropped_though_the_pixels_are_kept(tmp_path: Path, subsampling: int) -> None:
    path = save(tmp_path / "a.jpg", quality=10, subsampling=subsampling, exif=exif(6, "Ada " * 200))
    settings = BatchSettings(quality=99, keep_metadata=False)
    done = encode_folder(path, tmp_path / "out", settings=settings)
    new = tmp_path / "out" / "a.jpg"
    assert done.files[0].action == "recoded"
    assert b"Ada" not in new.read_bytes()
    assert new.stat().st_size < path.stat().st_size
    assert np.array_equal(decoded(new), decoded(path))
    with Image.open(new) as image:
        assert dict(image.getexif()) == {0x0112: 6}  # without it the image would lie on its side


def test_nothing_to_drop_is_kept(tmp_path: Path) -> None:
    out, settings = tmp_path / "out", BatchSettings(lossless=True, keep_metadata=False)
    encode_folder(save(tmp_path / "a.jpg", quality=50), out, settings=settings)
    done = encode_folder(out / "a.jpg", tmp_path / "again", settings=settings)
    assert done.files[0].action == "kept"
    assert (tmp_path / "again" / "a.jpg").read_bytes() == (out / "a.jpg").read_bytes()


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_lossless_changes_the_size_alone(
    tmp_path: Path, encoder: StandIn, subsampling: int, progressive: bool
) -> None:
    path = save(
        tmp_path / "a.jpg", quality=90, subsampling=subsampling, progressive=progressive, exif=exif(),
        comment=b"made by hand", icc_profile=None,
    )  # fmt: skip
    done = encode_folder(path, tmp_path / "out", settings=BatchSettings(lossless=True))
    new = tmp_path / "out" / "a.jpg"
    assert encoder.asked == []
    assert done.files[0].action == "recoded"
    assert new.stat().st_size < path.stat().st_size
    assert np.array_equal(decoded(new), decoded(path))
    if subsampling != 1:
        assert from_bytes(new.read_bytes()) == from_bytes(path.read_bytes())
    with Image.open(new) as image:
        assert get_sampling(image) == subsampling
        assert image.getexif()[0x013B] == "Ada"
        assert image.info["comment"] == b"made by hand"


def test_lossless_is_for_jpegs(folder: Path, tmp_path: Path) -> None:
    observer = RecordingObserver()
    encode_folder(folder, tmp_path / "out", settings=BatchSettings(lossless=True), observer=observer)
    assert files(tmp_path / "out") == ["b.jpg", JOURNAL_FILE]
    assert all("is no JPEG" in problem for problem in observer.problems)


@pytest.mark.parametrize("keep", [True, False])
def test_metadata_by_the_switch(folder: Path, tmp_path: Path, keep: bool) -> None:
    settings = BatchSettings(quality=20, keep_metadata=keep)
    encode_folder(folder / "b.jpg", tmp_path / "out", settings=settings)
    data = (tmp_path / "out" / "b.jpg").read_bytes()
    assert (b"Ada" in data) == keep
    assert (b"made by hand" in data) == keep
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == ((56, 40) if keep else (40, 56))  # dropped metadata turns the pixels upright


# -- in place ------------------------------------------------------------------------------------------------


def test_in_place_once(folder: Path, encoder: StandIn) -> None:
    before = tree(folder)
    os.chmod(folder / "b.jpg", 0o640)
    observer = RecordingObserver()
    encode_folder(folder, in_place=True, observer=observer)
    after = tree(folder)
    assert set(after) == {*before, JOURNAL_FILE}
    assert len(after["b.jpg"]) < len(before["b.jpg"])
    assert {name for name in before if after[name] != before[name]} == {"b.jpg"}
    assert (folder / "b.jpg").stat().st_mode & 0o777 == 0o640
    assert [problem.split(": ")[1].split(",")[0] for problem in observer.problems] == ["is no JPEG"] * 2

    encoder.asked.clear()
    again = encode_folder(folder / "b.jpg", in_place=True)
    assert (again.done_before, encoder.asked) == (1, [])  # a second generation would lose more
    assert tree(folder) == after


def test_in_place_after_a_kill_before_the_file(folder: Path) -> None:
    before = (folder / "b.jpg").read_bytes()
    encode_folder(folder / "b.jpg", in_place=True)
    after = (folder / "b.jpg").read_bytes()
    (folder / "b.jpg").write_bytes(before)  # the line is there, the new file never got its name
    assert encode_folder(folder / "b.jpg", in_place=True).done_before == 0
    assert (folder / "b.jpg").read_bytes() == after


def test_in_place_nothing_is_replaced_by_what_does_not_verify(folder: Path, encoder: StandIn) -> None:
    before = tree(folder)
    encoder.damaging = True
    observer = RecordingObserver()
    done = encode_folder(folder / "b.jpg", in_place=True, observer=observer)
    assert done.files == ()
    assert "does not decode to what was encoded" in observer.problems[0]
    assert (folder / "b.jpg").read_bytes() == before["b.jpg"]


def test_in_place_a_file_changed_meanwhile_stays(folder: Path, encoder: StandIn) -> None:
    theirs = save(folder.parent / "theirs.jpg", 7).read_bytes()

    class Meddling(StandIn):
        def encode(self, pixels: Pixels, **options: Any) -> Made:
            made = super().encode(pixels, **options)
            # after reading, before writing
            monkey.setattr(batch_run, "file_sha256", meddle(monkey, folder / "b.jpg", theirs))
            return made

    def meddle(monkey: pytest.MonkeyPatch, path: Path, data: bytes) -> Any:
        original = batch_run.file_sha256

        def sha256(asked: Path) -> str | None:
            path.write_bytes(data)
            return original(asked)

        return sha256

    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(batch_worker, "_encoder", Meddling)
        observer = RecordingObserver()
        encode_folder(folder / "b.jpg", in_place=True, observer=observer)
    assert "has changed in the meantime" in observer.problems[0]
    assert (folder / "b.jpg").read_bytes() == theirs


def test_in_place_through_a_link(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "links" / "b.jpg"
    link.parent.mkdir()
    link.symlink_to(folder / "b.jpg")
    before = (folder / "b.jpg").stat().st_size
    encode_folder(link, in_place=True)
    assert link.is_symlink()
    assert (folder / "b.jpg").stat().st_size < before


# -- bad input -----------------------------------------------------------------------------------------------


def test_bad_files_are_a_line_each_and_the_others_go_on(folder: Path, tmp_path: Path) -> None:
    (folder / "empty.png").touch()
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:600])
    (folder / "text.jpg").write_text("no image")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "deep.tif")
    Image.new("LAB", (4, 4)).save(folder / "lab.tif")
    observer = RecordingObserver()
    done = encode_folder(folder, tmp_path / "out", observer=observer)
    assert len(done.files) == 3
    assert len(observer.problems) == 5
    for name in ("empty.png", "half.png", "text.jpg", "deep.tif", "lab.tif"):
        assert sum(f"{name}: " in problem for problem in observer.problems) == 1
    assert all("\n" not in problem for problem in observer.problems)
    assert not [name for name in files(tmp_path / "out") if "part" in name]


def test_a_name_that_is_not_valid_text_is_reported(folder: Path, tmp_path: Path) -> None:
    os.rename(save(folder / "d.png"), os.fsencode(folder) + b"/\xff.png")
    observer = RecordingObserver()
    done = encode_folder(folder, tmp_path / "out", observer=observer)
    assert len(done.files) == 3
    assert len(observer.problems) == 1
    assert "has a name that is not valid text here; rename it" in observer.problems[0]


def test_in_place_a_file_of_several_images_keeps_them(tmp_path: Path) -> None:
    first, second = (Image.fromarray(pixels(seed)) for seed in (0, 1))
    path = tmp_path / "stereo.jpg"
    first.save(path, format="MPO", save_all=True, append_images=[second])
    before = path.read_bytes()
    observer = RecordingObserver()
    assert encode_folder(path, in_place=True, observer=observer).files == ()
    assert "holds 2 images, and in place all but one would be lost; use --out" in observer.problems[0]
    assert path.read_bytes() == before
    done = encode_folder(path, tmp_path / "out")
    assert "holds 2 images; a JPEG holds one, the first" in done.files[0].notices[0]


def test_the_record_vouches_for_the_bytes_that_were_encoded(
    folder: Path, encoder: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, theirs = folder / "b.jpg", save(folder.parent / "theirs.jpg", 7).read_bytes()
    original = batch_worker.file_bytes

    def meanwhile(asked: Path) -> bytes:
        data = original(asked)
        path.write_bytes(theirs)  # as soon as it was read
        return data

    monkeypatch.setattr(batch_worker, "file_bytes", meanwhile)
    observer = RecordingObserver()
    encode_folder(path, in_place=True, observer=observer)
    assert "has changed in the meantime" in observer.problems[0]
    assert path.read_bytes() == theirs


def test_many_pixels_are_no_warning(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 56 - 1)
    assert len(encode_folder(folder, tmp_path / "out").files) == 3
    assert not [
        warning for warning in recwarn if issubclass(warning.category, Image.DecompressionBombWarning)
    ]


# -- a learned encoder -----------------------------------------------------------------------------------------


class Learned:
    """The interface of an encoder that was trained."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[dict[str, Any]] = []
        if not (folder / "model.json").exists():
            raise ModelError(folder, "is no JPEG encoder", "give the folder that blemish jpeg fit --out made")

    def encode(self, pixels: Pixels, *, segments: bytes, **targets: float | None) -> Made:
        self.asked.append(targets)
        return StandIn().encode(pixels, segments=segments, tune="", sampling="4:4:4", **targets)


@pytest.fixture
def learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(jpeg, "load", Learned, raising=False)
    return model


def test_a_learned_encoder_is_used_instead(
    folder: Path, tmp_path: Path, encoder: StandIn, learned: Path
) -> None:
    settings = BatchSettings(target_bpp=2.0, model=learned)
    done = encode_folder(folder, tmp_path / "out", settings=settings)
    assert encoder.asked == []
    assert [file.action for file in done.files] == ["encoded"] * 3
    assert (
        batch_worker.learned_encoder(learned).asked
        == [{"quality": None, "target_bpp": 2.0, "target_ssim": None}] * 3
    )
    assert encode_folder(folder, tmp_path / "out", settings=settings).done_before == 3


def test_other_weights_are_other_settings(folder: Path, tmp_path: Path, learned: Path) -> None:
    settings = BatchSettings(model=learned)
    encode_folder(folder, tmp_path / "out", settings=settings)
    (learned / "model.safetensors").write_bytes(b"other weights")
    assert encode_folder(folder, tmp_path / "out", settings=settings).done_before == 0
    assert BatchSettings().fingerprint() != settings.fingerprint()


def test_no_learned_encoder_is_one_line(folder: Path, tmp_path: Path, learned: Path) -> None:
    (learned / "model.json").unlink()
    with pytest.raises(ModelError, match="is no JPEG encoder"):
        encode_folder(folder, tmp_path / "out", settings=BatchSettings(model=learned))
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file(folder: Path, tmp_path: Path, encoder: StandIn) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(FileError, match="out: is a file, so nothing can be written here"):
        encode_folder(folder, tmp_path / "out")
    assert encoder.asked == []


def test_a_full_disk_leaves_no_half_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    encode_folder(folder / "a.png", out)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="the disk is full"):
        encode_folder(folder, out)
    assert files(out) == ["a.jpg", JOURNAL_FILE]
    monkeypatch.undo()


@pytest.mark.parametrize("in_place", [False, True])
def test_a_full_disk_ends_the_batch_at_once(
    in_place: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def full(source: object, *_: object) -> Any:
        asked.append(source)
        raise DiskFullError(tmp_path, "the disk of temporary files is full", "free some space")

    monkeypatch.setattr(batch_worker, "_encoded", full)
    observer = RecordingObserver()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    places: dict[str, Any] = {"in_place": True} if in_place else {"out": tmp_path / "out"}
    with pytest.raises(DiskFullError, match="temporary files is full"):
        encode_folder(folder, observer=observer, **places)
    assert len(asked) == 1
    assert {path: path.read_bytes() for path in before} == before


def test_no_room_for_a_file_in_place_ends_the_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def full(outcome: object, *_: object) -> None:
        tried.append(outcome)
        raise DiskFullError(folder, "the disk is full", "free some space")

    monkeypatch.setattr(batch_run, "_write", full)
    with pytest.raises(DiskFullError, match="the disk is full"):
        encode_folder(folder, in_place=True)
    assert len(tried) == 1


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")]
)
def test_an_image_too_large_for_the_memory_is_a_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object) -> Any:
        raise error

    monkeypatch.setattr(batch_worker, "_encoded", full)
    observer = RecordingObserver()
    assert encode_folder(folder, tmp_path / "out", observer=observer).files == ()
    assert observer.problems
    assert all("does not fit into memory" in problem for problem in observer.problems)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        encode_folder(tmp_path / "nowhere", tmp_path / "out")


def test_the_log_holds_every_record(folder: Path, tmp_path: Path) -> None:
    done = encode_folder(folder, tmp_path / "out")
    assert tuple(RecordsLog(tmp_path / "out" / JOURNAL_FILE, EncodedFile).records) == done.files


def test_an_error_of_the_encoder_ends_the_batch(
    folder: Path, tmp_path: Path, encoder: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pixels: Pixels, **options: Any) -> Made:
        raise UsageError("there are no tables for this tune")

    monkeypatch.setattr(encoder, "encode", refuse)
    observer = RecordingObserver()
    with pytest.raises(UsageError, match="no tables"):
        encode_folder(folder, tmp_path / "out", observer=observer)
    assert observer.problems == []  # it is no fault of an image's


@pytest.mark.parametrize("tune", TUNES)
def test_the_encoder_itself(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune: Any) -> None:
    monkeypatch.undo()  # no stand-in
    done = encode_folder(folder, tmp_path / "out", settings=BatchSettings(tune=tune, quality=60))
    assert [file.action for file in done.files] == ["encoded"] * 3
    assert np.abs(decoded(tmp_path / "out" / "a.jpg").astype(int) - pixels()).mean() < 12


def test_masks_beside_images_are_encoded_too(tmp_path: Path) -> None:
    for name in ("a.png", "a_mask.png"):
        Image.new("L", (16, 16), 99).save(tmp_path / name)
    jobs, _ = plan_jobs([tmp_path], tmp_path / "out", BatchSettings(), "")
    assert [job.output for job in jobs] == ["a.jpg", "a_mask.jpg"]
