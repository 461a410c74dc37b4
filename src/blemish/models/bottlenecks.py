"""Bottlenecks that any recipe can put between its encoder and its decoder: dense, and self-attention."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from blemish.errors import RecipeError
from blemish.models.contracts import Bottleneck
from blemish.models.registry import BOTTLENECKS, register

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


@register(BOTTLENECKS, "dense")
class DenseBottleneck(Bottleneck):
    """All features of a patch through ``latent`` numbers: (N, c, h, w) to (N, latent, 1, 1), and back.

    Linear layers both ways, 2 c h w ``latent`` weights in all. A saturating activation, as of Rifai et al.
    2011, is to be had but not the default: after an encoder with a large gain, such as VGG16 from scratch,
    the contractive penalty drives the code into saturation within ten steps, where no gradient leads back.

    Parameters
    ----------
    shape: (c, h, w) of the features of one patch; no other size fits.
    latent: how many numbers; Kumar et al. 2025 leave it open.
    activation: of the code.
    """

    one_size = True

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        latent: Annotated[int, Field(ge=1)] = 128,
        activation: Literal["none", "relu", "sigmoid", "tanh"] = "none",
    ) -> None:
        super().__init__()
        self.latent_shape = (latent, 1, 1)
        self.code_shape = shape
        c, h, w = shape
        self.squeeze = nn.Linear(c * h * w, latent)
        self.expand = nn.Linear(latent, c * h * w)
        for layer in (self.squeeze, self.expand):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)
        self.activation = ACTIVATIONS[activation]()

    def encode(self, h: Tensor) -> Tensor:
        """(N, c, h, w) to (N, latent, 1, 1)."""
        z: Tensor = self.activation(self.squeeze(h.flatten(1)))
        return z[..., None, None]

    def decode(self, z: Tensor) -> Tensor:
        """(N, latent, 1, 1) to (N, c, h, w)."""
        h: Tensor = self.expand(z.flatten(1))
        return h.view(-1, *self.code_shape)


@register(BOTTLENECKS, "attention")
class AttentionBottleneck(Bottleneck):
    """Multi-head self-attention over the grid of features, added to them: (N, c, h, w) to the same shape.

    Every place of the grid looks at all others (Vaswani et al. 2017, section 3.2, with the features
    normalised first and no code of position, so that any size of grid is served). Decoding changes nothing.

    Parameters
    ----------
    shape: (c, h, w) of the features of one patch.
    heads: a divisor of c.

    Raises
    ------
    RecipeError
        When ``heads`` do not divide the channels, or the grid is a single place, which has no others.
    """

    def __init__(self, *, shape: tuple[int, int, int], heads: Annotated[int, Field(ge=1)] = 4) -> None:
        super().__init__()
        c, height, width = shape
        if height * width == 1:
            raise RecipeError(
                "bottleneck 'attention' needs a grid of features, and the part before it gives a single one; "
                "put it behind an encoder that keeps a grid, such as those of dae-ssim or dae-vgg16-ssim"
            )
        if c % heads:
            fitting = max(divisor for divisor in range(1, heads) if c % divisor == 0)
            raise RecipeError(
                f"bottleneck 'attention' has {heads} heads, which do not divide the {c} channels before it; "
                f"try heads: {fitting}"
            )
        self.latent_shape = self.code_shape = shape
        self.norm = nn.LayerNorm(c)
        self.attention = nn.MultiheadAttention(c, heads, batch_first=True)

    def encode(self, h: Tensor) -> Tensor:
        tokens = h.flatten(2).transpose(1, 2)  # (N, c, h, w) -> (N, h w, c)
        normal = self.norm(tokens)
        attended: Tensor = self.attention(normal, normal, normal, need_weights=False)[0]
        return h + attended.transpose(1, 2).reshape(h.shape)
