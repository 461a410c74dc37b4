"""A discriminator that learns beside the autoencoder to tell its reconstructions from clean images.

Generative adversarial learning (Goodfellow et al. 2014) by least squares (Mao et al. 2017, Least Squares
Generative Adversarial Networks, equation 9), judged patch by patch (Isola et al. 2017, section 3.2.2).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from blemish.models.contracts import Pass, Term
from blemish.models.initialisation import keep_variance
from blemish.models.registry import TERMS, register

SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """(N, C, H, W) in [0, 1] to one verdict a patch, (N, 1, about H / 2^depth, W / 2^depth): 1 is clean."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        c_in = channels
        for step in range(depth):
            c_out = width * 2**step
            layer = nn.Conv2d(c_in, c_out, 4, 2, 1)
            keep_variance(layer, slope=SLOPE)
            steps += [layer, nn.LeakyReLU(SLOPE)]
            c_in = c_out
        verdict = nn.Conv2d(c_in, 1, 3, 1, 1)
        keep_variance(verdict)
        self.layers = nn.Sequential(*steps, verdict)

    def forward(self, x: Tensor) -> Tensor:
        verdict: Tensor = self.layers(2 * x - 1)
        return verdict.float()


@register(TERMS, "adversarial")
class Adversarial(Term):
    """Two terms of one loss, so that one optimiser and one backward pass serve both players.

    ``adversarial-generator`` teaches the autoencoder alone, ``adversarial-discriminator`` the discriminator
    alone; the weight in the recipe scales both. In evaluation both are 0: the judge changes as training goes on,
    so its verdicts at two looks cannot be compared, and the best weights are chosen by the other terms.

    Parameters
    ----------
    channels: of the images.
    width: channels of the discriminator's first layer, doubled in each further one.
    depth: its layers of stride 2; with 3 a verdict sees 38 × 38 pixels.
    """

    def __init__(
        self,
        *,
        channels: int,
        width: Annotated[int, Field(ge=1)] = 32,
        depth: Annotated[int, Field(ge=1, le=4)] = 3,
    ) -> None:
        super().__init__()
        self.discriminator = PatchDiscriminator(channels, width, depth)

    def forward(self, done: Pass) -> dict[str, Tensor]:
        x, y = done.target, done.output.reconstruction
        if not self.training:
            nothing = x.new_zeros(())
            return {"generator": nothing, "discriminator": nothing}
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        fooled: Tensor = functional_call(self.discriminator, frozen, (y,))
        clean, made = self.discriminator(x), self.discriminator(y.detach())
        return {
            "generator": (fooled - 1).square().mean() / 2,
            "discriminator": ((clean - 1).square().mean() + made.square().mean()) / 2,
        }
