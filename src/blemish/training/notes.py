"""Notes of a fit for the user and the model card: images left out, and patches without an orientation."""

from __future__ import annotations

from collections.abc import Sequence

from blemish.decision.conformal import Trim
from blemish.models import Autoencoder
from blemish.recipes import Recipe
from blemish.storage.training_record import Training
from blemish.training.patches import PatchSource, RandomPatches, raising


def trimming_notes(training: Training, recipe: Recipe) -> tuple[str, ...]:
    """Images left out by ``training.trim``; empty without it."""
    trim = recipe.training.trim
    if not trim:
        return ()
    if not training.left_out:
        return (
            f"training.trim {trim} left out no training image: that would be less than one, or training ended "
            "before half time.",
        )
    return (
        f"Left out of the second half of training, as {worst_in_words(trim)} of the training images at half "
        f"time: {', '.join(training.left_out)}. If they are defective, remove them; if they are all good, "
        "fit without training.trim.",
    )


def left_out_notes(names: Sequence[str]) -> tuple[str, ...]:
    """Training images that no memory bank holds a patch of; empty where there are none."""
    if not names:
        return ()
    return (f"Not in the memory bank, as the training images farthest from all others: {', '.join(names)}.",)


def worst_in_words(trim: Trim) -> str:
    """Images that ``trim`` leaves out, for the user."""
    return "the outlying" if trim == "auto" else f"the worst {100 * trim:g} %"


def alignment_notes(model: Autoencoder, images: PatchSource, recipe: Recipe) -> tuple[str, ...]:
    """Number of ``images`` of which a patch has no pose; empty without alignment, or where all have one."""
    if model.alignment is None:
        return ()
    patches = RandomPatches(images, recipe.patch.size, seed=recipe.training.seed, start=0, stop=len(images))
    poseless = 0
    for patch in raising(patches[index] for index in range(len(patches))):
        poseless += int(model.alignment.poseless(patch[None]).sum())
    if poseless == 0:
        return ()
    return (
        f"{poseless} of {len(images)} held-out patches have no dominant orientation and were left unturned; "
        "where that is most of them, a recipe without alignment serves as well.",
    )
