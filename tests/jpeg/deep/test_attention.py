from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blemish.errors import FileError, RecipeError
from blemish.jpeg.coefficients import Sampling, block_counts
from blemish.jpeg.deep.attention import ATTENTIONS, Logits, RecurrentAttention, TrunkAttention
from blemish.jpeg.deep.network import forward_dct
from blemish.models.registry import make_part
from blemish.recipes import Part

TRUNKS = [{"name": "vgg19"}, {"name": "resnet152", "block": 1}, {"name": "resnet152", "block": 7}]


def make(sampling: Sampling = "4:4:4", *, pretrained: bool = False, **settings: object) -> Any:
    torch.manual_seed(0)
    part = Part.model_validate(settings)
    return make_part("attention", ATTENTIONS, part, sampling=sampling, pretrained=pretrained)


def logits(network: Any, x: Tensor, sampling: Sampling = "4:4:4") -> Logits:
    with torch.no_grad():
        found: Logits = network(x, forward_dct(x, sampling))
    return found


@pytest.fixture(scope="module", params=TRUNKS, ids=["vgg19", "block1", "block7"])
def trunk(request: pytest.FixtureRequest) -> TrunkAttention:
    made: TrunkAttention = make(**request.param)
    return made


def test_a_trunk_is_its_network_on_normalised_images_under_a_linear_map(trunk: TrunkAttention) -> None:
    x = torch.rand(2, 3, 24, 40)
    found = logits(trunk, x)
    colours = zip(x.unbind(1), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    normalised = torch.stack([(plane - mean) / std for plane, mean, std in colours], 1)
    head = trunk.head
    assert isinstance(head, nn.Conv2d)
    with torch.no_grad():
        features = trunk.network(normalised)
        assert features.shape[2:] == (3, 5)
        expected = torch.einsum("oc,nchw->nhwo", head.weight[:, :, 0, 0], features)
    torch.testing.assert_close(found.luma.flatten(3), expected[..., :64], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.chroma.flatten(3), expected[..., 64:], atol=1e-4, rtol=1e-4)


def test_batch_normalisation_keeps_its_statistics_in_training(trunk: TrunkAttention) -> None:
    trunk.train()
    before = {name: value.clone() for name, value in trunk.named_buffers()}
    x = torch.rand(3, 3, 16, 16)
    together = logits(trunk, x)
    for name, value in trunk.named_buffers():
        assert torch.equal(value, before[name]), name
    alone = logits(trunk, x[1:2])
    torch.testing.assert_close(together.luma[1:2], alone.luma, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (8, 16), (16, 8), (24, 40)])
