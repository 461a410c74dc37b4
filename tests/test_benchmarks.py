"""Benchmarks, which are run by hand: what they import from the package is there."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.detection import choice
from benchmarks.suite.peers import collect
from benchmarks.suite.profiles import profiled
from benchmarks.suite.tables import markdown, plot
from benchmarks.suite.turns import Plan, beside, slope, take_turns
from benchmarks.suite.utilisation import counted_operations, flops_of, peak_call
from benchmarks.variations import VARIATIONS, as_drawn, several, tray, write_variation
from blemish.data.image import read_image
from blemish.demo.generated import DEFECTS
from blemish.detectors.feature_extractors import FEATURE_EXTRACTORS
from blemish.inspection.detector import Detector
from blemish.models.unet import UNet
from blemish.similarity import ssim
from blemish.storage.atomic import write_json

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))


def imported(path: Path) -> list[tuple[str, str]]:
    """Modules of this project that a file imports, with the name that it takes from each."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").partition(".")[0] in ("blemish", "studies")
        for alias in node.names
        if node.module
    ]


def is_there(module: str, name: str) -> bool:
    if hasattr(import_module(module), name):
        return True
    try:
        import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def test_the_imports_of_benchmarks_are_found() -> None:
    assert ("blemish.inspection.document", "versions") in imported(ROOT / "benchmarks" / "demo.py")
    assert is_there("blemish.inspection.document", "versions")
    assert is_there("blemish.preprocessing", "pose")
    assert not is_there("blemish.inspection.document", "version")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_that_a_benchmark_imports_are_in_the_package(path: Path) -> None:
    assert [pair for pair in imported(path) if not is_there(*pair)] == []


# -- variations of generated images --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, some in VARIATIONS.items() for name in some]
)
def test_a_variation_changes_what_it_says_and_keeps_the_mask_where_the_defect_is(
    family: str, name: str
) -> None:
    kind = DEFECTS[family][0]
    image, mask = VARIATIONS[family][name](family, kind, 3)
    good, nothing = VARIATIONS[family][name](family, "good", 3)
    assert image.shape[1:] == mask.shape == (256, 256)
    assert not nothing.any()
    assert mask.any()
    # The same scene with and without the defect: outside the mask and its soft border they are equal.
    changed = np.abs(image - good).max(0)
    assert changed[mask].mean() > 20 * changed[~mask].mean()
    if name != "as drawn":
        assert not np.array_equal(good, as_drawn(family, "good", 3)[0])


def test_one_of_several_objects_has_the_defect() -> None:
    image, mask = tray("rod", "dent", 3)
    quarters = mask.reshape(2, 128, 2, 128).any((1, 3))
    assert quarters.sum() == 1
    # An object takes more of its quarter than the mat's noise does.
    assert np.all((image[0] > 0.3).reshape(2, 128, 2, 128).mean((1, 3)) > 0.05)
    shares = [(several("rod", "good", seed)[0] > 0.3).mean() for seed in range(6)]
    assert max(shares) > 1.5 * min(shares)  # two to four of them


def test_a_set_of_variations_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("GOOD", 2), ("TEST_GOOD", 1), ("EACH", 1)):
        monkeypatch.setattr(f"benchmarks.variations.{name}", value)
    folder = write_variation(tmp_path / "rod-several", "rod", "several")
    images = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    kinds = DEFECTS["rod"]
    assert len(images) == 2 + 1 + 2 * len(kinds)
    masks = {kind: read_image(folder / "ground_truth" / kind / "000_mask.png").pixels for kind in kinds}
    assert all(set(np.unique(mask)) == {0, 255} for mask in masks.values())
    before = (folder / "train/good/000.png").stat().st_mtime_ns
    assert write_variation(folder, "rod", "several") == folder
    assert (folder / "train/good/000.png").stat().st_mtime_ns == before


# -- the suite -----------------------------------------------------------------------------------------


