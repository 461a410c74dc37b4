"""Does an encoder that begins with ImageNet weights help a denoising autoencoder? The question of Kumar et al. 2025.

    python -m benchmarks.pretrained_encoder DATA/mvtec_screw

The same EfficientNet-Lite0 from its package's weights and from scratch, and the paper's plain encoder, all with the loss and
map SSIM, equally long, with three seeds; beside them the reconstructions without a network. Finished fits are kept in
``--work``, so a stopped run goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from blemish.inspection.document import versions
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from blemish.storage.atomic import write_json, write_text
from blemish.training.device import choose_machine
from studies.baselines import kept_baselines
from studies.protocol import commit, comparison, record, spread, table

ROWS = {
    "plain encoder": ("dae-ssim", ()),
    "EfficientNet-Lite0, ImageNet": ("dae-efficientnet-ssim", ("encoder.weights=package",)),
    "EfficientNet-Lite0, scratch": ("dae-efficientnet-ssim", ("encoder.weights=none",)),
}
SETTINGS = (
    "threshold.hold_out=false",
    "image.size=128",
    "patch.size=128",
    "patch.stride=128",
    "training.batch=16",
    "training.steps=200",
    "training.validate_every=40",
    "training.learning_rate=1e-3",
    "training.schedule=cosine",
)
RESULTS = Path(__file__).parent / "results"


class Said(Observer):
    """Prints what begins."""

    def stage(self, text: str) -> None:
        print(text, flush=True)


def page(figures: dict[str, Any]) -> str:
    """The table, from the figures alone."""
    keys = {"pixel AUROC": "auroc", "AUPRO 0.3": "aupro_30"}
    lines = []
    for name in figures["titles"]:
        own = [row for row in figures["rows"] if row["title"] == name]
        image = [row["image"]["all"]["figures"]["auroc"]["value"] for row in own]
        cells = [spread([row["pixel"][key] for row in own]) for key in keys.values()]
        losses = [row["held_out"]["lowest"] for row in own]
        lines.append([name, str(len(own)), *cells, spread(image), spread(losses)])
    for one in figures["baselines"]:
        if one["residual"] == "ssim":
            cells = [spread([one["pixel"][key]]) for key in keys.values()]
            lines.append([one["name"], "–", *cells, spread([one["image_auroc"]]), "–"])
    columns = ["encoder", "seeds", *keys, "image AUROC", "held-out loss"]
    return (
        f"# Does a pretrained encoder help a denoising autoencoder, on {figures['dataset']}\n\n"
        f"Loss and map SSIM, images of 128 × 128 pixels, 200 steps of batch 16; mean over seeds (smallest to largest). The last "
        f"rows have no network. {figures['machine']}.\n\n" + table(columns, lines)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder in the MVTec layout")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--work", type=Path, default=Path("runs/pretrained_encoder"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    observer = Said()
    rows: list[dict[str, Any]] = []
    for seed in map(int, options.seeds.split(",")):
        for title, (recipe, own) in ROWS.items():
            work = options.work / title.replace(", ", "-").replace(" ", "-")
            found = comparison(work, options.dataset, {recipe: own}, (seed,), SETTINGS, observer)
            rows += [{"title": title, **record(run)} for run in found.runs]
    plain = override(load_recipe("dae-ssim"), list(SETTINGS))
    figures = {
        "command": f"python -m benchmarks.pretrained_encoder {options.dataset.name} --seeds {options.seeds}",
        "dataset": options.dataset.resolve().name,
        "settings": list(SETTINGS),
        "machine": str(choose_machine()),
        "versions": versions(),
        "commit": commit(),
        "titles": list(ROWS),
        "rows": rows,
        "baselines": kept_baselines(options.work, options.dataset, plain, observer),
    }
    write_json(options.out / "pretrained_encoder.json", figures)
    write_text(options.out / "pretrained_encoder.md", page(figures))
    print(page(figures))


if __name__ == "__main__":
    main()
