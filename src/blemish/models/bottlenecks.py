"""Bottlenecks between the encoder and the decoder of any recipe: dense, and self-attention."""

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
    """Dense bottleneck of a whole patch: (N, c, h, w) to (N, latent, 1, 1), and back.

    One linear layer in each direction, 2 c h w ``latent`` weights in total. A saturating activation, as in Rifai et
    al. 2011, is available but not the default: after an encoder with a large gain, such as VGG16 from scratch, the
    contractive penalty drives the code into saturation within ten steps, where the gradients vanish.

    Parameters
    ----------
    shape: (c, h, w) of the features of one patch; no other size is accepted.
    latent: number of latent variables; not stated by Kumar et al. 2025.
    activation: activation of the code.
    """

    one_size = True

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        latent: Annotated[int, Field(ge=1, le=65_536)] = 128,
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
        """Encode (N, c, h, w) to (N, latent, 1, 1)."""
        z: Tensor = self.activation(self.squeeze(h.flatten(1)))
        return z[..., None, None]

    def decode(self, z: Tensor) -> Tensor:
        """Decode (N, latent, 1, 1) to (N, c, h, w)."""
        h: Tensor = self.expand(z.flatten(1))
        return h.view(-1, *self.code_shape)


@register(BOTTLENECKS, "attention")
class AttentionBottleneck(Bottleneck):
    """Residual multi-head self-attention over the grid of features: (N, c, h, w) to the same shape.

    Every location of the grid attends to all others (Vaswani et al. 2017, section 3.2, with the features
    normalised first and without positional encoding, so that any grid size works). Decoding is the identity.

    Parameters
    ----------
    shape: (c, h, w) of the features of one patch.
    heads: number of heads, a divisor of c.

    Raises
    ------
    RecipeError
        If ``heads`` does not divide the number of channels, or the grid has a single location.
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
