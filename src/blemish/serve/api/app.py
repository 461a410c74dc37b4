"""Application: all routes of a server, with limits, access and observation around them."""

from __future__ import annotations

from fastapi import FastAPI

from blemish._version import __version__
from blemish.serve.api import (
    access,
    decisions,
    export,
    fit_routes,
    health,
    images,
    inspection,
    line_routes,
    live_events,
    mask_routes,
    model_routes,
    models,
    page,
    page_views,
    report,
)
from blemish.serve.api.access import Access, AccessControl
from blemish.serve.api.bodies import BodyLimits, HeldBytes
from blemish.serve.api.observing import Observing
from blemish.serve.api.problems import answers, handle_errors
from blemish.serve.api.reference import mount_reference
from blemish.serve.server import Server

ROUTERS = (
    inspection.router,
    decisions.router,
    images.router,
    export.router,
    report.router,
    models.router,
    model_routes.router,
    mask_routes.router,
    fit_routes.router,
    page_views.router,
    page.router,
    line_routes.router,
    live_events.router,
    access.router,
    health.router,
)

ANYWHERE = (400, 401, 403, 408, 413, 421, 429, 503)
"""Statuses that any route may answer with, from the limits and the access around it."""


def create_app(server: Server) -> FastAPI:
    """The application of an open server.

    Examples
    --------
    >>> with open_server(settings) as server:  # doctest: +SKIP
    ...     uvicorn.run(create_app(server))
    """
    app = FastAPI(
        title="Blemish",
        version=__version__,
        description="Inspection on the line: images in, decisions out.",
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        responses=answers(*ANYWHERE),
    )
    app.state.server = server
    app.state.access = Access(server.key, (*server.settings.allowed_hosts, server.settings.host))
    for router in ROUTERS:
        app.include_router(router)
    mount_reference(app)
    handle_errors(app)
    # The last one added is the first that a request meets.
    app.add_middleware(
        BodyLimits,
        limits=server.settings.limits,
        held=HeldBytes(server.settings.limits.held_bytes, server.metrics),
    )
    app.add_middleware(AccessControl, access=app.state.access)
    app.add_middleware(Observing, metrics=server.metrics)
    return app
