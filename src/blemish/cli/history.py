"""Commands of the history: export, backup, restore, clean-up, report."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blemish.cli.options import Json
from blemish.cli.session import print_json, say, working
from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish.serve.history import HistoryFilter

app = typer.Typer(
    name="history",
    help="Export, back up and restore the history of a server, and remove old images from it.",
    no_args_is_help=True,
)

MOST_DAYS = 36_500
"""A hundred years; and gigabytes."""

Home = Annotated[Path, typer.Option("--home", help="Home folder of the server.")]
Where = Annotated[
    str | None,
    typer.Option(
        "--history", metavar="URL", help="URL of PostgreSQL, where the history is not in the home folder."
    ),
]
Model = Annotated[str | None, typer.Option("--model", help="Decisions of this model alone.")]
Source = Annotated[str | None, typer.Option("--source", help="Decisions on images of this source alone.")]
Since = Annotated[
    datetime | None, typer.Option("--since", help="Decisions from this time on, in UTC, such as 2026-03-02.")
]
Until = Annotated[datetime | None, typer.Option("--until", help="Decisions before this time, in UTC.")]


@app.command(
    epilog="Examples: `blemish history export --out history.csv` · "
    "`blemish history export --since 2026-03-02 --rejected --out week.parquet`"
)
def export(
    out: Annotated[Path, typer.Option("--out", help="File to write: .csv or .parquet.")],
    home: Home = Path("blemish-line"),
    history: Where = None,
    model: Model = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
    rejected: Annotated[
        bool | None, typer.Option("--rejected/--accepted", help="Rejected or accepted images alone.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export decisions as a table, beside a running server."""
    suffix = out.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UsageError(f"--out {out}: name a file that ends in .csv or .parquet")
    with working(quiet=as_json):
        from blemish.serve.history import History
        from blemish.serve.history.export import write_csv, write_parquet

        wanted = _filter(model, source, since, until, rejected)
        with History.open(history or home, exclusive=False) as opened:
            count = (write_csv if suffix == ".csv" else write_parquet)(opened, out, wanted)
    if as_json:
        print_json({"file": str(out), "decisions": count})
    else:
        say(f"{out}: {count} decisions")


@app.command(epilog="Example: `blemish history backup --home line --out backup-2026-03-02`")
def backup(
    out: Annotated[Path, typer.Option("--out", help="New folder for the backup.")],
    home: Home = Path("blemish-line"),
    history: Where = None,
    as_json: Json = False,
) -> None:
    """Back up the history with its kept images, beside a running server."""
    with working(quiet=as_json):
        from blemish.serve.history import IMAGES
        from blemish.serve.history.backup import back_up

        manifest = back_up(history or home, home / IMAGES, out)
    if as_json:
        print_json({"backup": str(out), **manifest.model_dump(mode="json")})
    else:
        say(f"Backup: {out} ({manifest.in_words()})")


@app.command(epilog="Example: `blemish history restore backup-2026-03-02 --home line`")
def restore(
    backup: Annotated[Path, typer.Argument(help="Folder that blemish history backup made.")],
    home: Home = Path("blemish-line"),
    history: Where = None,
    as_json: Json = False,
) -> None:
    """Restore a backup to a place without a history; from SQLite to PostgreSQL as well, and back."""
    with working(quiet=as_json):
        from blemish.serve.history import IMAGES
        from blemish.serve.history.backup import restore as run

        manifest = run(backup, history or home, home / IMAGES)
    if as_json:
        print_json({"home": str(home), **manifest.model_dump(mode="json")})
    else:
        say(f"Restored: {home} ({manifest.in_words()})")


