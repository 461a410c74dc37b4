"""Fit of a JPEG encoder on a folder of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from blemish._version import __version__
from blemish.data.fingerprint import Fingerprint
from blemish.data.items import Item
from blemish.data.splits import VALIDATION_SHARE, split_good
from blemish.errors import FileError, RecipeError, UsageError, lacks_memory
from blemish.inspection.document import versions
from blemish.jpeg.deep.model import DeepEncoder, DeepModelFile, load
from blemish.jpeg.deep.network import DeepJpeg
from blemish.jpeg.deep.recipe import DeepRecipe, load_deep_recipe
from blemish.jpeg.lattice import ON_LATTICE, lattice_share
from blemish.jpeg.source_image import read_source
from blemish.observer import Observer
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes import override
from blemish.report.numbers import counted
from blemish.storage.model_folder import JPEG_ENCODER, weights_sha256
from blemish.storage.run_lock import owned
from blemish.training.device import choose_machine
from blemish.training.patches import PreprocessedImages
from blemish.training.runs import claim_folder, finish, fitted_once, output_folder, train_for
from blemish.training.usable_images import usable_images

LOOKED_AT = 24
_COLOUR = Preprocessing(channels=3, convert=True, kind="uint8", size=None)


def fit_jpeg(
    images: str | Path,
    recipe: str | Path | DeepRecipe = "jpeg-tables",
    *,
    settings: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> DeepEncoder:
    """Train a JPEG encoder on random crops of the photographs in ``images``; a tenth of them is held out.

    Parameters
    ----------
    images: a folder of photographs, or a CSV list, of which test and defective images are not read. Grey ones
        count as colour.
    recipe: a name, the path of a YAML file, or a recipe.
    settings: ``key=value`` overrides of the recipe, as ``--set`` takes them.
    out: folder for the model and, while training, the checkpoint; without it nothing is written.
    resume: go on from the checkpoint in ``out``; where training had not begun, begin it.
    overwrite: replace a model or checkpoint that is already in ``out``.
    observer: of the progress, and of each image that cannot be used; the others are used.

    Raises
    ------
    Stopped
        When the observer asked to stop; the checkpoint is in ``out``.
    RecipeError, FileError, UsageError
        In one line that names the setting or the file, and the remedy.
    """
    folder = output_folder(out, resume=resume, overwrite=overwrite)
    with owned(folder):
        return _fit(Path(images), recipe, list(settings), folder, resume, overwrite, observer or Observer())


def _fit(
    images: Path,
    recipe: str | Path | DeepRecipe,
    settings: list[str],
    folder: Path | None,
    resume: bool,
    overwrite: bool,
    observer: Observer,
) -> DeepEncoder:
    given = recipe if isinstance(recipe, DeepRecipe) else load_deep_recipe(recipe)
    chosen = override(given, settings)
    machine = choose_machine(chosen.training.device, chosen.training.precision)
    model = _build(chosen)
    if folder is not None:
        claim_folder(folder, resume=resume, overwrite=overwrite)

    observer.stage(f"Reading the photographs in {images}")
    data, usable = _read(images, chosen, observer)
    _warn_of_lattices(list(usable.values()), observer)
    split = _split(images, list(usable), chosen)
    sources = {
        part: PreprocessedImages([usable[name] for name in names], _COLOUR) for part, names in split.items()
    }
    observer.stage(
        f"Training {chosen.name} on {len(split['train'])} photographs, {len(split['validation'])} held out "
        f"to choose the best weights; {machine}"
    )
    training = train_for(
        folder,
        model,
        chosen,
        sources["train"],
        sources["validation"],
        machine=machine,
        data=data,
        split=split,
        resume=resume,
        observer=observer,
    )
    file = DeepModelFile(
        format=JPEG_ENCODER.format,
        blemish=__version__,
        versions=versions(),
        recipe=chosen,
        fingerprint=data,
        split=split,
        training=training,
        weights_sha256=weights_sha256(model),
    )
    encoder = DeepEncoder(model, file)
    if folder is not None:
        finish(encoder, folder)
    return encoder


def fit_jpeg_once(
    images: Path, recipe: DeepRecipe, model: Path, *, title: str, observer: Observer
) -> DeepEncoder:
    """Fit ``recipe`` into ``model``; a finished fit is loaded, a stopped one is resumed.

    Parameters
    ----------
    title: of the fit, for the observer.

    Raises
    ------
    UsageError
        When the finished fit has other settings, or is of other photographs.
    """
    return fitted_once(
        model,
        recipe,
        title=title,
        observer=observer,
        load=load,
        fit=lambda resume: fit_jpeg(images, recipe, out=model, resume=resume, observer=observer),
        sha256=lambda: _read(images, recipe, Observer())[0].sha256,
        images="photographs",
    )


def check_deep_recipe(recipe: DeepRecipe) -> None:
    """Try the parts of ``recipe``, so that what does not fit is found before hours of work on others.

    Raises
    ------
    RecipeError, FileError
        Naming the recipe, the part or the weights that are missing, and the remedy.
    """
    _build(recipe)


def _build(recipe: DeepRecipe) -> DeepJpeg:
    """The network with its first weights, tried on an empty patch."""
    side = recipe.patch.size
    torch.manual_seed(recipe.training.seed)
    try:
        model = DeepJpeg(recipe)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.eval().loss(torch.zeros(1, 3, side, side))
    except RecipeError:
        raise
    except UsageError as error:
        raise RecipeError(f"{recipe.name}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise RecipeError(
            f"{recipe.name}: does not fit into memory with patches of {side} pixels; use a smaller patch.size, or "
            "smaller settings of the attention"
        ) from None
    return model


def _read(images: Path, recipe: DeepRecipe, observer: Observer) -> tuple[Fingerprint, dict[str, Item]]:
    """The fingerprint of all photographs that can be used, and those photographs by name."""
    data, usable = usable_images(
        images,
        channels=_COLOUR.channels,
        patch=recipe.patch.size,
        remedy=lambda shorter: "leave it out, or fit with a smaller --set patch.size",
        observer=observer,
        one="photograph",
        many="photographs",
    )
    if data.kind != _COLOUR.kind:
        raise FileError(
            images,
            "holds images that are not of 8 bits a channel, as a JPEG's are",
            "convert them to 8 bits",
        )
    return data, usable


def _warn_of_lattices(photographs: Sequence[Item], observer: Observer) -> None:
    """Report how many of up to ``LOOKED_AT`` photographs, evenly spaced, are decoded JPEGs, whose steps are learned too."""
    count = min(LOOKED_AT, len(photographs))
    looked_at = [photographs[round(i * (len(photographs) - 1) / max(count - 1, 1))] for i in range(count)]
    decoded = sum(
        lattice_share(read_source(one.path, keep_metadata=False).pixels) >= ON_LATTICE for one in looked_at
    )
    if decoded:
        observer.stage(
            f"{decoded} of {counted(count, 'photograph')} looked at are decoded JPEGs, whose quantisation steps the tables "
            "will learn; lossless ones, or halved ones, are better"
        )


def _split(images: str | Path, names: list[str], recipe: DeepRecipe) -> dict[str, tuple[str, ...]]:
    if len(names) < 2:
        raise FileError(images, "holds one photograph that can be used", "add one to choose the weights by")
    held_out = max(1, round(VALIDATION_SHARE * len(names)))
    split = split_good(names, seed=recipe.training.seed, calibration=0, validation=held_out)
    return {"train": split.train, "validation": split.validation}
