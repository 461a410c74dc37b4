"""Commands that list what there is: recipes, and the packages and memory of this machine."""

from __future__ import annotations

import typer

from blemish.cli.options import Json
from blemish.cli.session import print_json, print_recipes, say


def recipes(as_json: Json = False) -> None:
    """List the recipes, their papers, and the requirements of each."""
    from blemish.recipes import load_recipe, recipe_names

    print_recipes([load_recipe(name) for name in recipe_names()], as_json=as_json)


def checks(as_json: Json = False) -> None:
    """List the packages, memory and GPU of this machine, and how to get those that are missing."""
    from dataclasses import asdict

    from blemish.checks import run_checks

    found = run_checks()
    if as_json:
        print_json([{**asdict(check), "mend": check.remedy} for check in found])  # "mend": name until 0.1
    else:
        for check in found:
            mark, remedy = ("ok", "") if check.ok else ("--", f"; {check.remedy}")
            say(f"{mark}  {check.name:<22} {check.found}{remedy}")
    if not all(check.ok for check in found):
        raise typer.Exit(1)