def test_the_suite_times_contenders_in_turns() -> None:
    called: list[str] = []
    contenders = {name: lambda name=name: called.append(name) for name in ("a", "b")}
    seconds = take_turns(contenders, Plan(rounds=3, turn=0, quick=True))
    assert called == ["a", "b"] + ["a", "b"] * 3  # once before, then round by round
    assert {name: len(own) for name, own in seconds.items()} == {"a": 3, "b": 3}


def test_ratios_are_those_of_rounds() -> None:
    rows = beside({"ours": [1.0, 2.0, 4.0], "peer": [2.0, 2.0, 12.0]}, "ours")
    assert rows[0]["milliseconds"] == {"median": 2000, "low": 1000, "high": 4000}
    assert rows[1]["time beside ours"] == {"median": 2, "low": 1, "high": 3}


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_slope_is_the_power_by_which_a_cost_grows(power: float) -> None:
    sizes = [8.0, 16.0, 64.0]
    found = slope(sizes, [[3 * size**power, 5 * size**power] for size in sizes])
    assert found == {"median": power, "low": power, "high": power}


@pytest.mark.slow  # the counter imports much
def test_operations_of_a_product_are_counted() -> None:
    call, operations = peak_call(torch.float32, 16)
    assert flops_of(call) == operations == 2 * 16**3


def test_a_profile_names_the_largest_costs_first() -> None:
    x = torch.rand(2, 3, 64, 64)
    found = profiled(lambda: ssim(x, x.flip(0), data_range=1.0))
    for kind in ("operations", "functions"):
        shares = [row["share"] for row in found[kind]]
        assert shares == sorted(shares, reverse=True)
        assert 0 < shares[0] <= 1
    assert found["functions"][0]["name"] == "similarity/ssim.py: ssim"


def test_a_project_that_is_not_installed_is_a_reason() -> None:
    def missing() -> object:
        raise ImportError("No module named 'peer'")

    found, reasons = collect({"here": lambda: 1, "peer": missing})
    assert found == {"here": 1}
    assert reasons == {"peer": "not installed (No module named 'peer')"}


def test_tables_and_plots_are_made_from_the_json(tmp_path: Path) -> None:
    some = {"median": 2.0, "low": 1.0, "high": 3.0}
    rows = [{"task": "SSIM, value", "name": "peer", "milliseconds": some, "time beside blemish": some}]
    growth = [{"name": "fit", "by": "images", "milliseconds": {"8": some, "16": some}, "slope": some}]
    shares = [{"name": "`aten::mm`", "calls": 3, "share": 0.5}]
    profile = [{"name": "fit", "seconds": 1.5, "operations": shares, "functions": shares}]
    sections = {
        name: {"command": f"python -m benchmarks.suite --sections {name}", "rows": own, "missing": missing}
        for name, own, missing in (
            ("similarity", rows, {"piq": "not installed"}),
            ("growth", growth, {}),
            ("profile", profile, {}),
        )
    }
    document = {"command": "python -m benchmarks.suite", "machine": "a test", "sections": sections}
    text = markdown(document)
    assert "| peer | 2 (1 to 3) | 2 (1 to 3) |" in text
    assert "Left out: piq: not installed." in text
    assert "| fit | images | 8: 2, 16: 2 | 2 (1 to 3) |" in text
    assert "50.0 %" in text
    for name in sections:
        assert f"--sections {name}`" in text
    plot(tmp_path / "plot.png", document)
    assert (tmp_path / "plot.png").stat().st_size > 1000


@pytest.mark.parametrize("inference", [False, True])
def test_the_counted_operations_of_a_call_alone_are_as_many(inference: bool) -> None:
    layer = torch.nn.Conv2d(3, 4, 3)
    x = torch.rand(2, 3, 9, 9)
    done: list[str] = []

    def call() -> object:
        done.append("called")
        with torch.inference_mode(inference):
            y = layer(x).relu().flatten(1)
            product = y @ y.mT
        if not inference:
            product.sum().backward()
        return product

    alone = counted_operations(call)
    done.clear()
    # Twice 49 places × 4 outputs × 27 inputs a plane, and the product of two matrices.
    forward = 2 * 2 * 49 * 4 * 27 + 2 * 2 * 2 * 196
    assert flops_of(alone) >= forward
    assert (flops_of(alone) > forward) != inference  # and their gradients
    assert done == []
    assert flops_of(alone) == flops_of(call)


