"""Tables and plots of the suite, made from its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TITLES = {
    "similarity": "SSIM beside other implementations",
    "pixels": "Pixel metrics beside other implementations",
    "recipes": "Fit and inspection beside anomalib",
    "jpeg": "JPEG beside other encoders",
    "utilisation": "Utilisation: FLOP/s over those of the machine's own matrix product at the same precision",
    "growth": "Growth of costs: slopes on logarithmic axes",
    "profile": "Profiles",
}
LISTED = 10


def markdown(document: dict[str, Any]) -> str:
    """All tables, each under the command that makes it alone."""
    parts = [
        f"Made by `{document['command']}`, on {document['machine']}. Ratios are medians of rounds, with their range.\n"
    ]
    for name, section in document["sections"].items():
        parts.append(f"**{TITLES[name]}** (`{section['command']}`)\n")
        parts.append(_profile(section) if name == "profile" else _rows(section["rows"]))
        if section["missing"]:
            reasons = "; ".join(f"{peer}: {why}" for peer, why in section["missing"].items())
            parts.append(f"Left out: {reasons}.\n")
    return "\n".join(parts)


def _rows(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "task"))
    found = []
    for task in dict.fromkeys(row.get("task") for row in rows):
        own = [row for row in rows if row.get("task") == task]
        shown = [column for column in columns if any(column in row for row in own)]
        table = _table(shown, [[_cell(row.get(column)) for column in shown] for row in own])
        found.append(f"{task}:\n\n{table}" if task else table)
    return "\n".join(found)


def _profile(section: dict[str, Any]) -> str:
    found = []
    for row in section["rows"]:
        for kind in ("operations", "functions"):
            cells = [
                [f"`{one['name']}`", str(one["calls"]), f"{100 * one['share']:.1f} %"]
                for one in row[kind][:LISTED]
            ]
            words = (
                "own time of operations" if kind == "operations" else "time of functions with all they call"
            )
            found.append(
                f"{row['name']}, {row['seconds']:.3g} s, {words}:\n\n{_table([kind, 'calls', 'share'], cells)}"
            )
    return "\n".join(found)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (columns, rule, *rows))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict) and "median" in value:
        return f"{value['median']:.3g} ({value['low']:.3g} to {value['high']:.3g})"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {one['median']:.3g}" for key, one in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def plot(path: Path, document: dict[str, Any]) -> None:
    """Ratios with their range as bars, a panel a task, and the growth of costs as lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    tasks: dict[str, list[tuple[str, dict[str, float]]]] = {}
    for section in document["sections"].values():
        for row in section["rows"]:
            for key, value in row.items():
                if key.startswith("time beside") or key == "share of the peak":
                    title = f"{row.get('task', 'utilisation')}:\n{key}"
                    tasks.setdefault(title, []).append((row["name"], value))
    growth = document["sections"].get("growth", {"rows": []})["rows"]
    panels = len(tasks) + bool(growth)
    if not panels:
        return
    figure = Figure(figsize=(9, 2.4 * panels), layout="constrained")
    every = figure.subplots(panels, 1, squeeze=False)[:, 0]
    for axes, (title, bars) in zip(every, tasks.items(), strict=False):
        middle = [value["median"] for _, value in bars]
        below = [value["median"] - value["low"] for _, value in bars]
        above = [value["high"] - value["median"] for _, value in bars]
        axes.barh([name for name, _ in bars], middle, xerr=[below, above], color="#7a9cc6")
        axes.invert_yaxis()
        if "share" not in title:
            axes.set_xscale("log")
            axes.axvline(1, color="black", lw=0.8)
            _plain_numbers(axes.xaxis)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
    if growth:
        axes = every[-1]
        for row in growth:
            sizes = [int(size) for size in row["milliseconds"]]
            times = [one["median"] for one in row["milliseconds"].values()]
            label = f"{row['name']} by {row['by']}: {row['slope']['median']:.2f}"
            axes.loglog(
                [size / sizes[0] for size in sizes],
                [one / times[0] for one in times],
                marker="o",
                ms=3,
                label=label,
            )
        axes.set(xlabel="size over the smallest", ylabel="time over the first")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize=7, ncols=2)
        _plain_numbers(axes.xaxis)
        _plain_numbers(axes.yaxis)
    figure.savefig(path, dpi=90)


def _plain_numbers(axis: Any) -> None:
    """Write the numbers of a logarithmic axis as 1, 2 and 5 in place of powers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
