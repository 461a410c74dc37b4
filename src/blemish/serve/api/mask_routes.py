"""Routes of the judged area of a model: what of an image counts."""

from __future__ import annotations

from typing import Annotated

import imagecodecs
import numpy as np
from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from blemish.data.opening import image_format
from blemish.errors import BlemishError, FileError
from blemish.serve.api.problems import Refusal, answers
from blemish.serve.area_drawing import AreaDrawing, area_of_image, drawing_of
from blemish.serve.served_mask import MaskState, ServedMask
from blemish.serve.server import Server

router = APIRouter(tags=["models"], responses=answers(401, 404))

Name = Annotated[str, Path(max_length=100)]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": AreaDrawing.model_json_schema()},
            "image/png": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.get("/api/models/{name}/mask")
def mask(request: Request, name: Name) -> MaskState:
    """The judged area, and what its threshold promises."""
    return _found(_server(request), name).state()


@router.get(
    "/api/models/{name}/mask.png",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "White where it is judged."}},
)
def mask_image(request: Request, name: Name) -> Response:
    """The judged area as an image, white where it is judged."""
    area = _found(_server(request), name).area
    if area is None:
        raise Refusal(404, f"the model {name} judges whole images", "put a mask first")
    marked = area.mask(area.height, area.width)
    content = bytes(imagecodecs.png_encode(marked.astype(np.uint8) * 255))
    return Response(content, media_type="image/png")


@router.put("/api/models/{name}/mask", responses=answers(403, 413, 422), openapi_extra=_BODY)
async def put_mask(request: Request, name: Name) -> MaskState:
    """Judge an area alone from the next image on: polygons in JSON, or an image that marks it by any value but 0.

    The threshold is that of whole images at first, and calibrated on the stored good images then; see ``state``.
    """
    server = _server(request)
    found = _found(server, name)
    content = await request.body()

    def put() -> MaskState:
        try:
            if image_format(content[:64]) is not None:
                found.put(area_of_image(content), None)
            else:
                drawing = drawing_of(content)
                found.put(drawing.area(), drawing)
        except FileError:
            raise
        except BlemishError as error:
            problem, _, remedy = str(error).removeprefix("--mask: ").partition("; ")
            raise Refusal(422, problem, remedy or None) from None
        server.masks.wake()
        server.live.publish("model", {"model": name, "threshold": found.served.detector.threshold})
        return found.state()

    return await run_in_threadpool(put)


@router.delete("/api/models/{name}/mask", responses=answers(403))
def remove_mask(request: Request, name: Name) -> MaskState:
    """Judge whole images again, by their own calibration."""
    server = _server(request)
    found = _found(server, name)
    found.remove()
    server.live.publish("model", {"model": name, "threshold": found.served.detector.threshold})
    return found.state()


def _found(server: Server, name: str) -> ServedMask:
    server.models.named(name)  # says which there are, where there is none of this name
    return server.masks[name]


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server
