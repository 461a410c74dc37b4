"""Graphs of networks in ONNX: the parts of an anomaly model that other runtimes compute."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from blemish.detectors.feature_extractors import FeatureExtractor
from blemish.detectors.reconstruction import ReconstructionModel, examined
from blemish.extras import explain_missing
from blemish.runtime.bank import SEARCHED, SQUARES
from blemish.runtime.features import FEATURES, IMAGE
from blemish.runtime.model import PLANES, SHOWN, TILES

OPSET = 18
"""Version of the operators; ONNX Runtime has them from 1.14 on, OpenVINO from 2023.1 on."""
IR = 10
"""Version of the file format; ONNX Runtime reads it from 1.18 on."""
PART = 1024
"""Features of a bank that are compared with at once."""
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
        self.takes_shown = bool(model.modal_channels) and model.takes_absent
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
    inputs = {TILES: example, SHOWN: example.clone()} if network.takes_shown else {TILES: example}
    count = torch.export.Dim("n", min=1, max=4096)
    return _traced(network, inputs, PLANES, tuple({0: count} for _ in inputs))


def features_graph(extractor: FeatureExtractor, channels: int) -> bytes:
    """ONNX graph of the features of one image (1, C, H, W) of any size: (1, h, w, k).

    Raises
    ------
    MissingExtraError
        When onnx or onnxscript is not installed.
    """
    side = 2 * max(extractor.least_side, 48)
    image = torch.rand(1, channels, side, side + 32, generator=torch.Generator().manual_seed(0))
    height, width = (torch.export.Dim(name, min=extractor.least_side) for name in ("height", "width"))
    return _traced(extractor.eval(), {IMAGE: image}, FEATURES, ({2: height, 3: width},))


def search_graph(bank: Tensor) -> bytes:
    """ONNX graph of the least squared distance to the features of ``bank`` (m, k), but for the features' own length.

    Its input ``features`` is (n, k + 1): -2 times each feature, and 1; its output ``squares`` (n,).

    Raises
    ------
    MissingExtraError
        When onnx is not installed.
    """
    with explain_missing():
        from onnx import TensorProto, helper, numpy_helper

    features = bank.float()
    augmented = torch.cat([features, features.square().sum(1, keepdim=True)], 1)  # (m, k + 1)
    nodes, constants, minima = [], [], []
    # A minimum over parts that stay in cache is several times as quick as one product with all.
    for number, part in enumerate(torch.split(augmented, PART)):
        constants.append(numpy_helper.from_array(part.T.contiguous().numpy(), f"bank_{number}"))
        nodes.append(helper.make_node("MatMul", [SEARCHED, f"bank_{number}"], [f"products_{number}"]))
        nodes.append(
            helper.make_node("ReduceMin", [f"products_{number}", "axis"], [f"least_{number}"], keepdims=0)
        )
        minima.append(f"least_{number}")
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    nodes.append(helper.make_node("Min", minima, [SQUARES]))
    graph = helper.make_graph(
        nodes,
        "search",
        [helper.make_tensor_value_info(SEARCHED, TensorProto.FLOAT, ["n", augmented.shape[1]])],
        [helper.make_tensor_value_info(SQUARES, TensorProto.FLOAT, ["n"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    content: bytes = model.SerializeToString()
    return content


def _traced(module: nn.Module, inputs: dict[str, Tensor], output: str, shapes: tuple[Any, ...]) -> bytes:
    """ONNX graph of ``module``, whose ``inputs`` are of any size along the axes in ``shapes``."""
    with explain_missing(), quiet(), torch.no_grad():
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
        program.model.ir_version = IR
        content: bytes = program.model_proto.SerializeToString()
    return content


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
