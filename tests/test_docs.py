"""The documentation: examples are run, command lines parsed, links followed, figures read from committed results."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import typer.main
import yaml
from PIL import Image
from pydantic import BaseModel

import blemish
from benchmarks import missing_modalities, modalities, registration
from benchmarks.archive.tables import kills_table as kills_of_archives
from benchmarks.archive.tables import throughput_table
from blemish import limits
from blemish.cli import app as cli
from blemish.demo.generated import write_dataset
from blemish.jpeg.deep.recipe import deep_recipe_names
from blemish.jpeg.distortion import TUNES
from blemish.recipes import Recipe, load_recipe, override, recipe_names
from blemish.training.try_recipe import check_recipe
from studies.protocol import spread
from studies.radli2022_columns import COLUMNS, PUBLISHED
from studies.radli2022_page import separated
from studies.supplement import page_of, study_of
from tests.faults.tables import files_table, hunts_table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
        *(path for path in sorted(DOCS.rglob("*.md")) if DOCS / "reference" not in path.parents),
    )
}
README = PAGES["README.md"]
RESULTS = "\n".join(text for name, text in PAGES.items() if name.startswith("docs/results/"))
# The lengths on the pages are for real work; the same code must run at these.
TINY = '"training.steps=4", "patch.size=32", "patch.stride=16", "encoder.latent=8", "training.device=cpu"'
QUICK = (
    '"image.size=96", "patch.size=32", "patch.stride=32", "encoder.widths=[4, 8, 8]", "memory.patch=8", '
    '"memory.dimensions=16", "memory.capacity=2000", "training.batch=4", "training.steps=2", '
    '"training.validate_every=2", "training.device=cpu", "training.precision=float32"'
)
SCENES = '"training.batch=4", "training.steps=4", "training.validate_every=2", "training.device=cpu"'
SMALLER = {
    'budget="5m"': f"settings=[{QUICK}]",
    'recipe="ssim-ae", settings=["training.steps=2000"]': f'recipe="ssim-ae", settings=[{TINY}]',
    'recipe="fp-cae-concat", settings=["training.steps=2000"]': (
        f'recipe="fp-cae-concat", settings=[{SCENES}], false_reject_rate=0.1'
    ),
}
TURNED = {
    "stn-ae-unaligned": "plain",
    "stn-ae-frozen": "frozen",
    "stn-ae-joint": "joint",
    "stn-ae-finetuned": "finetuned",
}
"""Recipes and what the study calls their columns."""
BLOCKS = {name: re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) for name, text in PAGES.items()}
BLOCKS = {name: blocks for name, blocks in BLOCKS.items() if blocks}
CONSOLE = "\n".join(
    block for text in PAGES.values() for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
)
MENTIONED = {line for text in PAGES.values() for line in re.findall(r"`(blemish [a-z][^`…]*)`", text)}
LINES = sorted(
    {
        line.split("#")[0].strip().removeprefix(".venv/bin/")
        for line in re.findall(r"^(?:\.venv/bin/)?blemish .*$", CONSOLE, flags=re.MULTILINE)
    }
    | MENTIONED
)
INCLUDING = {"docs/results/tables-detection.md", "docs/results/tables-studies.md"}
"""Pages that include tables which benchmarks and studies wrote."""
HISTORY = {"CHANGELOG.md", "docs/decisions.md"}
"""Pages that name what was before."""
AVOIDED = r"pictures?|mend(?:s|ed)?|told|kin|spoil(?:ed)?|alike|weighed|likeness"
"""Words for which the field has another."""


# -- examples ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders and files that the examples name, small."""
    root = tmp_path_factory.mktemp("examples")
    dataset = write_dataset(root, family="checkerboard", seed=0, good=48, test_good=4, per_blemish=2, size=64)
    dataset.rename(root / "screw")
    shutil.copytree(root / "screw" / "train" / "good", root / "good")
    shutil.copytree(root / "screw" / "test" / "stroke", root / "parts")
    shutil.copy(root / "parts" / "000.png", root / "part.png")
    rng = np.random.default_rng(0)
    for name in ("first", "second", "third"):
        scene = root / "paintings" / name
        scene.mkdir(parents=True)
        y, x = np.mgrid[:96, :160] / 96
        grey = 0.5 + 0.2 * np.sin(9 * x + 7 * y + 6 * rng.random()) + 0.02 * rng.standard_normal(x.shape)
        rgb = np.stack([grey, grey**2, 1 - grey], axis=-1)
        for file, values in (("rgb.png", rgb), ("infrared.png", grey)):
            Image.fromarray((255 * np.clip(values, 0, 1)).astype(np.uint8)).save(scene / file)
    return root


