"""Routes of the page: its files and messages, which need no key and hold nothing of the line."""

from __future__ import annotations

import hashlib

from fastapi import APIRouter, Request, Response

from blemish.serve.api.problems import Refusal
from blemish.serve.page_files import catalogue, languages, page_files

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Nothing is loaded from elsewhere, and no script or style stands in a page."""

router = APIRouter(include_in_schema=False)


@router.get("/")
def index(request: Request) -> Response:
    """The page."""
    return _file(request, "index.html")


@router.get("/page/messages.json")
def message_languages() -> dict[str, list[dict[str, str]]]:
    """Languages that there are messages in."""
    return {"languages": languages()}


@router.get("/page/messages/{language}.json")
def messages(language: str) -> dict[str, str]:
    """Messages of one language."""
    try:
        return catalogue(language)
    except KeyError:
        raise Refusal(404, "there is no catalogue of this language") from None


@router.get("/page/{name:path}")
def file(request: Request, name: str) -> Response:
    """A file of the page."""
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    if name not in page_files():
        raise Refusal(404, "the page has no such file")
    content, kind = page_files()[name]
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    # A browser asks each time, so that a new version of the package shows at once.
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)
