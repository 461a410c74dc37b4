"""Graphs of networks in ONNX: the parts of an anomaly model that other runtimes compute."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from blemish.detectors.reconstruction import ReconstructionModel, examined
from blemish.extras import explain_missing

OPSET = 18
"""Version of the operators; ONNX Runtime reads it from 1.14 on, OpenVINO from 2023.1 on."""
TILES, SHOWN, PLANES = "tiles", "shown", "planes"
"""Names of the inputs and of the output of a network's graph."""
_DRAWS: tuple[Callable[..., Tensor], ...] = (torch.randn, torch.rand, torch.randint)


class _Draws(TorchFunctionMode):
    """Keeps what torch draws from a generator, or gives what was kept in its place.

    At inspection all draws are those of one seed, for each image anew. A graph holds them as constants.
    """

    def __init__(self, kept: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.found: list[Tensor] = []
        self._kept = None if kept is None else iter(kept)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _DRAWS or kwargs.get("generator") is None:
            return func(*args, **kwargs)
        if self._kept is not None:
            return next(self._kept)
        drawn = func(*args, **kwargs)
        self.found.append(drawn)
        return drawn


class _TileNetwork(nn.Module):
    """Network of a reconstruction model, from tiles to planes; see :func:`~blemish.detectors.reconstruction.examined`."""

    def __init__(self, model: ReconstructionModel, example: Tensor) -> None:
        super().__init__()
        self.autoencoder = model.autoencoder
        self.is_modal = bool(model.modal_channels)
        with torch.no_grad(), _Draws() as draws:
            examined(self.autoencoder, example[:1], example[:1])
        self.count = len(draws.found)
        for number, drawn in enumerate(draws.found):
            self.register_buffer(f"draw_{number}", drawn)

    def forward(self, x: Tensor, shown: Tensor | None = None) -> Tensor:
        with _Draws([self.get_buffer(f"draw_{number}") for number in range(self.count)]):
            return examined(self.autoencoder, x, x if shown is None else shown)


def network_graph(model: ReconstructionModel, channels: int) -> bytes:
    """ONNX graph of the network and the residual of ``model``, for any number of tiles at once.

    Its input ``tiles`` is (n, C, P, P) in [0, 1]; a model whose modalities have maps takes ``shown``, the same with what
    the network is not to see absent (NaN), beside it. Its output ``planes`` is described in
    :meth:`~blemish.detectors.tiled.TiledModel.examine`.

    Raises
    ------
    MissingExtraError
        When onnx or onnxscript is not installed.
    """
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(2, channels, model.patch, model.patch, generator=generator)
    network = _TileNetwork(model, example).eval()
    inputs = {TILES: example, SHOWN: example.clone()} if network.is_modal else {TILES: example}
    return traced(network, inputs, PLANES)


def traced(module: nn.Module, inputs: dict[str, Tensor], output: str) -> bytes:
    """ONNX graph of ``module`` whose ``inputs`` may be of any number (their first axis)."""
    count = torch.export.Dim("n", min=1, max=4096)
    shapes = tuple({0: count} for _ in inputs)
    with explain_missing(), _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[output],
            opset_version=OPSET,
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        content: bytes = program.model_proto.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own reports of its progress to itself."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
