"""Command of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blemish.cli.session import say


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL…", help="Folders that blemish export or fit made, or NAME=FOLDER for another name."
        ),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(
            help="Folder of history, kept images, versions of models and log. [default: blemish-line]"
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on; any but this machine's own needs a key. [default: 127.0.0.1]"
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes one that is free. [default: 8000]")] = None,
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File that holds the key that requests must give.")
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(metavar="URL", help="PostgreSQL for the history, instead of SQLite in the home folder."),
    ] = None,
    line: Annotated[
        Path | None, typer.Option(metavar="line.yaml", help="Sources and sinks of the line.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Images that are inspected at one time. [default: one per core]")
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file of these and further settings; options here go first."),
    ] = None,
) -> None:
    """Serve models over HTTP: images in, decisions out, with a history and a page."""
    from blemish.extras import explain_missing

    with explain_missing():
        from blemish.serve.http_server import run
        from blemish.serve.logs import LOGGER, close_log, open_log
        from blemish.serve.server import open_server
        from blemish.serve.settings import models_of, read_settings
        from blemish.storage.leftovers import remove_temporary_folders

        given = {
            "models": models_of(models) if models else None,
            "home": home,
            "host": host,
            "port": port,
            "key_file": key_file,
            "history": history,
            "line": line,
            "workers": workers,
        }
        found = read_settings(settings, given)
        found.access_key()
        remove_temporary_folders()
        handlers = open_log(found.home, found.log)
        try:
            with open_server(found) as server:

                def started(addresses: list[str]) -> None:
                    LOGGER.info(
                        "started", extra={"fields": {"addresses": addresses, "models": list(server.models)}}
                    )
                    say(f"Serving {', '.join(server.models)} at {' and '.join(addresses)}; stop with Ctrl-C")

                run(server, started)
                left = server.stop()
                LOGGER.info("stopped", extra={"fields": {"images_not_finished": left}})
        finally:
            close_log(handlers)
