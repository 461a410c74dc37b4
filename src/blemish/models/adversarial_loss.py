"""Adversarial loss: a discriminator is trained with the autoencoder to separate reconstructions from clean images.

Generative adversarial learning (Goodfellow et al. 2014) with the least-squares loss (Mao et al. 2017, Least Squares
Generative Adversarial Networks, equation 9) and a patch discriminator (Isola et al. 2017, section 3.2.2).
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
    """Discriminator of patches: (N, C, H, W) in [0, 1] to (N, 1, about H / 2^depth, W / 2^depth), 1 for clean."""

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
        output = nn.Conv2d(c_in, 1, 3, 1, 1)
        keep_variance(output)
        self.layers = nn.Sequential(*steps, output)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(2 * x - 1)
        return output.float()


@register(TERMS, "adversarial")
class Adversarial(Term):
    """Adversarial loss as two terms, so that one optimiser and one backward pass train both networks.

    ``adversarial-generator`` trains the autoencoder alone, ``adversarial-discriminator`` the discriminator
    alone; the weight in the recipe scales both. In evaluation both are 0: the discriminator changes during training,
    so its outputs at two steps cannot be compared, and the best weights are selected by the other terms.

    Parameters
    ----------
    channels: channels of the images.
    width: channels of the first layer of the discriminator, doubled in each further layer.
    depth: number of layers of stride 2; with 3 the receptive field is 38 × 38 pixels.
    """

    def __init__(
        self,
        *,
        channels: int,
        width: Annotated[int, Field(ge=1, le=4096)] = 32,
        depth: Annotated[int, Field(ge=1, le=4)] = 3,
    ) -> None:
        super().__init__()
        self.discriminator = PatchDiscriminator(channels, width, depth)

    def forward(self, done: Pass) -> dict[str, Tensor]:
        x, y = done.target, done.output.reconstruction
        if not self.training:
            zero = x.new_zeros(())
            return {"generator": zero, "discriminator": zero}
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        output: Tensor = functional_call(self.discriminator, frozen, (y,))
        real, fake = self.discriminator(x), self.discriminator(y.detach())
        return {
            "generator": (output - 1).square().mean() / 2,
            "discriminator": ((real - 1).square().mean() + fake.square().mean()) / 2,
        }
