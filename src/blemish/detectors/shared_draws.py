"""Random draws of features that several processes make as one would."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from blemish.detectors.contracts import Sharing


class SharedDraws:
    """Features at places of images that are drawn one after the other, each by the process that has the image.

    The places are those that one process would draw: of an image that another process has, the numbers are drawn and
    not used.
    """

    def __init__(
        self,
        drawn: Callable[[Tensor, int, torch.Generator], Tensor],
        view: Callable[[int], Tensor],
        generator: torch.Generator,
        sharing: Sharing,
        own: Sequence[int],
    ) -> None:
        self._drawn, self._view, self._generator, self._sharing = drawn, view, generator, sharing
        self._places: dict[int, Tensor] = {}
        if sharing.count > 1:
            unlimited = torch.iinfo(torch.int64).max
            places = {n: torch.tensor(len(drawn(view(n), unlimited, torch.Generator()))) for n in own}
            self._places = sharing.collected(places)

    def of_each(
        self,
        order: Sequence[int],
        count: int,
        then: Callable[[Tensor], Tensor] = lambda features: features,
        *,
        values: int | None = None,
    ) -> list[Tensor]:
        """``then`` of the features (n, f) at ``count`` places of each image at most, in ``order``.

        There are fewer places where all features together would have more than about ``values`` values.
        """
        found: dict[int, Tensor] = {}
        device = torch.device("cpu")
        for number in order:
            if self._sharing.is_own(number):
                features = self._drawn(self._view(number), count, self._generator)
                if values is not None:
                    count = min(count, math.ceil(values / features.shape[1] / len(order)))
                found[number] = then(features[:count])
                device = features.device
            else:
                torch.randperm(int(self._places[number]), generator=self._generator)
        collected = self._sharing.collected(found)
        return [collected[number].to(device) for number in order]
