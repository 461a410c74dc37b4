"""Images in the body of a request: a form with one or many files, or one image as it is."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from blemish.data.opening import image_format
from blemish.errors import printable
from blemish.serve.api.problems import Refusal
from blemish.serve.service import NAME_CHARACTERS
from blemish.serve.settings import RequestLimits

FIELDS = 16
"""Fields of a form that are no files."""
_NAME = re.compile(r"[^/\\]*\Z")

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            **{
                f"image/{kind}": {"schema": {"type": "string", "format": "binary"}}
                for kind in ("png", "jpeg", "tiff", "bmp", "webp")
            },
        },
    }
}
"""The body for OpenAPI, in which a form and a raw body cannot be declared by parameters."""


class Upload:
    """One image: its content, and what the client calls it, which is text and never a path."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self.content = name, content


async def read_uploads(request: Request, limits: RequestLimits, name: str | None = None) -> list[Upload]:
    """The images of a request, in memory; ``name`` is that of an image that is the body itself.

    Raises
    ------
    Refusal
        400 for a form that cannot be read or holds no file, 413 for too many files, and those of the limits on bodies.
    """
    kind, _ = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"multipart/form-data":
        return await _files(request, limits)
    content = await request.body()
    if not content:
        raise Refusal(400, "the body is empty", "send the content of an image file, or a form with images")
    # curl --data-binary says that what it sends is a form of text.
    if kind == b"application/x-www-form-urlencoded" and image_format(content[:64]) is None:
        raise Refusal(
            415,
            "the form cannot hold files",
            "send it as multipart/form-data, or the image itself as the body",
        )
    return [Upload(plain_text(name or "") or "image", content)]


async def _files(request: Request, limits: RequestLimits) -> list[Upload]:
    parser = _InMemory(
        request.headers,
        request.stream(),
        max_files=limits.files,
        max_fields=FIELDS,
        max_part_size=limits.body_bytes,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise Refusal(
                413,
                f"the form holds more than the {limits.files} files allowed",
                "send them in several requests",
            ) from None
        raise Refusal(400, f"the form cannot be read ({printable(error.message)})", "send it again") from None
    except (KeyError, UnicodeDecodeError, ValueError, LookupError) as error:  # of headers that are none
        reason = printable(str(error))[:100]
        raise Refusal(400, f"the form cannot be read ({reason})", "send it again") from None
    found = []
    try:
        for number, (_, value) in enumerate(form.multi_items()):
            if isinstance(value, UploadFile):
                name = plain_text(value.filename or "") or f"image-{number + 1}"
                found.append(Upload(name, await value.read()))
    finally:
        await form.close()
    if not found:
        raise Refusal(400, "the form holds no file", "send images as files of the field images")
    return found


class _InMemory(MultiPartParser):
    """Parser whose files stay in memory: they are bounded already, and the disk may be full."""

    spool_max_size = 2**62


def plain_text(name: str) -> str:
    """The last part of a name that a client gave, as a line of text.

    >>> plain_text("../../etc/passwd"), plain_text(r"C:\\parts\\a.png"), plain_text("a%0Ab.png")
    ('passwd', 'a.png', 'a\\\\nb.png')
    """
    found = _NAME.search(unquote(name))
    return printable(found[0] if found else "")[:NAME_CHARACTERS].strip()
