"""Requests generated from the server's own OpenAPI description, and images with damaged bytes, in this process."""

from __future__ import annotations

import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import schemathesis
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from schemathesis import Case, GenerationMode
from schemathesis.python.asgi import HOST, get_client
from schemathesis.specs.openapi import checks

from benchmarks.export.models import fitted, grey
from blemish.data.image import read_image
from blemish.export.export_model import export_model
from blemish.serve.api.app import create_app
from blemish.serve.server import open_server
from blemish.serve.settings import read_settings

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WebP", "PPM")
ENDLESS = ("/api/live",)
"""Routes whose answer has no end."""
INSPECT = "/api/inspect"
SMALL = ("encoder.latent=8", "patch.size=32", "patch.stride=32")
MOST_FAILURES, MOST_TURNS = 50, 1000
CHECKS = (checks.content_type_conformance, checks.response_schema_conformance, checks.status_code_conformance)
"""Beside that no answer is of 500 or more: every answer is one that the description has."""


class Fuzzed:
    """What the answers were."""

    def __init__(self) -> None:
        self.routes: dict[str, Counter[str]] = defaultdict(Counter)
        self.failures: dict[str, str] = {}
        """The first of each kind, by where it happened."""

    @property
    def requests(self) -> int:
        return sum(sum(one.values()) for one in self.routes.values())

    @property
    def server_errors(self) -> int:
        return sum(
            count for one in self.routes.values() for status, count in one.items() if int(status) >= 500
        )

    def add(self, route: str, status: int, problem: str | None) -> None:
        """Count one answer."""
        self.routes[route][str(status)] += 1
        if problem is not None and len(self.failures) < MOST_FAILURES:
            self.failures.setdefault(f"{route} {status} {problem.splitlines()[0][:100]}", problem[:2000])

    def figures(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "requests": self.requests,
            "server_errors": self.server_errors,
            "routes": {route: dict(sorted(one.items())) for route, one in sorted(self.routes.items())},
            "failures": list(self.failures.values()),
        }


def fuzz_app(app: FastAPI, requests: int, seed: int, pixels: NDArray[np.uint8], model: str) -> Fuzzed:
    """Send at least ``requests``, as many to each route: invalid ones, valid ones, valid ones of what is there, and damaged images.

    Parameters
    ----------
    app: of an open server, which answers to :data:`HOST`.
    pixels: (H, W), an image that its model takes, which is written in several formats and damaged in random places.
    model: name of its model.
    """
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [one.ok() for one in schema.get_all_operations()]
    operations = [one for one in operations if one.path not in ENDLESS]
    files = [_file(pixels, kind) for kind in FORMATS]
    found = Fuzzed()
    each = -(-requests // (len(operations) + 1))
    with get_client(app) as client:

        def ask(case: Case) -> None:
            route = f"{case.method} {case.path}"
            try:
                response = case.call(session=client)
            except Exception:  # of the application itself, which a server answers with 500
                found.add(route, 500, f"{traceback.format_exc(limit=-4)}\n{case.as_curl_command()}")
            else:
                found.add(route, response.status_code, _problem(case, response))

        def send(content: bytes, as_form: bool) -> None:
            address = f"http://{HOST}{INSPECT}"
            if as_form:
                response = client.post(address, files={"images": ("x.png", content)})
            else:
                response = client.post(address, data=content)
            problem = response.text if response.status_code >= 500 else None
            found.add(f"POST {INSPECT} of damaged images", response.status_code, problem)

        whole = client.post(f"http://{HOST}{INSPECT}", data=files[0])
        assert whole.status_code == 200, whole.text
        there: dict[str, Any] = {"number": 1, "name": model}
        for operation in operations:
            asked = _run(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), ask, each // 2, seed)
            known = {name: value for name, value in there.items() if f"{{{name}}}" in operation.path}
            if known:
                # Random numbers and names are those of nothing, so that the routes behind them would not be reached.
                asked += _run(operation.as_strategy(path_parameters=known), ask, each // 4, seed)
            _run(operation.as_strategy(), ask, each - asked, seed)
        damage = st.tuples(st.sampled_from(files).flatmap(damaged), st.booleans())
        _run(damage, lambda pair: send(*pair), each, seed)
    return found


def _file(pixels: NDArray[np.uint8], kind: str) -> bytes:
    written = BytesIO()
    Image.fromarray(pixels).save(written, kind)
    return written.getvalue()


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """``content`` with some bytes changed, cut out or doubled."""
    place = st.integers(0, len(content) - 1)
    changes = st.lists(st.tuples(place, st.sampled_from("xcd"), st.integers(0, 255)), min_size=1, max_size=8)

    def applied(those: list[tuple[int, str, int]]) -> bytes:
        new = bytearray(content)
        for where, kind, value in those:
            if where >= len(new):
                continue
            if kind == "x":
                new[where] = value
            elif kind == "c":
                del new[where : where + value]
            else:
                new[where:where] = new[where : where + value]
        return bytes(new)

    return changes.map(applied)


def _run(strategy: st.SearchStrategy[Any], ask: Callable[[Any], None], count: int, seed: int) -> int:
    """Ask for ``count`` values of a strategy, again with other seeds where it has fewer that differ; how many there were."""
    asked = 0

    def counted(value: Any) -> None:
        nonlocal asked
        asked += 1
        ask(value)

    for turn in range(MOST_TURNS):
        if asked >= count:
            break
        settings = hypothesis.settings(
            max_examples=count - asked,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        try:
            hypothesis.seed(seed + turn)(settings(hypothesis.given(strategy)(counted)))()
        except hypothesis.errors.Unsatisfiable:  # a route without anything that can be invalid
            break
    return asked


def _problem(case: Case, response: Any) -> str | None:
    if response.status_code >= 500:
        return f"{response.text[:500]}\n{case.as_curl_command()}"
    try:
        case.validate_response(response, checks=list(CHECKS))
    except BaseException as error:  # groups of failures are no ordinary exceptions
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return str(error)
    return None


def fuzz(requests: int, seed: int) -> dict[str, Any]:
    """Figures of a server of a small model."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = grey(work)
        fitted("ssim-ae", data / "train" / "good", work / "torch", *SMALL)
        export_model(work / "torch", work / "model")
        path = min((data / "test" / "good").iterdir())
        settings = read_settings(
            None, {"models": {"model": work / "model"}, "home": work / "home", "allowed_hosts": (HOST,)}
        )
        with open_server(settings) as server:
            found = fuzz_app(create_app(server), requests, seed, read_image(path).pixels[0], "model")
            stored = sum(1 for _ in server.history.all())
        tools = {"schemathesis": schemathesis.SCHEMATHESIS_VERSION, "hypothesis": hypothesis.__version__}
        return {**found.figures(), "decisions_in_the_history": stored, "tools": tools}