def test_at_420_chroma_takes_the_mean_of_its_four_blocks(size: tuple[int, int]) -> None:
    network, x = make("4:2:0", name="vgg19"), torch.rand(1, 3, *size)
    found = logits(network, x, "4:2:0")
    network.sampling = "4:4:4"
    full = logits(network, x).chroma
    luma, chroma, _ = block_counts(size[1], size[0], 3, "4:2:0")
    assert (found.luma.shape[1:3], found.chroma.shape[1:3]) == (luma, chroma)
    for row in range(chroma[0]):
        for column in range(chroma[1]):
            part = full[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean((1, 2))
            torch.testing.assert_close(found.chroma[:, row, column], part, atol=1e-5, rtol=1e-5)


def test_maps_lie_luma_first_and_by_vertical_then_horizontal_frequency() -> None:
    network = make(name="vgg19")
    nn.init.zeros_(network.head.weight)
    network.head.bias.data = torch.arange(128.0)
    found = logits(network, torch.rand(1, 3, 8, 16))
    order = torch.arange(128.0).reshape(2, 8, 8)
    assert torch.equal(found.luma, order[0].expand(1, 1, 2, 8, 8))
    assert torch.equal(found.chroma, order[1].expand(1, 1, 2, 8, 8))


def test_resnet152_is_cut_behind_its_block_of_conv3() -> None:
    torchvision: Any = import_module("torchvision")
    with torch.device("meta"):
        whole = torchvision.models.resnet152()
    below = [whole.conv1, whole.bn1, whole.layer1]
    for block in (1, 7):
        network = make(name="resnet152", block=block).network
        used = [*below, *whole.layer2[:block]]
        expected = sum(parameter.numel() for layer in used for parameter in layer.parameters())
        assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize(
    "settings", [{"name": "vgg19"}, {"name": "lstm"}, {"name": "bilstm"}], ids=["vgg19", "lstm", "bilstm"]
)
@pytest.mark.parametrize("start", [0.5, 0.95])
def test_maps_begin_at_start_where_nothing_is_seen(settings: dict[str, object], start: float) -> None:
    network = make(**settings, start=start)
    for name, parameter in network.named_parameters():
        if "head" in name and name.endswith("weight"):
            nn.init.zeros_(parameter)
    found = logits(network, torch.rand(1, 3, 8, 8))
    for maps in found:
        torch.testing.assert_close(maps.sigmoid(), torch.full((1, 1, 1, 8, 8), start))


def recurrence(network: RecurrentAttention, blocks: Tensor, *, kind: str = "luma") -> Tensor:
    """The states of one LSTM, gate by gate, over a list of blocks (T, 64): (T, hidden)."""
    lstm = getattr(network, kind)
    hidden = cell = torch.zeros(lstm.hidden_size)
    states = []
    for block in blocks:
        gates = lstm.weight_ih_l0 @ block + lstm.bias_ih_l0 + lstm.weight_hh_l0 @ hidden + lstm.bias_hh_l0
        entry, forget, fresh, out = gates.chunk(4)
        cell = forget.sigmoid() * cell + entry.sigmoid() * fresh.tanh()
        hidden = out.sigmoid() * cell.tanh()
        states.append(hidden)
    return torch.stack(states)


def test_the_lstm_reads_blocks_row_by_row() -> None:
    network, x = make(name="lstm", hidden=10), torch.rand(1, 3, 16, 24)
    found = logits(network, x)
    y, cb, cr = (plane[0].flatten(0, 1).flatten(1) / 128 for plane in forward_dct(x, "4:4:4"))  # (6, 64)
    with torch.no_grad():
        luma = network.luma_head(recurrence(network, y))
        of_cb, of_cr = (network.chroma_head(recurrence(network, plane, kind="chroma")) for plane in (cb, cr))
    torch.testing.assert_close(found.luma, luma.reshape(1, 2, 3, 8, 8), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        found.chroma, ((of_cb + of_cr) / 2).reshape(1, 2, 3, 8, 8), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("name", "looks_ahead"), [("lstm", False), ("bilstm", True)])
def test_only_the_bidirectional_lstm_depends_on_later_blocks(name: str, looks_ahead: bool) -> None:
    network, x = make(name=name), torch.rand(1, 3, 16, 24)
    changed = x.clone()
    changed[:, :, 8:, :8] = 0  # the fourth block of six
    before, after = (logits(network, images).luma.flatten(1, 2)[0] for images in (x, changed))
    differs = [bool((one != other).any()) for one, other in zip(before, after, strict=True)]
    assert differs == [looks_ahead] * 3 + [True] * 3


def test_cb_and_cr_count_equally() -> None:
    network = make(name="bilstm")
    x = torch.rand(1, 3, 16, 16)
    y, cb, cr = forward_dct(x, "4:4:4")
    with torch.no_grad():
        torch.testing.assert_close(network(x, (y, cb, cr)).chroma, network(x, (y, cr, cb)).chroma)


@pytest.mark.parametrize("name", ["lstm", "bilstm"])
def test_half_precision_does_not_reach_the_recurrence(name: str) -> None:
    network, x = make(name=name), torch.rand(1, 3, 16, 16)
    expected = logits(network, x)
    blocks = forward_dct(x, "4:4:4")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(x, blocks)
    assert torch.equal(found.luma, expected.luma)
    assert torch.equal(found.chroma, expected.chroma)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "vgg16"}, "unknown attention 'vgg16'; did you mean 'vgg19'?"),
        ({"name": "zzz"}, "there are bilstm, lstm, none, resnet152, vgg19"),
        ({"name": "none", "hidden": 3}, "attention 'none' has no setting 'hidden'"),
        ({"name": "resnet152", "block": 2}, "attention 'resnet152': block is 2; input should be 1 or 7"),
        ({"name": "lstm", "hidden": 0}, "attention 'lstm': hidden is 0; "),
        ({"name": "lstm", "start": 1}, "attention 'lstm': start is 1; input should be less than 1"),
        ({"name": "vgg19", "block": 1}, "attention 'vgg19' has no setting 'block'"),
        ({"name": "vgg19", "weights": "imagnet"}, "weights is 'imagnet'; did you mean 'imagenet'?"),
    ],
)
def test_refusals_of_a_part_are_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make(**settings, pretrained=True)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["vgg19", "resnet152"])
def test_missing_weights_name_a_way_to_train_without(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("BLEMISH_WEIGHTS", raising=False)
    with pytest.raises(FileError, match=r"--set attention\.weights=none$"):
        make(name=name, pretrained=True)
    make(name=name, pretrained=False)


def test_weights_are_taken_from_a_file(tmp_path: Path) -> None:
    source = make(name="vgg19")
    state = {f"features.{key}": value for key, value in source.network.features.state_dict().items()}
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    torch.manual_seed(3)
    part = Part.model_validate({"name": "vgg19", "weights": str(path)})
    loaded = make_part("attention", ATTENTIONS, part, sampling="4:4:4", pretrained=True)
    x = torch.rand(1, 3, 8, 8)
    assert isinstance(loaded, TrunkAttention)
    with torch.no_grad():
        assert torch.equal(loaded.network(x), source.network(x))
