"""Autoencoder: the composition that every reconstruction recipe becomes.

Its parts are of the kinds in :mod:`blemish.models.contracts`; :mod:`blemish.models.registry` constructs them by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.errors import UsageError
from blemish.layers.shared_batch import normal_like, on_whole_batch
from blemish.models.contracts import (
    INSPECTION_SEED,
    Aligned,
    Alignment,
    Augmentation,
    Bottleneck,
    Corruption,
    EncoderInput,
    ImageDecoder,
    ImageEncoder,
    Loss,
    Output,
    Pass,
    Posterior,
    Residual,
    ResidualRule,
    StochasticBottleneck,
    Term,
    moments,
)
from blemish.similarity import Measure


class Autoencoder(nn.Module):
    """Reconstructs what it has learned to be flawless; what it cannot reconstruct stands out.

    ::

        x ─► corruption ─► alignment ─► encoder ─► bottleneck ─► decoder ─► alignment⁻¹ ─► reconstruction
        │    (training)                                                                        │
        ├──────────────────────────► loss_terms (training) ◄───────────────────────────────────┤
        └──────────────────────────► measure (residual map) ◄──────────────────────────────────┘

    In training x is augmented first, so the loss asks for the augmented image.

    Images of any size are accepted: they are padded by repeating the border up to the network's
    stride (and to one patch at least), and the reconstruction is cropped back. Where a part was built
    for patches of one size, larger images are refused; a detector cuts them into patches.

    NaN in an image says that the value is absent. Only encoders, loss terms and residuals that declare
    ``takes_absent`` take it; an image that has any is refused by all others.

    In training mode every corruption is applied, and drawn from torch's global generator; in evaluation
    only those of ``at_inspection``, always with the same draws.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        decoder: ImageDecoder,
        loss_terms: Mapping[str, tuple[float, Measure | Term]],
        measure: Measure | ResidualRule,
        *,
        augmentations: Sequence[Augmentation] = (),
        corruptions: Sequence[tuple[Corruption, bool]] = (),
        alignment: Alignment | None = None,
        bottlenecks: Sequence[Bottleneck] = (),
    ) -> None:
        super().__init__()
        self.augmentations = nn.ModuleList(augmentations)
        self.corruptions = nn.ModuleList(corruption for corruption, _ in corruptions)
        self.at_inspection = tuple(at_inspection for _, at_inspection in corruptions)
        self.alignment = alignment
        self.encoder = encoder
        self.bottlenecks = nn.ModuleList(bottlenecks)
        self.decoder = decoder
        self.loss_terms = nn.ModuleDict({name: term for name, (_, term) in loss_terms.items()})
        self.weights = {name: weight for name, (weight, _) in loss_terms.items()}
        self.measure = measure

    @property
    def _bottlenecks(self) -> list[Bottleneck]:
        return cast("list[Bottleneck]", list(self.bottlenecks))

    @property
    def pretraining(self) -> int:
        """Steps of :meth:`pretraining_loss` that come before :meth:`loss`."""
        return self.alignment.pretraining if self.alignment else 0

    def forward(self, x: Tensor) -> Output:
        return self.reconstruct(self.prepare(x))

    def prepare(self, x: Tensor, *, for_loss: bool = False) -> EncoderInput:
        """``x`` (N, C, H, W) as the encoder is to see it, or to see it for :meth:`loss`; :meth:`restore` leads back.

        Raises
        ------
        UsageError
            When ``x`` has absent values (NaN), and the encoder takes none.
        """
        _refuse_absent(x, "the encoder", self.encoder)
        if self.alignment is not None:
            _refuse_absent(x, "the alignment", self.alignment)
        seen = self.corrupt(x, for_loss=for_loss)
        padded, (top, left) = self._padded(seen)
        window = (slice(top, top + x.shape[-2]), slice(left, left + x.shape[-1]))
        if self.alignment is None:
            return EncoderInput(padded, window, None, seen)
        aligned: Aligned = self.alignment(padded)
        return EncoderInput(aligned.image, window, aligned, seen)

    def reconstruct(self, prepared: EncoderInput) -> Output:
        """What :meth:`forward` gives for the images that were ``prepared``."""
        latent, posterior = self._encode(prepared.image)
        angle = prepared.aligned.angle if prepared.aligned else None
        return Output(self.restore(self.decode(latent), prepared), latent, posterior, angle)

    def restore(self, y: Tensor, prepared: EncoderInput) -> Tensor:
        """What :meth:`decode` gave, in the units, the pose and of the size that the input had: (N, C, H, W)."""
        if self.encoder.standardises:
            mean, deviation = moments(prepared.image)
            y = mean + deviation * y
        return self.place_back(y, prepared)

    def place_back(self, y: Tensor, prepared: EncoderInput) -> Tensor:
        """Values of the prepared images' pixels, (N, d, H', W'), in the pose and of the size that the input had."""
        if self.alignment and prepared.aligned:
            y = self.alignment.restore(y, prepared.aligned)
        return y[(..., *prepared.window)]

    def drawn_side(self, patch: int) -> int:
        """Side of the images that :meth:`augment` cuts patches of side ``patch`` from."""
        for augmentation in reversed(cast("list[Augmentation]", list(self.augmentations))):
            patch = augmentation.side(patch)
        return patch

    def augment(self, x: Tensor) -> Tensor:
        """``x`` as training takes it for good; in evaluation only by what ``varies_held_out``, with the same draws."""
        parts = cast("list[Augmentation]", list(self.augmentations))
        if self.training:
            return on_whole_batch(nn.Sequential(*parts), x) if parts else x
        generator = torch.Generator().manual_seed(INSPECTION_SEED)
        for augmentation in parts:
            if augmentation.varies_held_out:
                x = augmentation(x, generator)
        return x

    def corrupt(self, x: Tensor, *, for_loss: bool = False) -> Tensor:
        """``x`` as the encoder is to see it, or to see it for :meth:`loss`: (N, C, H, W) to the same shape."""
        if self.training:
            return on_whole_batch(nn.Sequential(*self.corruptions), x) if len(self.corruptions) else x
        chosen = []
        generator = torch.Generator().manual_seed(INSPECTION_SEED)
        parts = cast("list[Corruption]", list(self.corruptions))
        for part, at_inspection in zip(parts, self.at_inspection, strict=True):
            if for_loss and part.corrupts_held_out:
                x = part(x, generator)
            elif at_inspection:
                chosen.append(part)
        if not chosen:
            return x
        if torch.compiler.is_compiling():  # into a graph, which holds the draws of one image for all
            for corruption in chosen:
                x = corruption(x, generator)
            return x
        # Each image alone, or its noise would depend on which others are inspected with it.
        images = []
        for one in x:
            image, generator = one[None], torch.Generator().manual_seed(INSPECTION_SEED)
            for corruption in chosen:
                image = corruption(image, generator)
            images.append(image)
        return torch.cat(images)

    def encode(self, x: Tensor) -> Tensor:
        """The latent (N, d, h, w) of images whose sides fit the network; the mean where it is stochastic."""
        h: Tensor = self.encoder(x)
        for bottleneck in self._bottlenecks:
            h = bottleneck.encode(h)
        return h

    def decode(self, latent: Tensor) -> Tensor:
        """The inverse of :meth:`encode`, as far as there is one."""
        for bottleneck in reversed(self._bottlenecks):
            latent = bottleneck.decode(latent)
        reconstruction: Tensor = self.decoder(latent)
        return reconstruction

    def _encode(self, x: Tensor) -> tuple[Tensor, Posterior | None]:
        *before, last = self._bottlenecks or (None,)
        if not isinstance(last, StochasticBottleneck):
            return self.encode(x), None
        h = self.encoder(x)
        for bottleneck in before:
            h = bottleneck.encode(h)
        posterior = last.posterior(h)
        if not self.training:
            return posterior.mu, posterior
        sigma = (posterior.log_var / 2).exp()
        return posterior.mu + sigma * normal_like(sigma), posterior

    def _padded(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """``x`` with sides that fit the network, and how many rows and columns were added before it."""
        height, width = x.shape[-2:]
        stride, patch = self.encoder.stride, self.encoder.patch
        one_size = self.alignment is not None or any(part.one_size for part in self.bottlenecks)
        if one_size and max(height, width) > patch:
            part = "alignment" if self.alignment is not None else "dense bottleneck"
            raise UsageError(
                f"the {part} was built for images of {patch} × {patch} pixels, not {width} × {height}; "
                f"cut them into tiles, as a detector does, or build it with patch.size={max(height, width)}"
            )
        rows, columns = (max(patch, math.ceil(side / stride) * stride) - side for side in (height, width))
        top, left = rows // 2, columns // 2
        if rows or columns:
            x = F.pad(x, (left, columns - left, top, rows - top), mode="replicate")
        return x, (top, left)

    def loss(self, batch: Tensor) -> Loss:
        """Named, weighted terms of the training loss for ``batch`` (N, C, H, W) in [0, 1].

        Raises
        ------
        UsageError
            When ``batch`` has absent values (NaN), and a part takes none.
        """
        for name, term in self.loss_terms.items():
            _refuse_absent(batch, f"loss '{name}'", term)
        batch = self.augment(batch)
        with ExitStack() as watching:
            for term in self.loss_terms.values():
                if isinstance(term, Term):
                    watching.enter_context(term.watching(self))
            prepared = self.prepare(batch, for_loss=True)
            output = self.reconstruct(prepared)
        terms: dict[str, Tensor] = {}
        for name, term in self.loss_terms.items():
            if isinstance(term, Measure):
                values = term(batch, output.reconstruction)
            else:
                values = term(Pass(self, batch, output, prepared))
            named = values if isinstance(values, dict) else {"": values}
            terms |= {
                f"{name}-{key}" if key else name: self.weights[name] * value for key, value in named.items()
            }
        return _summed(terms)

    def pretraining_loss(self, batch: Tensor) -> Loss:
        """Named terms of what is learned before :meth:`loss`; only where ``pretraining`` is not 0."""
        assert self.alignment is not None
        return _summed(self.alignment.pretraining_loss(self._padded(self.augment(batch))[0]))

    def examine(self, x: Tensor) -> Residual:
        """The residual map together with the reconstruction that it was measured on.

        Raises
        ------
        UsageError
            When ``x`` has absent values (NaN), and a part takes none.
        """
        _refuse_absent(x, "the residual", self.measure)
        if isinstance(self.measure, ResidualRule):
            examined: Residual = self.measure(self, x)
            return examined
        y = self(x).reconstruction.float()
        return Residual(self.measure.distance_map(x, y), y)

    def residual(self, x: Tensor) -> Tensor:
        """How unlike ``x`` and its reconstruction are, per pixel: (N, 1, H, W)."""
        return self.examine(x).map


def _refuse_absent(x: Tensor, name: str, part: nn.Module) -> None:
    # An exported network cannot ask; its images are checked by who calls it.
    if getattr(part, "takes_absent", False) or torch.compiler.is_compiling():
        return
    if x.sum().isnan():  # quicker than to compare each value
        raise UsageError(
            f"the image has absent values (NaN), which {name} of this model cannot take; use fp-cae-add, "
            "fp-cae-concat or fp-cae, or fill them"
        )


def _summed(terms: dict[str, Tensor]) -> Loss:
    return Loss(torch.stack(list(terms.values())).sum(), terms)
