"""Hunt by damaged files: ``python -m tests.faults --help``, run at the root of the checkout.

Kills, full disks and changed inputs: ``python -m benchmarks.faults``.
"""

from __future__ import annotations

import argparse
import sys

from tests.faults.fuzz import add_fuzz


def main() -> int:
    """Run the command that the arguments name; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    add_fuzz(subparsers)
    options = parser.parse_args()
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