# -- the choice of members ---------------------------------------------------------------------------------


def test_members_are_chosen_by_the_other_families_of_sets(tmp_path: Path) -> None:
    """On a and c the network alone is best, on b all members; two sets of family c count once."""
    best = {"a": "network alone", "b": choice.WHOLE, "c-1": "network alone", "c-2": "network alone"}
    for name, good in best.items():
        rows = [
            {
                "name": candidate,
                "seed": seed,
                "image_auroc": (0.9 if candidate == good else 0.6) + 0.01 * seed,
            }
            for candidate in choice.CANDIDATES
            if candidate != "without colour bank"
            for seed in (0, 1)
        ]
        write_json(tmp_path / f"detection-members-{name}.json", {"rows": rows})
    found = choice.answer(tmp_path)
    chosen = {row["set"]: (row["chosen"], row["best"]) for row in found["rows"]}
    assert chosen["b"] == ("network alone", choice.WHOLE)
    # Of the two others each is best once; the first of equal candidates is the default.
    assert chosen["a"] == chosen["c-1"] == chosen["c-2"] == (choice.WHOLE, "network alone")
    assert found["rows"][1]["chosen_auroc"] == pytest.approx([0.6, 0.61])
    assert found["mean_over_families"]["best"] == pytest.approx(0.905)
    assert found["mean_over_families"]["default"] == pytest.approx((2 * 0.605 + 0.905) / 3)
    assert "| a | all, as fitted | 0.605 (0.600 to 0.610) |" in choice.markdown(found, "command")


def test_without_one_of_two_members_is_the_other(tmp_path: Path) -> None:
    values = {choice.WHOLE: 0.9, "network alone": 0.7, "memory bank alone": 0.8}
    rows = [{"name": name, "image_auroc": value} for name, value in values.items()]
    write_json(tmp_path / "detection-members-rod.json", {"rows": rows})
    own = choice.read_members(tmp_path)["rod"]
    assert (own["without network"], own["without memory bank"]) == ([0.8], [0.7])
    assert own["without filter bank"] == [0.9]


# -- features of a network -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network_features() -> Any:
    """The module, without what it registers for the benchmark."""
    before = set(FEATURE_EXTRACTORS)
    from benchmarks.detection import network_features

    for name in set(FEATURE_EXTRACTORS) - before:
        del FEATURE_EXTRACTORS[name]
    return network_features


def test_features_of_a_network_are_those_of_each_place(
    network_features: Any, fitted: tuple[Detector, Path]
) -> None:
    features = network_features.NetworkFeatures(model=str(fitted[1])).train()
    x = torch.rand(1, 1, 70, 247, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = features(x)
        other = features(torch.cat([x[..., :176], 1 - x[..., 176:]], 3))
    assert whole.shape == (1, 9, 31, 64 + 32)
    assert torch.isfinite(whole).all()
    torch.testing.assert_close(whole[:, :, :4], other[:, :, :4])
    assert not torch.isclose(whole[:, :, 24:], other[:, :, 24:]).any(-1).all()


def test_levels_of_a_u_net_are_its_way_down(network_features: Any) -> None:
    encoder = UNet(channels=1, patch=32).eval()
    seen: list[torch.Tensor] = []
    for block in encoder.down:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.inference_mode():
        x = torch.rand(1, 1, 32, 64)
        encoder(x)
        eighth, sixteenth = network_features.levels(encoder, x)
    assert torch.equal(eighth, seen[3])
    assert torch.equal(sixteenth, seen[4])
    assert eighth.shape == (1, 64, 4, 8)
