"""The README's examples: Python blocks are run on small images, command lines must be understood."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import typer.main
from PIL import Image

from blemish.cli import app as cli
from blemish.demo.generated import make_sample
from blemish.jpeg.distortion import TUNES
from blemish.recipes import load_recipe, override
from blemish.training.try_recipe import check_recipe
from studies.protocol import spread

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The README's lengths are for real work; the same code must run at these.
SMALLER = {
    '"training.steps=2000"': '"training.steps=4", "patch.size=32", "patch.stride=16", "encoder.latent=8"',
}
TURNED = {
    "stn-ae-unaligned": "plain",
    "stn-ae-frozen": "frozen",
    "stn-ae-joint": "joint",
    "stn-ae-finetuned": "finetuned",
}
"""Recipes and what the study calls their columns."""
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
LINES = sorted(
    {
        line.split("#")[0].strip().removeprefix(".venv/bin/")
        for line in re.findall(r"^(?:\.venv/bin/)?blemish .*$", README, flags=re.MULTILINE)
    }
    | set(re.findall(r"`(blemish (?:inspect|fit|evaluate|study|recipes)[^`]*)`", README))
)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_example_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good").mkdir()
    for seed in range(48):
        sample = make_sample("checkerboard", "good", seed=seed, size=64)
        Image.fromarray(sample.image[0]).save(f"good/{seed}.png")
    Image.fromarray(make_sample("checkerboard", "stroke", seed=99, size=64).image[0]).save("part.png")
    for long, short in SMALLER.items():
        block = block.replace(long, short)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("line", LINES)
def test_command_line_is_understood(line: str) -> None:
    program, command, *arguments = shlex.split(line)
    assert program == "blemish"
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert command in commands, f"there is no command '{command}'"
    commands[command].make_context(command, arguments)  # raises on an unknown option or a missing argument


@pytest.mark.parametrize("line", [line for line in LINES if "--set '" in line])
def test_the_settings_of_a_command_line_fit_its_recipe(line: str) -> None:
    words = shlex.split(line)
    recipe = load_recipe(words[words.index("--recipe") + 1])
    check_recipe(override(recipe, [words[place + 1] for place, word in enumerate(words) if word == "--set"]))


def test_the_readme_has_examples_of_both_kinds() -> None:
    assert len(BLOCKS) >= 2
    assert len(LINES) >= 5


def _json(path: str) -> Any:
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def _share(rejects: dict[str, float]) -> str:
    return f"{100 * rejects['ratio']:.1f} % ({100 * rejects['low']:.1f} to {100 * rejects['high']:.1f})"


def _over_seeds(values: list[float]) -> str:
    return f"{fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def readme_rows() -> list[str]:
    """The README's tables of figures, made from the committed results."""
    rows = []
    for name in ("magnetic_tile", "mvtec_screw"):
        five, ten = (_json(f"studies/results/{name}-ssim-ae{suffix}.json") for suffix in ("", "-10"))
        auroc, pixel = five["image"]["all"]["figures"]["auroc"], five["pixel"]
        rows.append(
            f"| `{name}` | {auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f}) "
            f"| {pixel['auroc']:.3f} | {pixel['aupro_30']:.3f} "
            f"| {_share(five['false_rejects'])} | {_share(ten['false_rejects'])} |"
        )
    for table, recipe, words in (
        ("mvtec_screw", "blemish", ""),
        ("mvtec_screw_even_light", "blemish", ""),
        ("magnetic_tile", "blemish", ""),
        ("magnetic_tile_by_tile", "blemish", ""),
        ("crackforest_patches", "blemish", ""),
        ("mvtec_screw-5m", "blemish-small", ""),
        ("magnetic_tile_by_tile-1h", "blemish", ", an hour"),
        ("mvtec_screw-1h", "ssim-ae", ", an hour"),
        ("mvtec_screw-1h", "dae-vgg16-ssim", ", an hour"),
        ("mvtec_screw-1h", "cae-vgg16-ssim", ", an hour"),
        ("mvtec_screw_even_light-1h", "dae-vgg16-ssim", ", an hour"),
        ("mvtec_screw_even_light-1h", "cae-vgg16-ssim", ", an hour"),
    ):
        measured = _json(f"benchmarks/results/detection-table-{table}.json")["rows"]
        detector = next(row for row in measured if row["name"] == recipe)
        figures = [detector[key] for key in ("image_auroc", "pixel_auroc", "aupro_30")]
        cells = " | ".join(spread(values, 3) for values in figures)
        rows.append(f"| `{detector['dataset']}` | {recipe}{words} | {len(figures[0])} | {cells} |")
    trims = _json("benchmarks/results/detection-contamination-mvtec_screw.json")["rows"]
    for name in ("nothing", "both, auto"):
        runs = [[row for row in trims if (row["trimmed"], row["share"]) == (name, s)] for s in (0, 0.05, 0.1)]
        cells = (
            f"{100 * fmean(row['rejected_test'] for row in some):.1f} %, "
            f"{100 * fmean(row['found'] for row in some):.0f} %"
            for some in runs
        )
        rows.append(f"| {name} | {' | '.join(cells)} |")
    screws = _json("studies/results/kumar2025-mvtec_screw.json")
    published = screws["published"]["tables"]["screw"]
    for recipe in published:
        runs = [row for row in screws["rows"] if row["recipe"] == recipe]
        accuracy = fmean(row["image"]["all"]["figures"]["accuracy"]["value"] for row in runs)
        pixel = fmean(row["pixel"]["auroc"] for row in runs)
        rows.append(f"| `{recipe}` | {accuracy:.2f} | {published[recipe]['accuracy']:.2f} | {pixel:.2f} |")
    turned = [
        row for row in _json("studies/results/radli2022-mvtec_screw.json")["rows"] if row["part"] == "cloth"
    ]
    for recipe, column in TURNED.items():
        runs = [row for row in turned if row["column"] == column]
        figures = (
            [row["ssim"] for row in runs],
            [row["areas"]["SSIM"]["auroc"] for row in runs],
        )
        cells = (_over_seeds(values) for values in figures)
        rows.append(f"| `{recipe}` | {' | '.join(cells)} |")
    rates = {
        (rate["encoder"], rate["measure"]): f"{rate['mean']:+.1f} %"
        for rate in _json("studies/results/jpeg-kodak.json")["rates"]
        if rate["anchor"] == "pillow-420"
    }
    tunes = [f"blemish-{tune}" for tune in TUNES]
    for encoder in (*tunes, "mozjpeg", "mozjpeg-psnr", "mozjpeg-ms-ssim"):
        cells = (rates[encoder, one] for one in ("psnr_rgb", "psnr_y", "ms_ssim", "ssimulacra2"))
        rows.append(f"| `{encoder}` | {' | '.join(cells)} |")
    for row in _json("studies/results/liu2022-photos_kodak.json")["rows"]:
        against = row["rates"]
        if row["name"] == row["recipe"]:
            cells = (
                f"{against[anchor][one]['mean']:+.1f} %"
                for anchor in ("pillow-444", "pillow-420")
                for one in ("psnr_rgb", "ms_ssim")
            )
            rows.append(f"| `{row['name']}` | {' | '.join(cells)} |")
    scenes = _json("studies/results/xie2019-cave_panels.json")["rows"]
    for recipe in ("stacked-ae", "pen-nde", "pen-upde", "fp-cae", "fp-cae-concat", "fp-cae-add"):
        runs = [row for row in scenes if row["row"] == recipe]
        cells = (
            _over_seeds(values)
            for values in ([row["ssim"] for row in runs], [row["local_ssim"][0] for row in runs])
        )
        rows.append(f"| `{recipe}` | {' | '.join(cells)} |")
    largest = max(_json("benchmarks/results/panels.json")["runs"][0]["panels"], key=lambda size: size["side"])
    rows.append(f"{largest['peak_mib']:.0f} MiB")
    textures = _json("studies/results/bergmann2018.json")["rows"]
    for recipe in ("l2-ae", "vae", "fm-ae", "ssim-ae"):
        pixels = [row["pixel"] for row in textures if row["recipe"] == recipe]
        cells = (_over_seeds([one[key] for one in pixels]) for key in ("auroc", "aupro_30"))
        rows.append(f"| `{recipe}` | {' | '.join(cells)} |")
    baseline = _json("benchmarks/results/random_baseline.json")
    for family in ("weave", "checkerboard", "part"):
        found = baseline[family]
        random = max(method["image_auroc"] for method in found["random_weights"].values())
        trivial = max(found["trivial_statistics"].values())
        rows.append(f"| {family} | {random:.2f} | {trivial:.2f} |")
    training, startup = (_json(f"benchmarks/results/{name}.json") for name in ("training", "startup"))
    rows += [
        f"| {name} | {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}) |"
        for name, ratio in training["ratios"].items()
    ]
    rows += [
        f"| `{name}`, seconds | {startup['seconds'][name]['median']:.2f} |"
        for name in ("import blemish", "blemish --help")
    ]
    return rows


@pytest.mark.parametrize("row", readme_rows())
def test_every_figure_of_the_readme_is_one_of_a_committed_result(row: str) -> None:
    assert row in README


def test_links_and_images_of_the_documentation_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
