"""An archive on a local Ray cluster: the command line, and then its records as a log that end states are compared by.

Parts of the results are of a few images each, so that kills fall between them; which images share a part depends on the time.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from tests.faults.end_state import VOLATILE

RECORDS = Path("records.jsonl")
PART = 2
"""Images of a part of the results, at least."""


def run_and_list(out: Path = Path("out")) -> None:
    """Run the command line, which writes to ``out``; where it succeeds, write its records to :data:`RECORDS`."""
    import blemish.cli.archives
    from blemish.__main__ import main
    from blemish.scale.archive_folder import archive_tables
    from blemish.scale.cluster import JobSettings
    from blemish.scale.tables import CPU_SECONDS

    # A module of which no option changes the size of the parts.
    vars(blemish.cli.archives)["JobSettings"] = partial(JobSettings, part=PART)
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    rows = [row for table in archive_tables(out) for row in table.to_pylist()]
    kept = [{key: value for key, value in row.items() if key not in VOLATILE | {CPU_SECONDS}} for row in rows]
    lines = sorted(json.dumps(row, sort_keys=True, default=str) for row in kept)
    RECORDS.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
