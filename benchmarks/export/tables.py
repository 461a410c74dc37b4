"""Results of the benchmarks of exported models as tables in Markdown."""

from __future__ import annotations

from typing import Any

Rows = list[dict[str, Any]]
RUNTIMES = {"torch": "torch", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}


def markdown(question: str, document: dict[str, Any]) -> str:
    """All tables of one question, under the command that made them."""
    head = f"`{document['command']}`, on {document['machine']}:\n"
    return "\n".join([head, *TABLES[question](document)])


def _table(columns: list[str], rows: list[list[object]], texts: int = 1) -> str:
    """A table whose first columns, ``texts`` of them, are text and the others figures."""
    rule = ["---"] * texts + ["---:"] * (len(columns) - texts)
    lines = [columns, rule, *([str(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _parity(document: dict[str, Any]) -> list[str]:
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in document["rows"]:
        found.setdefault((row["recipe"], row["images"]), {})[row["runtime"]] = row
    rows: list[list[object]] = []
    for (recipe, images), own in found.items():
        figures = [f"{own[runtime][key]:.0e}" for runtime in ("onnx", "openvino") for key in ("score", "map")]
        same = "yes" if all(one["same_decisions"] for one in own.values()) else "no"
        rows.append([f"`{recipe}`", images, *figures, same])
    columns = ["recipe", "images", "ONNX score", "map", "OpenVINO score", "map", "same decisions"]
    return [_table(columns, rows, texts=2)]


def _ratios(rows: Rows, first: str) -> str:
    """Milliseconds in torch and in the runtimes, each with how many times as quick it is."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row.get(first, "a folder"), {})[row["runtime"]] = row
    lines: list[list[object]] = []
    for name, own in found.items():
        shown = f"`{name}`" if first == "recipe" else name
        cells = [
            f"{own[runtime]['milliseconds']:.0f} ({own[runtime]['times_as_quick_as_torch']:.2f})"
            for runtime in ("onnx", "openvino")
        ]
        lines.append([shown, f"{own['torch']['milliseconds']:.0f}", *cells])
    return _table([first, "torch, ms", "ONNX Runtime, ms (times as quick)", "OpenVINO"], lines)


def _speed(document: dict[str, Any]) -> list[str]:
    parts = [
        "From file to decision, the default recipe:\n",
        _ratios(document["whole"], "images"),
        "`blemish inspect` of a folder, an image, with records, maps and report:\n",
        _ratios(document["folders"], "folder"),
        "Where it goes, stages one after another:\n",
    ]
    stages: dict[tuple[str, str], dict[str, float]] = {}
    for row in document["stages"]:
        stages.setdefault((row["images"], row["stage"]), {})[row["runtime"]] = row["milliseconds"]
    lines: list[list[object]] = [
        [images, stage, f"{own['torch']:.1f}", f"{own['onnx']:.1f}"]
        for (images, stage), own in stages.items()
    ]
    parts.append(_table(["images", "stage", "torch, ms", "ONNX Runtime, ms"], lines, texts=2))
    return parts


def _recipes(document: dict[str, Any]) -> list[str]:
    return [_ratios(document["rows"], "recipe")]


def _precision(document: dict[str, Any]) -> list[str]:
    lines: list[list[object]] = [
        [
            f"`{row['recipe']}`",
            RUNTIMES[row["runtime"]],
            row["precision"],
            f"{row['graphs_megabytes']:.1f}",
            f"{row['milliseconds']:.0f}",
            f"{row['image_auroc']:.3f}",
            f"{100 * row['good_rejected']:.1f} %",
        ]
        for row in document["rows"]
    ]
    columns = ["recipe", "runtime", "precision", "graphs, MB", "ms", "image AUROC", "good rejected"]
    return [_table(columns, lines, texts=3)]


def _peers(document: dict[str, Any]) -> list[str]:
    lines: list[list[object]] = [
        [
            row["model"],
            f"{row['milliseconds']:.0f}",
            f"{row['times_as_quick_as_patchcore']:.1f}",
            f"{row['times_as_quick_as_padim']:.2f}",
        ]
        for row in document["rows"]
    ]
    return [_table(["model", "ms", "times as quick as PatchCore", "as PaDiM"], lines)]


TABLES = {
    "parity": _parity,
    "scenes": _parity,
    "speed": _speed,
    "recipes": _recipes,
    "precision": _precision,
    "peers": _peers,
}
