"""Feature extractors with pretrained weights, where a user has them; the default needs none."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.detectors.feature_extractors import FeatureExtractor, register_extractor
from blemish.layers.efficientnet_lite import load_efficientnet_lite0


@register_extractor("efficientnet-lite")
class EfficientNetLiteFeatures(FeatureExtractor):
    """Features of EfficientNet-Lite0 at an eighth and a sixteenth of the size, averaged over neighbours.

    As PatchCore takes them (Roth et al. 2022, section 3.1): each level is averaged over 3 × 3 places, and the coarser
    one is brought to the grid of the finer. Images of one channel are repeated, and the mean of all channels stands for
    each of three where there is another number of them.

    Parameters
    ----------
    weights: ``package`` (extra ``features``), ``none``, or the path of a .pth or .safetensors file.
    pretrained: False initialises at random, for a model whose own weights are loaded next.
    """

    title = "features of EfficientNet-Lite0"
    stride = 8
    offset = 3
    least_side = 32

    def __init__(self, *, weights: str = "package", pretrained: bool = True) -> None:
        super().__init__()
        self.network = load_efficientnet_lite0(weights if pretrained else "none")
        self.network.requires_grad_(False)
        self.network.eval()

    def train(self, mode: bool = True) -> EfficientNetLiteFeatures:
        """Stay in evaluation mode, because the features are not trained."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            x = x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        eighth, sixteenth = (F.avg_pool2d(level, 3, 1, 1) for level in self.network(x))
        finer = F.interpolate(sixteenth, eighth.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([eighth, finer], 1).permute(0, 2, 3, 1)  # (N, h, w, 152)