@pytest.mark.parametrize("name", BLOCKS)
def test_python_examples_run(
    name: str, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(material, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    namespace: dict[str, Any] = {}
    for block in BLOCKS[name]:  # of one page, one after the other, as a reader would type them
        for long, short in SMALLER.items():
            block = block.replace(long, short)
        exec(compile(block, name, "exec"), namespace)


def test_every_shortened_length_is_on_a_page() -> None:
    code = "\n".join(block for blocks in BLOCKS.values() for block in blocks)
    assert [long for long in SMALLER if long not in code] == []


@pytest.mark.parametrize("line", LINES)
def test_command_line_is_understood(line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "blemish"
    command: Any = typer.main.get_command(cli.app)
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"there is no command '{name}'"
        command = command.commands[name]
    if words or line not in MENTIONED:  # a page may speak of a command without its arguments
        command.make_context(command.name, words)  # raises on an unknown option or a missing argument


@pytest.mark.parametrize("line", [line for line in LINES if "--set " in line and "textures/" not in line])
def test_the_settings_of_a_command_line_fit_its_recipe(line: str) -> None:
    words = shlex.split(line)
    recipe = load_recipe(words[words.index("--recipe") + 1] if "--recipe" in words else "blemish")
    check_recipe(override(recipe, [words[place + 1] for place, word in enumerate(words) if word == "--set"]))


@pytest.mark.parametrize(
    "text", re.findall(r"```yaml\n(name: .*?)```", PAGES["docs/recipes.md"], flags=re.DOTALL)
)
def test_the_recipes_on_the_page_can_be_built(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    recipe = load_recipe(path)
    check_recipe(recipe)
    assert recipe.memory or recipe.members


def test_the_pages_have_examples_of_both_kinds() -> None:
    assert len(BLOCKS["README.md"]) >= 1
    assert sum(map(len, BLOCKS.values())) >= 8
    assert len([line for line in LINES if line in README]) >= 5
    assert len(LINES) >= 40


# -- figures -------------------------------------------------------------------------------------------


def _json(path: str) -> Any:
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


SELECTED = "blemish, selected weights"
"""The default recipe as it was, with weights selected on synthetic anomalies."""


def _detection(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _json(f"benchmarks/results/detection-{name}.json")["rows"]
    return rows


def _named(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(row for row in rows if row["name"] == name)


def _share(rejects: dict[str, float]) -> str:
    return f"{100 * rejects['ratio']:.1f} % ({100 * rejects['low']:.1f} to {100 * rejects['high']:.1f})"


def _over_seeds(values: list[float]) -> str:
    return f"{fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


EXTRACTED = ("surface", "crackforest_patches", "weave", "mvtec_screw")
"""Sets that extractors of features were compared on."""


def result_rows() -> list[str]:
    """The tables of figures of the results, made from the committed files."""
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
        ("magnetic_tile_by_tile", "blemish", ""),
        ("crackforest_patches", "blemish", ""),
        ("surface", "blemish", ""),
        ("mvtec_screw", "blemish-small", ""),
        ("crackforest_patches", "blemish-small", ""),
        ("surface", "blemish-small", ""),
        ("mvtec_screw", "filter-bank", ""),
        ("magnetic_tile_by_tile", "filter-bank", ""),
        ("crackforest_patches", "filter-bank", ""),
        ("surface", "filter-bank", ""),
        ("mvtec_screw", SELECTED, ""),
        ("mvtec_screw_even_light", SELECTED, ""),
        ("magnetic_tile", SELECTED, ""),
        ("magnetic_tile_by_tile", SELECTED, ""),
        ("crackforest_patches", SELECTED, ""),
        ("mvtec_screw-5m", "blemish-small, selected weights", ""),
        ("magnetic_tile_by_tile-1h", SELECTED, ", an hour"),
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
    for table in ("mvtec_screw", "magnetic_tile_by_tile", "crackforest_patches", "surface"):
        default = _named(_detection(f"table-{table}"), "blemish")
        shares = ", ".join(f"{100 * share:.1f} %" for share in default["rejected"])
        rows.append(f"| `{table}` | {shares} | {sum(default['within_promise'])} of 3 |")
    for family in ("rod", "weave"):
        variations = _detection(f"invariance-{family}-2m")
        for name in dict.fromkeys(row["name"] for row in variations):
            some = [row for row in variations if row["name"] == name]
            figures = ("seen image_auroc", "seen pixel_auroc", "free image_auroc", "unseen image_auroc")
            cells = " | ".join(spread([row[key] for row in some]) for key in figures)
            rows.append(f"| {name} | {cells} | {100 * fmean(row['unseen rejected'] for row in some):.0f} % |")
    ablations = [_detection(f"extractors-{name}") for name in EXTRACTED]
    for name in dict.fromkeys(row["name"] for row in ablations[0]):
        cells = (spread([row["image_auroc"] for row in some if row["name"] == name]) for some in ablations)
        rows.append(f"| {name} | {' | '.join(cells)} |")
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
    names = {"mse": "squared residual", "ssim": "SSIM residual"}
    rows += [
        f"| {one['name']}, {names[one['residual']]} | – | – | {one['pixel']['auroc']:.2f} |"
        for one in screws["baselines"]
    ]
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
    tunes = [f"blemish-{tune}" for tune in TUNES]
    for rates_file in ("jpeg-kodak", "jpeg-kodak-high"):
        rates = {
            (rate["encoder"], rate["measure"]): f"{rate['mean']:+.1f} %"
            for rate in _json(f"studies/results/{rates_file}.json")["rates"]
            if rate["anchor"] == "pillow-420"
        }
        for encoder in (*tunes, "mozjpeg", "mozjpeg-psnr", "mozjpeg-ms-ssim", "jpegli"):
            cells = (rates[encoder, one] for one in ("psnr_rgb", "psnr_y", "ms_ssim", "ssimulacra2"))
            rows.append(f"| `{encoder}` | {' | '.join(cells)} |")
    speed = _json("benchmarks/results/jpeg.json")["speed"]
    for encoder in tunes:
        times = (speed[f"quality {quality}"][encoder]["time_beside"]["mozjpeg"] for quality in (50, 75, 90))
        cells = (f"{one['median']:.1f} ({one['min']:.1f} to {one['max']:.1f})" for one in times)
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
    rows += [
        f"| {one['name']} | {one['ssim']:.2f} | {one['local_ssim'][0]:.2f} |"
        for one in _json("studies/results/xie2019-cave_panels.json")["baselines"]
        if one["name"] != "mean training patch"
    ]
    largest = max(_json("benchmarks/results/panels.json")["runs"][0]["panels"], key=lambda size: size["side"])
    rows.append(f"{largest['peak_mib']:.0f} MiB")
    textures = _json("studies/results/bergmann2018.json")["rows"]
    for recipe in ("l2-ae", "vae", "fm-ae", "ssim-ae"):
        pixels = [row["pixel"] for row in textures if row["recipe"] == recipe]
        cells = (_over_seeds([one[key] for one in pixels]) for key in ("auroc", "aupro_30"))
        rows.append(f"| `{recipe}` | {' | '.join(cells)} |")
    for one in _json("studies/results/bergmann2018.json")["baselines"]:
        if one["residual"] == "mse" and one["name"] != "mean training image":
            pixel = one["pixel"]
            rows.append(
                f"| {one['name']}, squared residual | {pixel['auroc']:.2f} | {pixel['aupro_30']:.2f} |"
            )
    baseline = _json("benchmarks/results/random_baseline.json")
    for family, found in baseline.items():
        random = max(method["image_auroc"] for method in found["random_weights"].values())
        trivial = max(found["trivial_statistics"].values())
        rows.append(f"| {family} | {random:.2f} | {trivial:.2f} |")
    for name, words in COLOUR.items():
        members = _detection(f"members-{name}")
        kinds = [
            {row["seed"]: row["kinds"] for row in members if row["name"] == own}
            for own in ("without colour bank", "all, as fitted")
        ]
        for kind in next(iter(kinds[0].values())):
            if kind in ("empty", "lamp_off", "two"):
                continue
            values = (f"{fmean(one[kind] for one in by_seed.values()):.3f}" for by_seed in kinds)
            rows.append(f"| {words} | {kind} | {' | '.join(values)} |")
    training, startup = (_json(f"benchmarks/results/{name}.json") for name in ("training", "startup"))
    rows += [
        f"| {name} | {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}) |"
        for name, ratio in training["ratios"].items()
    ]
    rows += [
        f"| `{name}`, seconds | {startup['seconds'][name]['median']:.2f} |"
        for name in ("import blemish", "blemish --help")
    ]
    memory = _json("benchmarks/results/memory.json")
    rows += [
        f"| `{recipe}`{comma}{kind}, {name} | {found['bytes_a_pixel']} | {found['gigabytes']} |"
        for recipe, comma, kind, own in (
            (*model.partition(","), own) for model, own in memory["inspection"].items()
        )
        for name, found in own.items()
    ]
    return rows


COLOUR = {
    "mouldings-strength-0_3-2m": "mouldings, strength 0.3",
    "figures-strength-0_3-2m": "figures, strength 0.3",
    "figures-2m": "figures",
    "weave-2m": "weave",
}
"""Tables of a bank of colour among the members, in words."""


def result_phrases() -> Iterator[str]:
    """Figures in the sentences of the page on detection."""
    alone = "similarity to one training image alone"
    for table, words in (
        ("magnetic_tile", "has an image AUROC of"),
        ("magnetic_tile_by_tile", "similarity alone has"),
    ):
        yield f"{words} {_named(_detection(f'table-{table}'), alone)['image_auroc'][0]:.3f}"
    vgg = [
        _named(_detection(f"table-{table}-1h"), recipe)["image_auroc"][0]
        for table in ("mvtec_screw", "mvtec_screw_even_light")
        for recipe in ("dae-vgg16-ssim", "cae-vgg16-ssim")
    ]
    yield f"have {vgg[0]:.3f} and {vgg[1]:.3f} after an hour"
    yield f"the same networks have {vgg[2]:.3f} and {vgg[3]:.3f}"
    for table, words in (
        ("mvtec_screw-5m", "{:.3f} on the"),
        ("magnetic_tile_by_tile-5m", "{:.3f} on the"),
        ("magnetic_tile_by_tile-1h", "[{:.3f}]"),
    ):
        yield words.format(_named(_detection(f"table-{table}"), SELECTED)["image_auroc"][0])

    def part(table: str, name: str) -> float:
        return fmean(row["image_auroc"] for row in _detection(f"parts-{table}") if row["name"] == name)

    yield f"the network alone has {part('mvtec_screw', 'head'):.3f} and the memory bank alone {part('mvtec_screw', 'memory'):.3f}"
    yield f"{part('weave', 'head'):.3f} and {part('weave', 'memory'):.3f}"
    for table, words in (("mvtec_screw", "three fits has"), ("magnetic_tile", "and")):
        mean = _named(_detection(f"ensemble-{table}"), "mean of all")
        yield f"{words} {mean['image_auroc']:.3f} on the"
    for table, between in (
        ("crackforest_patches", "memory bank and filter bank have"),
        ("surface", "surface)"),
        ("magnetic_tile_by_tile", "they have"),
    ):
        rows = _detection(f"members-{table}")
        alone = [_named(rows, f"{name} alone") for name in ("network", "memory bank", "filter bank")]
        real = [row["image_auroc"] for row in alone]
        yield f"{between} {real[0]:.3f}, {real[1]:.3f} and {real[2]:.3f}"
        if table == "crackforest_patches":
            trial = [row["synthetic_auroc"] for row in alone]
            yield f"rank them {trial[0]:.3f}, {trial[1]:.3f} and {trial[2]:.3f}"
            yield f"{real[2]:.3f} beside {_named(rows, 'all, as fitted')['image_auroc']:.3f}"
        else:
            yield f"together {_named(rows, 'all, as fitted')['image_auroc']:.3f}"
    for table, between in (
        ("mvtec_screw", "the network alone has {:.3f} and the memory bank alone {:.3f}, together {:.3f}"),
        ("rod-tray-2m", "{:.3f} and {:.3f}, together {:.3f}"),
    ):
        rows = _detection(f"members-{table}")
        yield between.format(
            *(
                fmean(row["image_auroc"] for row in rows if row["name"] == name)
                for name in ("network alone", "memory bank alone", "all, as fitted")
            )
        )
    fitted = [row["kinds"] for row in rows if row["name"] == "all, as fitted"]
    kinds = {kind: f"{fmean(one[kind] for one in fitted):.3f}" for kind in fitted[0]}
    assert kinds["chip"] == kinds["filled_hole"] == kinds["stain"]
    yield (
        f"chips, filled holes and stains have an image AUROC of {kinds['chip']}, dents {kinds['dent']}, "
        f"scratches {kinds['scratch']}"
    )
    banks = _detection("extractors-mvtec_screw")
    bank = fmean(row["image_auroc"] for row in banks if row["name"] == "all three as in the default")
    default = fmean(_named(_detection("table-mvtec_screw"), "blemish")["image_auroc"])
    yield f"The bank alone has {bank:.3f} there, the whole default {default:.3f}"
    turned = [row["seen rejected"] for row in _detection("invariance-weave-2m") if row["name"] == "turned"]
    yield f"rejects {100 * fmean(turned):.0f} % of 40 good ones, {100 * max(turned):.0f} % with one seed"
    left_out = _json("benchmarks/results/detection-choice.json")
    means = left_out["mean_over_families"]
    assert {row["chosen"] for row in left_out["rows"]} == {"all, as fitted"}
    assert len({row["set"].split("-")[0] for row in left_out["rows"]}) == 8
    yield (
        f"{means['default']:.3f} in the mean over the families, where the best of each in hindsight, which nobody can choose, "
        f"has {means['best']:.3f}"
    )
    faint = _json("benchmarks/results/detection-members-figures-strength-0_3-2m.json")
    bank = fmean(row["kinds"]["stain"] for row in faint["rows"] if row["name"] == "colour bank alone")
    yield f"The bank alone sees {bank:.3f} of the faint stains"
    plain = _json("benchmarks/results/detection-members-mouldings-strength-0_3-2m.json")["trivial"]
    colour = _named(plain, "trivial: mean colour")["kinds"]
    yield f"sees {colour['darkened']:.3f} of the darkened and {colour['recoloured_whole']:.3f} of the recoloured"
    seconds = {
        name: fmean(row["fill_seconds"] for row in faint["costs"] if row["name"] == name)
        for name in ("colour bank", "memory bank")
    }
    yield f"{seconds['colour bank']:.1f} s of a fit on 120 images of figures"
    yield f"memory bank of structure takes {seconds['memory bank']:.1f} s"
    few = [
        fmean(row["auroc"] for row in _detection("few-mvtec_screw") if row["good"] == good)
        for good in (5, 20, 80)
    ]
    yield f"{few[0]:.2f} with 5 good images, {few[1]:.2f} with 20 and {few[2]:.2f} with 80"
    yield f"{_realised()} were rejected where 5 % were promised"


def _realised() -> str:
    rows = [row for row in _detection("rates-mvtec_screw") if row["kind"] == "images" and row["rate"] == 0.05]
    return f"{100 * fmean(row['realised_test'] for row in rows):.1f} %"


def readme_rows() -> Iterator[str]:
    """The README's one table of figures."""
    for table, first in (
        ("mvtec_screw", "| find defects of parts, 5 minutes of one core | MVTec screw |"),
        ("magnetic_tile_by_tile", "| the same, parts never seen before | magnetic tiles, split by tile |"),
        ("crackforest_patches", "| the same, no two images of one thing | cracks in roads |"),
        ("surface", "| the same, faint to plain defects of a stochastic surface | generated |"),
    ):
        row = _named(_detection(f"table-{table}"), "blemish")
        image, pixel = (spread(row[key], 3) for key in ("image_auroc", "pixel_auroc"))
        yield f"{first} image AUROC {image}, pixel AUROC {pixel} |"
    yield f"| MVTec screw, good test images, memory bank alone | {_realised()} rejected |"
    trimmed = [
        row
        for row in _detection("contamination-mvtec_screw")
        if (row["trimmed"], row["share"]) == ("both, auto", 0.1)
    ]
    good, found = (100 * fmean(row[key] for row in trimmed) for key in ("rejected_test", "found"))
    yield f"| {good:.1f} % of good and {found:.0f} % of defective images rejected |"
    rates = {
        (rate["encoder"], rate["measure"]): f"{rate['mean']:+.1f} %"
        for rate in _json("studies/results/jpeg-kodak.json")["rates"]
        if rate["anchor"] == "pillow-420"
    }
    own = ", ".join(
        rates[f"blemish-{tune}", measure]
        for tune, measure in (("psnr", "psnr_rgb"), ("ms-ssim", "ms_ssim"), ("ssimulacra2", "ssimulacra2"))
    )
    yield f"| Kodak, against Pillow | {own}, each with its own `--tune` |"
    largest = max(_json("benchmarks/results/panels.json")["runs"][0]["panels"], key=lambda size: size["side"])
    yield f"| generated panel | {largest['peak_mib']:.0f} MiB of memory |"


def test_the_table_of_processes_is_that_of_its_file() -> None:
    page = PAGES["docs/guides/processes.md"]
    for name, found in _json("benchmarks/results/training-processes.json")["recipes"].items():
        differences = found["largest relative difference"]
        cells = (f"{differences[way]:.0e}" for way in ("2 processes", "1, then 2", "2, then 1"))
        assert f"| {name} | {' | '.join(cells)} |" in page
        assert found["memory banks are equal bit for bit"]


@pytest.mark.parametrize("row", result_rows())
def test_every_figure_of_the_results_is_one_of_a_committed_file(row: str) -> None:
    assert row in RESULTS


@pytest.mark.parametrize("phrase", list(result_phrases()))
def test_figures_in_sentences_are_those_of_committed_files(phrase: str) -> None:
    assert phrase in " ".join(PAGES["docs/results/detection.md"].split())


@pytest.mark.parametrize("row", list(readme_rows()))
def test_every_figure_of_the_readme_is_one_of_a_committed_result(row: str) -> None:
    assert row in README


# -- comparisons in sentences --------------------------------------------------------------------------


class Screws:
    """Figures of Kumar et al. 2025 on the screws."""

    def __init__(self) -> None:
        self.document = _json("studies/results/kumar2025-mvtec_screw.json")
        self.rows: list[dict[str, Any]] = self.document["rows"]
        self.baselines: list[dict[str, Any]] = self.document["baselines"]
        self.recipes = list(dict.fromkeys(row["recipe"] for row in self.rows))

    def pixel(self, recipe: str) -> float:
        return fmean(row["pixel"]["auroc"] for row in self.rows if row["recipe"] == recipe)

    def image(self, recipe: str) -> float:
        return fmean(
            row["image"]["all"]["figures"]["auroc"]["value"] for row in self.rows if row["recipe"] == recipe
        )

    def best(self, recipe: str) -> float:
        """The best row without a network by the residual of ``recipe``."""
        return max(
            one["pixel"]["auroc"] for one in self.baselines if one["residual"] == recipe.rsplit("-", 1)[1]
        )

    def above(self) -> list[str]:
        return [recipe for recipe in self.recipes if self.pixel(recipe) > self.best(recipe)]

    def flat(self) -> dict[str, Any]:
        return next(one for one in self.baselines if (one["name"], one["residual"]) == ("flat grey", "mse"))


def _radli(part: str) -> dict[str, dict[str, list[str]]]:
    return separated(_json("studies/results/radli2022-mvtec_screw.json")["rows"], part)


def _of_screws(column: str, residual: str, area: str) -> list[float]:
    """An area of each seed of a column of the screws, by the map of ``residual``."""
    rows = _json("studies/results/radli2022-mvtec_screw.json")["rows"]
    own = [row for row in rows if (row["part"], row["column"]) == ("dataset", column)]
    return [row["areas"][residual][area] for row in own]


def _areas(residual: str) -> dict[str, float]:
    """Mean pixel AUROC of the columns of screws that are turned alone, by the map of ``residual``."""
    return {column: fmean(_of_screws(column, residual, "auroc")) for column in COLUMNS}


def _without_network(name: str, residual: str) -> float:
    rows = _json("studies/results/radli2022-mvtec_screw.json")["baselines"]
    return next(
        row["areas"][residual]["auroc"] for row in rows if (row["part"], row["name"]) == ("dataset", name)
    )


ALL_FIGURES = [
    "MSE",
    "SSIM",
    *(f"{curve} of {map} map" for map in ("SSIM", "MSE") for curve in ("ROC", "PRC", "IoU")),
]


def _textures() -> tuple[dict[str, dict[int, float]], dict[str, float]]:
    """Pixel AUROC of every recipe of Bergmann et al. 2018 by seed, and of every row without a network."""
    document = _json("studies/results/bergmann2018.json")
    found: dict[str, dict[int, float]] = {}
    for row in document["rows"]:
        found.setdefault(row["recipe"], {})[row["seed"]] = row["pixel"]["auroc"]
    baselines = {f"{one['name']}, {one['residual']}": one["pixel"]["auroc"] for one in document["baselines"]}
    return found, baselines


def _squared_lead_is_small() -> bool:
    found, baselines = _textures()
    lead = fmean(found["l2-ae"].values()) - max(baselines.values())
    return (
        all(fmean(seeds.values()) > max(baselines.values()) for seeds in found.values()) and 0 < lead < 0.03
    )


def _ssim_leads_everywhere() -> bool:
    found, _ = _textures()
    return all(
        value > max(found[other][seed] for other in found if other != "ssim-ae")
        for seed, value in found["ssim-ae"].items()
    )


def _xie(above: str, below: str, figure: str) -> dict[str, Any]:
    """A comparison of Xie et al. 2019 over all seeds."""
    claims: list[dict[str, Any]] = _json("studies/results/xie2019-cave_panels.json")["claims"]
    return next(
        one for one in claims if (one["above"], one["below"], one["figure"]) == (above, below, figure)
    )


def _xie_means() -> dict[str, float]:
    """Mean SSIM of the rows of the paper."""
    found: dict[str, list[float]] = {}
    document = _json("studies/results/xie2019-cave_panels.json")
    for row in document["rows"]:
        if row["row"] in document["published"]:
            found.setdefault(row["row"], []).append(row["ssim"])
    return {row: fmean(values) for row, values in found.items()}


def _xie_blur() -> float:
    rows = _json("studies/results/xie2019-cave_panels.json")["baselines"]
    return float(next(row["ssim"] for row in rows if row["name"] == "blurred by 4 pixels"))


def _imagenet_helps_the_loss() -> bool:
    rows = _json("benchmarks/results/pretrained_encoder.json")["rows"]
    imagenet, scratch = (
        next(row for row in rows if row["title"] == f"EfficientNet-Lite0, {start}")
        for start in ("ImageNet", "scratch")
    )
    losses = [f"{row['held_out']['lowest']:.3f}" for row in (imagenet, scratch)]
    gain = imagenet["pixel"]["auroc"] - scratch["pixel"]["auroc"]
    return len(rows) == 3 and losses == ["0.082", "0.092"] and 0 < gain < 0.01


def _filters_lead() -> bool:
    ahead = []
    for name in ("craquelure", "crackforest"):
        result = _json(f"benchmarks/results/few_labels-{name}.json")
        means = result["means"]["random forest"]
        for count, latent, one, both in zip(
            result["labels"], means["latent"], means["filters"], means["both"], strict=True
        ):
            if latent >= one:
                return False
            if both > one:
                ahead.append((name, count))
    return ahead == [("crackforest", 20)]


def _losses_fall() -> bool:
    rows = [row for row in Screws().rows if row["recipe"].startswith("cae-resnet50")]
    again = Screws().document["refitted"]
    falling = [
        row["held_out"]["last"] == row["held_out"]["lowest"] < row["held_out"]["first"] for row in rows
    ]
    return {row["recipe"] for row in rows} == set(again["recipes"]) and len(falling) == 2 and all(falling)


def _facts(part: str) -> dict[str, Any]:
    facts: dict[str, Any] = _json("studies/results/radli2022-mvtec_screw.json")["tests"][part]
    return facts


def _grey(part: str) -> float:
    return float(Screws().document["grey_levels"][part])


def _gains_over_linear(scenes: str, place: int) -> dict[str, float]:
    """SSIM from the others less that of linear regression, by modality: of the mean (0) or lowest seed (1)."""
    found = _json("benchmarks/results/modalities.json")[scenes]
    ours, linear = found["ssim"][found["recipe"]], found["ssim"]["linear regression"]
    return {name: values[place] - linear[name] for name, values in ours.items()}


def _layers_ahead() -> dict[str, set[str]]:
    """Measures in which the recipe's mean is above linear regression, by layer."""
    found = _json("benchmarks/results/modalities.json")["paintings"]
    return {
        layer: {
            measure
            for measure, value in own["linear regression"].items()
            if own[found["recipe"]][measure][0] > value
        }
        for layer, own in found["truth"].items()
    }


COMPARISONS: dict[str, Callable[[], bool]] = {
    "8 of the 12 recipes have a pixel AUROC no higher than the best of these rows by the same residual.": lambda: (
        len(Screws().recipes) - len(Screws().above()) == 8 and len(Screws().recipes) == 12
    ),
    "Above it are `dae-ssim`, `dae-resnet50-ssim`, `cae-ssim` and `cae-resnet50-ssim`, by less than 0.02.": lambda: (
        set(Screws().above()) == {"dae-ssim", "dae-resnet50-ssim", "cae-ssim", "cae-resnet50-ssim"}
        and max(Screws().pixel(one) - Screws().best(one) for one in Screws().recipes) < 0.02
    ),
    "The good test images of this set are darker than the training images and than the defective ones: their mean grey "
    "level alone separates them all.": lambda: (
        _grey("good") < min(_grey("train"), _grey("defective")) and Screws().document["brightness_auroc"] == 1
    ),
    "Flat grey has an image AUROC of 0.96 by the squared residual, above that of 10 of the 12 recipes.": lambda: (
        f"{Screws().flat()['image_auroc']:.2f}" == "0.96"
        and sum(Screws().image(one) < Screws().flat()["image_auroc"] for one in Screws().recipes) == 10
    ),
    "Their held-out losses fall from the first look to the last": _losses_fall,
    "On the cloth, pretrained and frozen is above the plain autoencoder with every seed in all eight figures, as the paper "
    "reports, and so is pretrained and fine-tuned.": lambda: (
        set(_radli("cloth")["frozen"]["better"])
        == set(ALL_FIGURES)
        == set(_radli("cloth")["finetuned"]["better"])
    ),
    "Joint training from random weights is in none of them, as the paper reports.": lambda: (
        _radli("cloth")["joint"]["better"] == []
    ),
    "On the screws no transformer is above the plain autoencoder with every seed in any figure, other than in the paper.": lambda: (
        not any(found["better"] for found in _radli("dataset").values())
        and PUBLISHED["screw"].ssim[1] > PUBLISHED["screw"].ssim[0]
    ),
    "Pretrained and frozen is below it with every seed in MSE and in the area under the MSE map's precision-recall curve, "
    "pretrained and fine-tuned in MSE and in the area under the MSE map's IoU curve; of the SSIM map no area differs by more than "
    "the seeds do.": lambda: (
        _radli("dataset")["frozen"]["worse"] == ["MSE", "PRC of MSE map"]
        and _radli("dataset")["finetuned"]["worse"] == ["MSE", "IoU of MSE map"]
        and not any(
            "SSIM map" in name
            for found in _radli("dataset").values()
            for some in found.values()
            for name in some
        )
    ),
    "Pretrained transformers bring the screws into one pose, with a spread below 7°.": lambda: (
        max(
            row["pose"]["spread"]
            for row in _json("studies/results/radli2022-mvtec_screw.json")["rows"]
            if row["part"] == "dataset" and row["column"] in ("frozen", "finetuned", "frozen-varied")
        )
        < 7
    ),
    "Where the patches are moved, scaled and sheared as well, pretrained and frozen is above the plain autoencoder with every "
    "seed in the area under the MSE map's precision-recall curve.": lambda: (
        min(_of_screws("frozen-varied", "MSE", "ap")) > max(_of_screws("plain-varied", "MSE", "ap"))
    ),
    "Every network's MSE map has a lower pixel AUROC on the turned screws than the blurred patch, 0.837; by the SSIM map all are "
    "above it, by less than 0.03.": lambda: (
        f"{_without_network('blurred by 4 pixels', 'MSE'):.3f}" == "0.837"
        and max(_areas("MSE").values()) < 0.837
        and all(
            0 < one - _without_network("blurred by 4 pixels", "SSIM") < 0.03
            for one in _areas("SSIM").values()
        )
    ),
    "32 of the 92 bad patches hold no defect pixel, so the areas under precision-recall and IoU curves are not those of "
    "the paper's unknown choice of patches; the table has both readings.": lambda: (
        (_facts("dataset")["empty"], _facts("dataset")["bad"]) == (32, 92)
    ),
    "`ssim-ae` is ahead of the three others with every seed.": _ssim_leads_everywhere,
    "All four are above every reconstruction without a network in pixel AUROC, the squared error of `l2-ae` by less than "
    "0.03.": _squared_lead_is_small,
    "At the paper's learning rates the fully partial network is above the normal one at the corners, with every seed, by "
    "0.096.": lambda: (
        _xie("fp-cae", "stacked-ae", "corner")["seeds"] == 3
        and f"{_xie('fp-cae', 'stacked-ae', 'corner')['difference']:.3f}" == "0.096"
    ),
    "Given the same learning rate, the interval of the difference holds 0.": lambda: (
        _xie("fp-cae", "stacked-ae-same-rate", "corner")["low"]
        < 0
        < _xie("fp-cae", "stacked-ae-same-rate", "corner")["high"]
    ),
    "Separate encoders whose features are concatenated are above the stacked fully partial network with every seed; those "
    "whose features are added are not.": lambda: (
        _xie("fp-cae-concat", "fp-cae", "ssim")["seeds"] == 3 > _xie("fp-cae-add", "fp-cae", "ssim")["seeds"]
    ),
    "A blur without any network is above `stacked-ae` and `pen-upde` in SSIM, at this length of training.": lambda: (
        {row for row, mean in _xie_means().items() if mean < _xie_blur()} == {"stacked-ae", "pen-upde"}
    ),
    "From ImageNet its held-out loss is lower than from scratch, 0.082 beside 0.092, and its pixel AUROC is higher by less "
    "than 0.01.": lambda: _imagenet_helps_the_loss(),
    "On them the recipe differs from linear regression by less than 0.002, and at 580, 620 and 700 nm linear regression is "
    "ahead.": lambda: (
        max(abs(gain) for name, gain in _gains_over_linear("panels", 0).items() if name != "rgb") < 0.002
        and {name for name, gain in _gains_over_linear("panels", 0).items() if gain < 0}
        == {"band_580nm", "band_620nm", "band_700nm"}
    ),
    "On `rgb` and on all modalities of the paintings the recipe is ahead with every seed.": lambda: (
        _gains_over_linear("panels", 1)["rgb"] > 0 and min(_gains_over_linear("paintings", 1).values()) > 0
    ),
    "Of the layers, overpainting in the X-ray and underdrawing stand out better from the recipe in both measures; for "
    "overpainting in infrared and for losses linear regression is ahead in both.": lambda: (
        _layers_ahead()
        == {
            "overpainting in the X-ray": {"auroc", "ap"},
            "overpainting in infrared": set(),
            "losses in the photograph": set(),
            "underdrawing in infrared": {"auroc", "ap"},
        }
    ),
    "Filters alone are ahead of latents at every number of labels; both together are ahead of filters on CrackForest with "
    "20 labels alone, so that filters are the default.": lambda: _filters_lead(),
}
"""Sentences of the page on studies that compare, each with a check of the committed figures."""
COMPARING = r"\b(?:above|below|ahead|higher|lower|better|worse|opposite|than|reaches)\b"
UNCOMPARED = {
    "The machine had no GPU, so trainings are shorter than the papers'; each whole table says how much.",
    "Rows without a network stand in each table of defects: a network that is not above them has shown nothing of what it "
    "learned.",
}
"""Sentences with such a word that speak of no figure."""


@pytest.mark.parametrize("sentence", list(COMPARISONS))
def test_a_comparison_on_the_page_of_studies_holds_in_the_committed_figures(sentence: str) -> None:
    assert sentence in " ".join(PAGES["docs/results/studies.md"].split())
    assert COMPARISONS[sentence]()


def test_every_comparison_on_the_page_of_studies_is_checked() -> None:
    prose = re.sub(r"^\|.*\|$", "", PAGES["docs/results/studies.md"], flags=re.MULTILINE)
    prose = re.sub(r"\*\*[^*]+\*\*|^#.*$", "", prose, flags=re.MULTILINE)
    sentences = re.split(r"(?<=[.:])\s+(?=[A-Z`\d(])", " ".join(prose.split()))
    comparing = [one for one in sentences if re.search(COMPARING, one)]
    assert len(comparing) >= 12
    known = " ".join([*COMPARISONS, *UNCOMPARED])
    assert [one for one in comparing if one not in known] == []


@pytest.mark.parametrize(
    "path",
    [path for path in sorted((ROOT / "studies/results").glob("*.json")) if study_of(path)],
    ids=lambda one: one.stem,
)
def test_the_page_of_a_study_is_made_from_its_figures(path: Path) -> None:
    assert page_of(path, json.loads(path.read_text(encoding="utf-8"))) == path.with_suffix(".md").read_text(
        encoding="utf-8"
    )


def test_the_changelog_has_the_version() -> None:
    assert f"version {blemish.__version__}" in PAGES["CHANGELOG.md"]


def test_every_written_table_of_results_is_on_a_page() -> None:
    included = set(re.findall(r"^```\{include\} ../../(.*)$", RESULTS, flags=re.MULTILINE))
    written = {
        path.relative_to(ROOT).as_posix()
        for folder in ("benchmarks/results", "studies/results")
        for path in (ROOT / folder).glob("*.md")
    }
    assert included == written


def test_every_limit_is_on_the_page_of_security() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([\d,.]+) \|", PAGES["SECURITY.md"], flags=re.MULTILINE)
    stated = {name: float(value.replace(",", "")) for name, value in rows}
    assert stated == {
        name: float(value) for name, value in vars(limits).items() if name.isupper() and name[0] != "_"
    }


@pytest.mark.parametrize(("name", "table"), [("faults-files", files_table), ("faults", hunts_table)])
def test_tables_of_fault_hunts_are_those_of_their_files(name: str, table: Callable[[Any], str]) -> None:
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert path.with_suffix(".md").read_text(encoding="utf-8") == table(document)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks/results").glob("archive-*.json")), ids=lambda path: path.stem
)
def test_tables_of_archives_are_those_of_their_files(path: Path) -> None:
    table = {"archive-kills": kills_of_archives, "archive-throughput": throughput_table}[path.stem]
    assert path.with_suffix(".md").read_text(encoding="utf-8") == table(
        json.loads(path.read_text(encoding="utf-8"))
    )


@pytest.mark.parametrize(
    "module", [modalities, missing_modalities, registration], ids=lambda one: one.__name__
)
def test_tables_of_scenes_are_those_of_their_files(module: Any) -> None:
    path = ROOT / "benchmarks" / "results" / f"{module.__name__.partition('.')[2]}.json"
    found = module.markdown(json.loads(path.read_text(encoding="utf-8")))
    assert path.with_suffix(".md").read_text(encoding="utf-8") == found


# -- links ---------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The names that a link into a page can end with: slugs of its headings, and ``(name)=``."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"^\(([\w.-]+)\)=$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", PAGES)
def test_links_and_images_exist(name: str) -> None:
    page = ROOT / name
    prose = re.sub(r"^```(?!\{).*?^```$", "", PAGES[name], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)]+)\)", prose):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{name} links to {target}"


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = {"docs/index.md"}
    for name, text in PAGES.items():
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
            entries = [line for line in block.split("\n") if line and not line.startswith(":")]
            listed |= {((Path(name).parent / entry).with_suffix(".md")).as_posix() for entry in entries}
    assert {name for name in PAGES if name.startswith("docs/")} == listed - {"docs/reference/index.md"}


# -- what pages state about the package ----------------------------------------------------------------


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("name", ["README.md", "docs/recipes.md"])
def test_every_recipe_is_in_the_table_of_methods(name: str) -> None:
    listed = re.findall(r"`([\w-]+…?)`", PAGES[name])
    for recipe in (*recipe_names(), *deep_recipe_names()):
        assert any(
            recipe == entry or (entry.endswith("…") and recipe.startswith(entry[:-1])) for entry in listed
        ), recipe


def test_every_setting_on_the_page_of_recipes_is_one() -> None:
    table = PAGES["docs/recipes.md"].partition("## Settings")[2]
    settings = [
        key
        for row in re.findall(r"^\| (`[^|]+) \|", table, flags=re.MULTILINE)
        for key in row.split("`")[1::2]
    ]
    assert len(settings) >= 20
    for setting in settings:
        model: Any = Recipe
        for key in setting.split("."):
            assert issubclass(model, BaseModel)
            assert key in model.model_fields, f"there is no setting {setting}"
            model = model.model_fields[key].annotation


def test_every_message_of_the_troubleshooting_is_one_of_the_package() -> None:
    literals = {
        node.value
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    table = PAGES["docs/troubleshooting.md"].partition("## Questions")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)
    assert len(messages) >= 15
    assert [message for message in messages if not any(message in text for text in literals)] == []


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> Any:
    """The extension that writes the API reference."""
    return _module(DOCS / "_ext" / "reference.py")


def test_the_reference_lists_the_public_names(reference: Any) -> None:
    page = reference.public_page([])
    listed = re.findall(r"^\| (?:\{py:\w+\})?`blemish\.(\w+)", page, flags=re.MULTILINE)
    assert listed == blemish.__all__
    assert all(
        line.count("|") == 3 and line.split("|")[2].strip()
        for line in page.split("\n")
        if "`blemish." in line
    )


def test_names_of_the_package_on_the_pages_exist() -> None:
    pages = "\n".join(text for name, text in PAGES.items() if name not in HISTORY)
    names = set(re.findall(r"`(blemish(?:\.\w+)+)[`(]", pages))
    assert len(names) >= 3
    for name in names:
        value: Any = blemish
        for part in name.split(".")[1:]:
            value = getattr(value, part, None) or importlib.import_module(f"{value.__name__}.{part}")


def test_files_of_the_project_on_the_pages_exist() -> None:
    pages = "\n".join(PAGES.values())
    files = set(re.findall(r"`((?:\.?\w+/)+\w+\.(?:py|json|yaml|md))`", pages)) - {"path/to/my.yaml"}
    written = {
        file for file in files if "NAME" in file or file.split("/")[0] in {"model", "found", "demo", "small"}
    }
    assert len(files - written) >= 40
    below = (ROOT, ROOT / "src" / "blemish", DOCS)
    assert [
        file for file in sorted(files - written) if not any((root / file).exists() for root in below)
    ] == []


def test_every_contract_of_the_architecture_is_where_it_is_said_to_be() -> None:
    table = PAGES["docs/architecture.md"].partition("## Contracts")[2]
    rows = re.findall(r"^\| `(\w+)` \| `([\w/.]+)` \|", table, flags=re.MULTILINE)
    assert len(rows) >= 10
    for name, file in rows:
        tree = ast.parse((ROOT / "src" / "blemish" / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_every_test_that_a_page_names_is_one() -> None:
    named = {name for text in PAGES.values() for name in re.findall(r"`(test_\w+)`", text)}
    tests = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(named) >= 3
    assert named <= tests


def test_every_module_has_a_room_in_the_reference(reference: Any) -> None:
    rooms = yaml.safe_load((DOCS / "rooms.yaml").read_text(encoding="utf-8"))
    modules = reference.package_modules(ROOT / "src" / "blemish")
    found = reference.modules_by_room(rooms, modules)  # raises for a module without a room, and the reverse
    assert sorted(module for some in found.values() for module in some) == modules
    with pytest.raises(ValueError, match="no room for the module elsewhere"):
        reference.modules_by_room(rooms, [*modules, "elsewhere"])


@pytest.fixture(scope="module")
def plan() -> Any:
    """``tests/test_rooms.py``, which finds the imports of the package."""
    return _module(ROOT / "tests" / "test_rooms.py")


def test_the_diagram_of_rooms_shows_every_room_and_imports_go_down(plan: Any) -> None:
    diagram = (DOCS / "architecture.svg").read_text(encoding="utf-8")
    boxes = re.findall(r'data-rooms="([^"]+)" x="\d+" y="(\d+)"', diagram)
    heights = {room: int(y) for rooms, y in boxes for room in rooms.split()}
    boxed = {room: rooms for rooms, _ in boxes for room in rooms.split()}
    assert set(heights) == {plan.room(name) for name in plan.MODULES} - {""}
    assert len(heights) == sum(len(rooms.split()) for rooms, _ in boxes)
    climbs = [
        (found.importer, found.imported)
        for found in plan.IMPORTS
        if found.when != "checked"
        and (here := plan.room(found.importer))
        and (there := plan.room(found.imported))
        if boxed[here] != boxed[there] and heights[here] >= heights[there]
    ]
    assert climbs == []


def test_the_table_of_rooms_names_every_room(plan: Any) -> None:
    table = PAGES["docs/architecture.md"].partition("## Contracts")[0]
    listed = {
        name
        for row in re.findall(r"^\| (`[^|]+) \|", table, flags=re.MULTILINE)
        for name in row.split("`")[1::2]
    }
    rooms = {name.partition("/")[0] for name in listed}
    assert rooms | {"_version", "__main__"} == {plan.room(name) for name in plan.MODULES} - {""}


@pytest.mark.parametrize("name", sorted(set(PAGES) - INCLUDING))
def test_the_pages_use_the_words_of_the_field(name: str) -> None:
    prose = re.sub(r"^```.*?^```$|`[^`]*`", "", PAGES[name], flags=re.DOTALL | re.MULTILINE)
    assert re.findall(rf"\b(?:{AVOIDED})\b", prose, flags=re.IGNORECASE) == []


def test_the_citation_file_is_complete() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == blemish.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["type"] in {"software", "dataset"}


def test_ratios_of_the_suite_are_those_of_the_results() -> None:
    sections = json.loads((ROOT / "benchmarks/results/suite.json").read_text(encoding="utf-8"))["sections"]

    def ratio(section: str, name: str, key: str, task: str = "") -> float:
        (row,) = [
            row
            for row in sections[section]["rows"]
            if row["name"] == name and key in row and task in row.get("task", "")
        ]
        return float(row[key]["median"])

    page = " ".join(PAGES["docs/results/suite.md"].split())
    rate = 1 / ratio("recipes", "ssim-ae", "time beside l2-ae")
    assert f"not reached.** It is {rate:.0%}".replace("%", " %") in page
    others = [
        ratio("similarity", name, "time beside blemish", "gradient")
        for name in ("pytorch-msssim", "torchmetrics", "piq")
    ]
    assert f"take {min(others):.1f} to {max(others):.1f} times as long" in page
    shares = [
        100 * ratio("utilisation", f"training step, {name}", "share of the peak")
        for name in ("l2-ae", "ssim-ae")
    ]
    assert "`l2-ae` has {:.0f} % and `ssim-ae` {:.0f} %".format(*shares) in page
    alone = {
        name: ratio("utilisation", f"training step, {name}, operations alone", "share of the peak")
        for name in ("l2-ae", "blemish")
    }
    assert f"alone, one after the other, have {100 * alone['l2-ae']:.0f} %" in page
    assert f"the operations alone have {100 * alone['blemish']:.0f} % of the peak" in page
    quarter = ratio("utilisation", "training step, blemish", "share of the peak") / alone["blemish"]
    assert quarter == pytest.approx(0.25, abs=0.03)
    inspection = {
        name: ratio("recipes", name, "time beside blemish", "inspection")
        for name in ("anomalib PatchCore, ResNet-18", "anomalib PaDiM, ResNet-18", "ssim-ae")
    }
    patch_core, padim, ssim_ae = inspection.values()
    assert (
        f"takes {1 / patch_core:.1f} times as long as anomalib's PatchCore and {1 / padim:.1f} times" in page
    )
    assert f"`ssim-ae` takes {ssim_ae:.2f} of the default's time" in page
    peak = 100 * ratio("utilisation", "inspection, blemish", "share of the peak")
    assert f"it runs at {peak:.0f} % of the peak" in page


def test_the_memory_of_the_jpeg_encoder_is_that_of_the_results() -> None:
    memory = _json("benchmarks/results/jpeg.json")["memory"]
    words = (
        f"Memory is {memory['bytes_per_pixel']:.0f} bytes a pixel and {memory['constant_megabytes']:.0f} MB."
    )
    assert words in PAGES["docs/results/jpeg.md"]


def test_the_cost_of_600_megapixels_is_that_of_the_results() -> None:
    runs = _json("benchmarks/results/panels.json")["runs"]
    (found,) = [one for run in runs if run.get("workers") == 2 for one in run["panels"]]
    assert round(found["megapixels"]) == 600
    page = " ".join(PAGES["docs/results/performance.md"].split())
    assert (
        f"take {found['core_minutes']:.0f} core-minutes, {found['peak_mib']:.0f} MiB in the first process and "
        f"{found['peak_mib_of_a_worker']:.0f} MiB in each of the others; {100 * found['share_computing']:.0f} %"
    ) in page


def test_openvino_is_as_quick_as_the_page_of_exports_says() -> None:
    rows = _json("benchmarks/results/export-recipes.json")["rows"]
    quick = {row["recipe"]: row["times_as_quick_as_torch"] for row in rows if row["runtime"] == "openvino"}
    assert quick.keys() >= {"blemish", "ssim-ae", "fp-cae-add", "filter-bank"}
    assert {name for name, times in quick.items() if times < 1} == {"filter-bank"}
    onnx = [row["times_as_quick_as_torch"] for row in rows if row["runtime"] == "onnx"]
    assert sum(times >= 1 for times in onnx) > len(onnx) / 2


def test_registration_misses_its_goal_as_the_page_says() -> None:
    found = _json("benchmarks/results/registration.json")["registration"]
    missed = {title: one["bands"] - one["within half a pixel"] for title, one in found.items()}
    assert {title: count for title, count in missed.items() if count} == {"another crop, scaled by 1.33": 1}
    assert "half a pixel is missed by one band of another crop" in " ".join(
        PAGES["docs/results/scenes.md"].split()
    )


def test_few_labels_are_those_of_the_results() -> None:
    """Every row of the table."""
    page = (ROOT / "docs" / "results" / "studies.md").read_text(encoding="utf-8")
    words = {"latent": "latents", "filters": "filters", "both": "latents and filters", "raw": "raw pixels"}
    truths = {"craquelure": "craquelure, by an algorithm", "crackforest": "CrackForest, by hand"}
    found = [name for name in truths if (ROOT / f"benchmarks/results/few_labels-{name}.json").is_file()]
    assert found
    for name in found:
        result = _json(f"benchmarks/results/few_labels-{name}.json")
        means, spread = result["means"]["random forest"], result["spread"]["random forest"]
        assert result["labels"] == [5, 20, 100, 500]
        for features, word in words.items():
            cells = (
                f"{mean:.2f} ± {one:.2f}" for mean, one in zip(means[features], spread[features], strict=True)
            )
            assert f"| {truths[name]} | {word} | {' | '.join(cells)} |" in page