@app.command(
    epilog="Examples: `blemish history prune --image-days 30 --image-gigabytes 50` · "
    "`blemish history prune --decision-days 730`"
)
def prune(
    home: Home = Path("blemish-line"),
    history: Where = None,
    image_days: Annotated[
        float | None, typer.Option("--image-days", help="Remove images that are older than these days.")
    ] = None,
    image_gigabytes: Annotated[
        float | None,
        typer.Option(
            "--image-gigabytes", help="Remove the oldest images until the others take no more than this."
        ),
    ] = None,
    judged_image_days: Annotated[
        float | None,
        typer.Option(
            "--judged-image-days", help="Days of images with a verdict; they are kept without end otherwise."
        ),
    ] = None,
    decision_days: Annotated[
        float | None, typer.Option("--decision-days", help="Remove decisions that are older than these days.")
    ] = None,
    judged_too: Annotated[
        bool, typer.Option("--judged-too", help="Remove old decisions with a verdict as well.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove old images and decisions, the oldest first; what a sink is still owed stays."""
    given = {
        "image_days": image_days,
        "image_gigabytes": image_gigabytes,
        "judged_image_days": judged_image_days,
        "decision_days": decision_days,
    }
    if all(value is None for value in given.values()):
        raise UsageError("prune removes nothing without a rule; give --image-days or --image-gigabytes")
    for name, value in given.items():
        if value is not None and not (0 if name == "image_gigabytes" else 1e-6) <= value <= MOST_DAYS:
            raise UsageError(f"--{name.replace('_', '-')}: write a number above 0, up to {MOST_DAYS}")
    with working(quiet=as_json):
        from blemish.serve.history import IMAGES, History, KeptImages, RetentionRule
        from blemish.serve.history import prune as run

        rule = RetentionRule(
            image_days=image_days,
            image_bytes=None if image_gigabytes is None else round(image_gigabytes * 1e9),
            judged_image_days=judged_image_days,
            decision_days=decision_days,
            keep_judged=not judged_too,
        )
        with History.open(history or home, exclusive=False) as opened:
            removed = run(opened, KeptImages(home / IMAGES), rule)
    if as_json:
        print_json(removed._asdict())
    else:
        say(removed.in_words())


@app.command(
    epilog="Example: `blemish history labels --out labelled`, then `blemish evaluate exported labelled/labels.csv` and "
    "`blemish fit labelled/train/good --continue model --defects labelled/labels.csv --out newer`"
)
def labels(
    out: Annotated[Path, typer.Option("--out", help="New folder for the labelled images.")],
    home: Home = Path("blemish-line"),
    history: Where = None,
    model: Model = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
    test_share: Annotated[
        float,
        typer.Option(
            "--test-share",
            min=0,
            max=1,
            help="Share of the judged images that stay unseen by fits; fits from the page leave out a half.",
        ),
    ] = 0.5,
    as_json: Json = False,
) -> None:
    """Write images with an operator's verdict as a labelled data set, with masks of the defects that were drawn."""
    with working(quiet=as_json):
        from blemish.serve.history import IMAGES, History, KeptImages
        from blemish.serve.verdicts import write_labelled

        wanted = _filter(model, source, since, until, None)
        with History.open(history or home, exclusive=False) as opened:
            counts = write_labelled(opened, KeptImages(home / IMAGES), out, wanted, test_share=test_share)
    if as_json:
        print_json({"folder": str(out), **counts.model_dump()})
    else:
        say(f"{out}: {counts.in_words()}")


@app.command(
    epilog="Examples: `blemish history report --out week.html` · "
    "`blemish history report --week 2026-03-02 --language de --out week.eml --from line@example.com --to qm@example.com`, "
    "then `sendmail -t < week.eml`"
)
def report(
    out: Annotated[Path, typer.Option("--out", help="File to write: .html, or .eml for an e-mail.")],
    home: Home = Path("blemish-line"),
    history: Where = None,
    week: Annotated[
        datetime | None,
        typer.Option(
            "--week", formats=["%Y-%m-%d"], help="Any day of the week; by default the last whole week."
        ),
    ] = None,
    language: Annotated[
        str, typer.Option("--language", help="Language of the report, such as en or de.")
    ] = "en",
    models: Annotated[
        Path | None,
        typer.Option(
            "--models", help="Folder of the models, for their promise; by default those of the server."
        ),
    ] = None,
    sender: Annotated[str, typer.Option("--from", metavar="ADDRESS", help="Sender of the e-mail.")] = "",
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="ADDRESS", help="Receivers of the e-mail.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a week: rejects, overturned decisions, the promise, drift; days are those of this machine."""
    if out.suffix.lower() not in (".html", ".eml"):
        raise UsageError(f"--out {out}: name a file that ends in .html or .eml")
    with working(quiet=as_json):
        from blemish.serve.history import IMAGES, History, KeptImages
        from blemish.serve.weekly_figures import read_calibrations, week_of
        from blemish.serve.weekly_report import weekly_report

        begin, end = week_of(date.today() - timedelta(days=7) if week is None else week.date())
        with History.open(history or home, exclusive=False) as opened:
            made = weekly_report(
                opened,
                KeptImages(home / IMAGES),
                begin,
                end,
                calibrations=read_calibrations(home / "models" if models is None else models),
                language=language,
            )
        made.write(out, sender, to or [])
    if as_json:
        figures = made.figures
        print_json(
            {
                "file": str(out),
                "since": figures.since.isoformat(),
                "until": figures.until.isoformat(),
                "decisions": figures.decisions,
                "rejected": figures.rejected,
                "judged": figures.judged,
                "false_rejects": figures.false_rejects,
                "missed": figures.missed,
            }
        )
    else:
        say(f"{made.text()}Report: {out}")


def _filter(
    model: str | None,
    source: str | None,
    since: datetime | None,
    until: datetime | None,
    rejected: bool | None,
) -> HistoryFilter:
    from blemish.serve.history import HistoryFilter

    return HistoryFilter(
        model=model,
        source=source,
        since=None if since is None else since.replace(tzinfo=timezone.utc),
        until=None if until is None else until.replace(tzinfo=timezone.utc),
        is_anomalous=rejected,
    )
