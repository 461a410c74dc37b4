"""Smaller standard JPEG files: coefficients and tables of our own choice, written so that any decoder reads them.

Encoding runs without torch; only ``blemish.jpeg.differentiable_decoder`` and the networks of ``blemish.jpeg.deep`` import it.
The names below are imported when they are first used, so that the command line's help waits for no compiler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blemish.jpeg.coefficients import Coefficients as Coefficients
    from blemish.jpeg.coefficients import Plane as Plane
    from blemish.jpeg.coefficients import Sampling as Sampling
    from blemish.jpeg.deep.model import DeepEncoder as DeepEncoder
    from blemish.jpeg.deep.model import load as load
    from blemish.jpeg.encoder import Encoded as Encoded
    from blemish.jpeg.encoder import Encoder as Encoder
    from blemish.jpeg.file import from_bytes as from_bytes
    from blemish.jpeg.file import to_bytes as to_bytes
    from blemish.jpeg.transform import blocks_dct as blocks_dct
    from blemish.jpeg.transform import planes_of as planes_of
    from blemish.jpeg.transform import quantise as quantise

_HOMES = {
    "Coefficients": "coefficients",
    "DeepEncoder": "deep.model",
    "Encoded": "encoder",
    "Encoder": "encoder",
    "Plane": "coefficients",
    "Sampling": "coefficients",
    "blocks_dct": "transform",
    "from_bytes": "file",
    "load": "deep.model",
    "planes_of": "transform",
    "quantise": "transform",
    "to_bytes": "file",
}

__all__ = [
    "Coefficients",
    "DeepEncoder",
    "Encoded",
    "Encoder",
    "Plane",
    "Sampling",
    "blocks_dct",
    "from_bytes",
    "load",
    "planes_of",
    "quantise",
    "to_bytes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'blemish.jpeg' has no attribute '{name}'")
    from blemish.extras import explain_missing

    with explain_missing():
        return getattr(import_module(f"blemish.jpeg.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
