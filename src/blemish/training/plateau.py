"""Modalities that stay at a constant in training, seen at each validation, and a term of the loss that frees them.

The gradient of SSIM vanishes where a reconstruction is flat, so that a decoder may never leave a constant grey; squared
differences have a gradient there. The term is in the loss only while a modality is no better than a constant: a recipe
whose modalities are learned is trained by its own loss alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from blemish.models import Autoencoder
from blemish.models.modal_difference import ModalMSE
from blemish.models.modal_similarity import ModalSSIM
from blemish.storage.training_record import TrainingLook
from blemish.training.modality_figures import baseline_figures, compare_modalities, is_learned

TERM = "plateau-mse"
"""Name of the term in the loss."""
WEIGHT = 1.0
LOOKS = 2
"""Validations in a row, without a gain over a constant, from which a modality counts as being on the plateau."""
CONSTANT, LINEAR, FLAT, HELPED = (
    "SSIM of a constant",
    "SSIM of linear regression",
    "looks at a constant",
    "helped by squared differences",
)


class PlateauWatch:
    """Compares every modality of a network with its baselines at each validation, and helps those on the plateau.

    Parameters
    ----------
    autoencoder: in training, with the residual ``modal-ssim`` or one like it.
    held_out, training: patches (N, C, P, P) as :func:`~blemish.training.modality_figures.compare_modalities` takes them.
    say: takes a line for the user.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        held_out: Tensor,
        training: Tensor,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        measure = autoencoder.measure
        assert isinstance(measure, ModalSSIM)
        self._autoencoder, self._held_out, self._training, self._say = autoencoder, held_out, training, say
        self._modalities = measure.modalities
        self._baselines = baseline_figures(held_out, training, measure.modalities)
        self._flat = dict.fromkeys((one.name for one in measure.modalities), 0)

    def restore(self, history: Sequence[TrainingLook]) -> None:
        """Put the term into the loss where a modality is on the plateau by the last of ``history``."""
        if history:
            for name in self._flat:
                self._flat[name] = int(history[-1].measures.get(f"{name}, {FLAT}", 0))
            self._set(any(count >= LOOKS for count in self._flat.values()))

    def pause(self) -> None:
        """Take the term out of the loss: held-out losses are those of the recipe."""
        self._set(False)

    def look(self, step: int) -> dict[str, float]:
        """Compare the modalities as the network is now: figures for the history, which :meth:`restore` acts on."""
        was_training = self._autoencoder.training
        self._autoencoder.eval()
        figures = compare_modalities(self._autoencoder, self._held_out, self._training, self._baselines)
        self._autoencoder.train(was_training)
        found: dict[str, float] = {}
        for one in figures:
            learned = is_learned(one)
            before, self._flat[one.name] = self._flat[one.name], 0 if learned else self._flat[one.name] + 1
            if before < LOOKS <= self._flat[one.name]:
                self._say(
                    f"{one.name}: as good as a constant at step {step} (SSIM {one.similarity:.3f}, constant "
                    f"{one.constant:.3f}); squared differences are added to the loss until it is better"
                )
            named = {"SSIM": one.similarity, CONSTANT: one.constant, LINEAR: one.linear}
            found |= {f"{one.name}, {name}": value for name, value in named.items() if value is not None}
            found[f"{one.name}, {FLAT}"] = self._flat[one.name]
        return {**found, HELPED: float(any(count >= LOOKS for count in self._flat.values()))}

    def _set(self, helps: bool) -> None:
        terms, weights = self._autoencoder.loss_terms, self._autoencoder.weights
        if helps and TERM not in terms:
            terms[TERM] = ModalMSE(modalities=self._modalities)
            weights[TERM] = WEIGHT
        elif not helps and TERM in terms:
            del terms[TERM]
            del weights[TERM]


def plateau_notes(history: Sequence[TrainingLook]) -> tuple[str, ...]:
    """A sentence on the part of a training in which a modality had to be helped; none without."""
    helped = [look.step for look in history if look.measures.get(HELPED)]
    if not helped:
        return ()
    names = sorted(
        {
            key.removesuffix(f", {FLAT}")
            for look in history
            for key, value in look.measures.items()
            if key.endswith(f", {FLAT}") and value >= LOOKS
        }
    )
    after = [look.step for look in history if look.step > helped[-1]]
    until = f"to step {after[0]}" if after else "to the end"
    return (
        f"{', '.join(names)}: stayed at a constant, so that squared differences were added to the loss from step "
        f"{helped[0]} {until}.",
    )
