from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from blemish import jpeg
from blemish.errors import ModelError, UsageError
from blemish.inspection import detector as detector
from blemish.jpeg.benchmark.codecs import LearnedCodec, learned_codec
from blemish.jpeg.benchmark.find_codecs import find_codecs
from blemish.jpeg.benchmark.records import CodecRecord
from blemish.jpeg.benchmark.run import evaluate
from blemish.jpeg.deep.fit import fit_jpeg
from blemish.jpeg.deep.model import DeepEncoder, load
from blemish.storage.model_folder import weights_of
from blemish.storage.records_log import RecordsLog

Pixels = NDArray[np.uint8]
TINY = (
    "loss.gamma=0",
    "loss.sigma=0",
    "tables.initial=annex-k",
    "patch.size=32",
    "training.batch=4",
    "training.steps=40",
    "training.validate_every=40",
    "training.learning_rate=1e-2",
    "tables.pace=5",
    "training.device=cpu",
    "training.precision=float32",
)
LAMBDAS = "lambdas=[0.1, 0.001, 0.01]"


def draw(seed: int, height: int = 45, width: int = 61) -> Pixels:
    y, x = np.mgrid[:height, :width]
    waves = np.stack([128 + 80 * np.sin(x / (4 + seed + c)) * np.cos(y / 7) for c in range(3)], -1)
    noise = np.random.default_rng(seed).normal(0, 8, waves.shape)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def decoded(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(4):
        Image.fromarray(draw(seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def fitted_jpeg(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[DeepEncoder, Path]:
    """An encoder for three λ as fit returned it, and its folder; not to be changed."""
    folder = tmp_path_factory.mktemp("fitted") / "model"
    return fit_jpeg(photos, "jpeg-lstm", settings=[*TINY, LAMBDAS], out=folder), folder


@pytest.fixture
def folder(fitted_jpeg: tuple[DeepEncoder, Path], tmp_path: Path) -> Path:
    """A copy of the model's folder, to be damaged at will."""
    return Path(shutil.copytree(fitted_jpeg[1], tmp_path / "jpeg-model"))


@pytest.fixture(scope="module")
def of_one(photos: Path) -> DeepEncoder:
    return fit_jpeg(photos, "jpeg-tables", settings=[*TINY, "lambdas=[0.01]"])


# -- encoding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quality", "place"), [(1, 0.0), (50.5, 1.0), (100, 2.0), (75.25, 1.5)])
def test_quality_stands_for_a_place_among_the_lambdas(
    fitted_jpeg: tuple[DeepEncoder, Path], quality: float, place: float
) -> None:
    encoder, _ = fitted_jpeg
    assert encoder.place(quality) == place
    found, expected = encoder.encode(draw(9), quality=quality), encoder.encode_at(draw(9), place)
    assert found.data == expected.data
    assert found.quality == expected.quality == quality
    assert found.coefficients == encoder.model.coefficients(draw(9), place)
    assert found.bits_per_pixel == 8 * len(found.data) / (45 * 61)


def test_a_higher_quality_is_nearer_to_the_image_and_larger(
    fitted_jpeg: tuple[DeepEncoder, Path],
) -> None:
    encoder, _ = fitted_jpeg
    files = [encoder.encode_at(draw(9), place).data for place in range(3)]
    errors = [np.square(draw(9) - decoded(data).astype(float)).mean() for data in files]
    assert sorted(map(len, files)) == [*map(len, files)]
    assert sorted(errors, reverse=True) == errors


@pytest.mark.parametrize("shape", [(45, 61), (1, 1), (8, 16), (17, 3)])
def test_the_file_holds_what_training_sees(
    fitted_jpeg: tuple[DeepEncoder, Path], shape: tuple[int, int]
) -> None:
    encoder, _ = fitted_jpeg
    pixels = draw(5, *shape)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        outcome = encoder.model(x, torch.tensor([1.0]))
    seen = (255 * outcome.reconstruction[0]).permute(1, 2, 0).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(decoded(encoder.encode_at(pixels, 1.0).data), seen)


def test_library_command_and_folder_give_the_same_bytes(
    fitted_jpeg: tuple[DeepEncoder, Path], tmp_path: Path, blemish: Callable[..., Any]
) -> None:
    encoder, folder = fitted_jpeg
    Image.fromarray(draw(9)).save(tmp_path / "image.png")
    data = encoder.encode(draw(9), quality=100).data
    assert jpeg.load(folder).encode(draw(9), quality=100).data == data
    assert learned_codec(folder).encode(draw(9), 100) == data
    ran = blemish("jpeg", "encode", tmp_path / "image.png", "--out", tmp_path / "small", "--model", folder,
                  "--quality", 100, "--workers", 1)  # fmt: skip
    assert ran.code == 0, ran.err
    assert (tmp_path / "small" / "image.jpg").read_bytes() == data


def test_targets(fitted_jpeg: tuple[DeepEncoder, Path]) -> None:
    encoder, _ = fitted_jpeg
    small, large = (encoder.encode_at(draw(9), place).bits_per_pixel for place in (0, 2))
    between = encoder.encode(draw(9), target_bpp=(small * large) ** 0.5)
    assert small < between.bits_per_pixel < large
    out_of_reach = encoder.encode(draw(9), target_bpp=30)
    assert out_of_reach.bits_per_pixel == pytest.approx(large)
    assert "30 bits per pixel is out of reach; the nearest is" in out_of_reach.notice
    assert "one λ" not in out_of_reach.notice
    similar = encoder.encode(draw(9), target_ssim=0.0001)
    assert similar.ssim is not None
    assert "out of reach" in similar.notice


def test_a_model_of_one_lambda_has_one_quality_and_notes_it(
    of_one: DeepEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    coefficients = of_one.model.coefficients

    def count(pixels: Pixels, place: float) -> Any:
        asked.append(place)
        return coefficients(pixels, place)

    monkeypatch.setattr(of_one.model, "coefficients", count)
    files = {of_one.encode(draw(9), quality=quality).data for quality in (1, 40, 100)}
    assert len(files) == 1
    asked.clear()
    missed = of_one.encode(draw(9), target_bpp=0.001)
    assert missed.data in files
    assert missed.notice.endswith(", for the model was trained for one λ and has one quality")
    assert asked == [0.0], "the one file there is is made once"
    met = of_one.encode(draw(9), target_bpp=missed.bits_per_pixel)
    assert met.notice == ""


def test_grey_images_and_segments(fitted_jpeg: tuple[DeepEncoder, Path]) -> None:
    encoder, _ = fitted_jpeg
    grey = draw(9)[:, :, 0]
    assert decoded(encoder.encode(grey).data).shape == grey.shape
    comment = b"\xff\xfe\x00\x06made"
    assert comment in encoder.encode(grey, segments=comment).data


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quality": 0.5}, "quality is 0.5"),
        ({"quality": 50, "target_bpp": 1}, "choose one of them"),
        ({"target_bpp": -1}, "target_bpp is -1"),
    ],
)
def test_wrong_targets_are_refused(
    fitted_jpeg: tuple[DeepEncoder, Path], options: dict[str, float], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        fitted_jpeg[0].encode(draw(9), **options)
    with pytest.raises(UsageError, match="uint8"):
        fitted_jpeg[0].encode(draw(9).astype(np.float32))  # type: ignore[arg-type]


# -- on disk -------------------------------------------------------------------------------------------


def test_saved_and_loaded_is_the_same(fitted_jpeg: tuple[DeepEncoder, Path]) -> None:
    encoder, folder = fitted_jpeg
    loaded = load(folder)
    assert weights_of(loaded.model) == weights_of(encoder.model)
    assert loaded.file.model_copy(update={"content_sha256": None}) == encoder.file
    assert not loaded.model.training
    assert sorted(path.name for path in folder.iterdir()) == ["card.md", "model.json", "model.safetensors"]
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert "λ: 0.001, 0.01, 0.1" in card
    assert "| step | training loss | held-out loss | mse | rate |" in card


def test_saving_again_writes_the_same_bytes(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    load(folder).save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, **changes}), encoding="utf-8")


def damage_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def damage_json(folder: Path) -> None:
    (folder / "model.json").write_text("{", encoding="utf-8")


def list_json(folder: Path) -> None:
    (folder / "model.json").write_text("[]", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read"),
        (damage_weights, "is damaged, or not the one"),
        (lambda folder: (folder / "model.json").unlink(), "no finished model"),
        (damage_json, "not readable JSON"),
        (list_json, "no model's JSON"),
        (lambda folder: edit(folder, format=99), "reads up to format 2; upgrade Blemish"),
        (lambda folder: edit(folder, blemish="0.0"), "was edited after it was written"),
        (lambda folder: edit(folder, recipe={}), "was edited or is incomplete: 'recipe.name'"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_a_damaged_folder_is_reported_in_one_line(
    folder: Path, damage: Callable[[Path], Any], words: str
) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=words) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    tensors = load_tensors((folder / "model.safetensors").read_bytes())
    tensors["log_tables"] = tensors["log_tables"][:1].contiguous()
    data = save_tensors(tensors)
    (folder / "model.safetensors").write_bytes(data)
    vouch(folder, data)
    with pytest.raises(ModelError, match=r"does not fit the recipe in model\.json") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def vouch(folder: Path, weights: bytes) -> None:
    """Let model.json say that these are its weights."""
    path = folder / "model.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document.pop("content_sha256")
    document["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    content = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**document, "content_sha256": content}), encoding="utf-8")


def test_a_detector_is_no_encoder_and_an_encoder_is_no_detector(model: Path, folder: Path) -> None:
    with pytest.raises(
        ModelError, match="is a detector, not a JPEG encoder; give the folder that blemish jpeg fit"
    ):
        load(model)
    with pytest.raises(ModelError) as caught:
        detector.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


# -- among other encoders ------------------------------------------------------------------------------


def run(images: Path, out: Path, *encoders: LearnedCodec) -> Any:
    return evaluate(
        images, out, encoders=encoders, qualities=(10, 60), bpp_range=(0.01, 20.0), ssimulacra2=False,
        lpips=False, crops=1,
    )  # fmt: skip


def test_a_model_is_evaluated_at_its_places(
    fitted_jpeg: tuple[DeepEncoder, Path], photos: Path, tmp_path: Path
) -> None:
    encoder, folder = fitted_jpeg
    found = run(photos, tmp_path / "out", learned_codec(folder))
    records = [
        record
        for record in RecordsLog(tmp_path / "out" / "records.jsonl", CodecRecord).records
        if record.encoder == "jpeg-lstm" and record.image == "2.png"
    ]
    assert [record.quality for record in records] == [1, 50, 100]
    sizes = [len(encoder.encode_at(draw(2), place).data) for place in range(3)]
    assert [record.bytes for record in records] == sizes
    assert encoder.file.weights_sha256[:12] in records[0].description
    evaluated = found.encoders[-1]
    assert [point.quality for point in evaluated.points] == [1, 50, 100]
    assert found.rate("pillow-420", "jpeg-lstm", "psnr_rgb") is not None


def test_other_weights_are_measured_anew(
    fitted_jpeg: tuple[DeepEncoder, Path], photos: Path, tmp_path: Path, folder: Path
) -> None:
    journal = tmp_path / "out" / "records.jsonl"
    run(photos, tmp_path / "out", learned_codec(folder))
    once = len(journal.read_text().splitlines())
    run(photos, tmp_path / "out", learned_codec(folder))
    assert len(journal.read_text().splitlines()) == once
    other = fit_jpeg(photos, "jpeg-lstm", settings=[*TINY, LAMBDAS, "training.seed=1"])
    other.save(folder)
    run(photos, tmp_path / "out", learned_codec(folder))
    assert len(journal.read_text().splitlines()) == once + 4 * 3


def test_a_model_of_one_lambda_is_one_point(of_one: DeepEncoder, photos: Path, tmp_path: Path) -> None:
    of_one.save(tmp_path / "model")
    found = run(photos, tmp_path / "out", learned_codec(tmp_path / "model"))
    assert [point.quality for point in found.encoders[-1].points] == [1]
    assert found.rate("pillow-420", "jpeg-tables", "psnr_rgb") is None


def test_folders_stand_among_the_names(folder: Path, tmp_path: Path, model: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    found, _ = find_codecs(["blemish-psnr", str(folder), str(other)])
    assert [encoder.name for encoder in found[2:]] == ["blemish-psnr", "jpeg-lstm", "jpeg-lstm (other)"]
    namesake = Path(shutil.copytree(folder, tmp_path / "third" / "other"))
    with pytest.raises(UsageError, match=r"another encoder is called jpeg-lstm \(other\) too"):
        find_codecs([str(folder), str(other), str(namesake)])
    with pytest.raises(ModelError, match="is a detector"):
        find_codecs([str(model)])
    with pytest.raises(ModelError, match="does not exist"):
        find_codecs([str(tmp_path / "nothing")])


def test_evaluate_takes_a_folder_on_the_command_line(
    folder: Path, photos: Path, tmp_path: Path, blemish: Callable[..., Any]
) -> None:
    options = ("--qualities", "10,60", "--bpp", "0.01,20", "--no-ssimulacra2", "--no-lpips", "--crops", 0)
    ran = blemish(
        "jpeg", "evaluate", photos, "--out", tmp_path / "out", "--encoders", folder, *options, "--workers", 1
    )
    assert ran.code == 0, ran.err
    assert "\njpeg-lstm  " in ran.out
