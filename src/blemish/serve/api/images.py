"""Routes of the images of decisions: as they came, their anomaly maps as numbers, and overlays to look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from blemish.data.opening import image_format
from blemish.serve.api.problems import Refusal, answers
from blemish.serve.contracts import StoredDecision
from blemish.serve.server import Server

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "WebP": "image/webp",
    "GIF": "image/gif",
    "PNM": "image/x-portable-anymap",
    "JPEG 2000": "image/jp2",
}
"""By the content of the file; never by what its sender called it."""
LARGEST = 2**53

router = APIRouter(tags=["history"], responses=answers(401, 404, 422))

Number = Annotated[int, Path(ge=0, le=LARGEST)]
_ANY_IMAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}, "description": "The file as it came."}
}
_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "PNG."}}


@router.get("/api/decisions/{number}/image", response_class=Response, responses=_ANY_IMAGE)
def image(request: Request, number: Number) -> Response:
    """The image file as it came; a camera's image as PNG."""
    content = _found(request, number, lambda server, one: server.images.content(one))
    return _answer(content, MEDIA_TYPES.get(image_format(content[:64]) or "", "application/octet-stream"))


@router.get("/api/decisions/{number}/map", response_class=Response, responses=_PNG)
def anomaly_map(request: Request, number: Number) -> Response:
    """The anomaly map as a PNG of 16 bits; its text ``blemish:scale`` is the value of one count."""
    return _answer(_found(request, number, lambda server, one: server.images.map_file(one)), "image/png")


@router.get("/api/decisions/{number}/overlay", response_class=Response, responses=_PNG)
def overlay(request: Request, number: Number) -> Response:
    """The image with heat where the map is above the threshold, and a numbered box around each region."""
    return _answer(_found(request, number, lambda server, one: server.images.overlay(one)), "image/png")


def _found(request: Request, number: int, find: Callable[[Server, StoredDecision], bytes | None]) -> bytes:
    server: Server = request.app.state.server
    content = find(server, server.history.decision(number))
    if content is None:
        raise Refusal(
            404,
            f"the image of decision {number} is not kept",
            f"it is kept by the rule: {server.settings.keep.in_words()}; see keep and retention in the settings",
        )
    return content


def _answer(content: bytes, kind: str) -> Response:
    # A decision never changes. That its image is removed one day, a page that is open need not notice.
    return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=86400"})
