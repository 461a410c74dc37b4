"""Network cameras and webcams as sources, by PyAV, which is FFmpeg."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from blemish.extras import explain_missing
from blemish.serve.line.secrets import resolved, without_password
from blemish.serve.line.source_settings import StreamSettings, WebcamSettings
from blemish.serve.line.sources.latest import CameraLostError, CameraSource, Pixels, Shot
from blemish.serve.line.sources.video import pixels_of

NETWORK = "http,https,tcp,tls,rtp,rtsp,rtsps,udp,srt,crypto,httpproxy"
"""Protocols that a stream may use; none of them reads files of this machine, whatever a playlist names."""
OPEN_SECONDS = 10.0
_WEBCAMS = {"linux": "v4l2", "win32": "dshow", "darwin": "avfoundation"}


def stream_source(settings: StreamSettings, key: str) -> CameraSource:
    """A network camera.

    Parameters
    ----------
    key: of the description, for errors.

    Raises
    ------
    ServeError
        When a secret is not set.
    MissingExtraError
        Without PyAV.
    """
    with explain_missing():
        import av  # noqa: F401
    url = resolved(settings.url, f"{key}.url")
    options = {
        "protocol_whitelist": NETWORK,
        "fflags": "nobuffer",
        "flags": "low_delay",
        "analyzeduration": "1000000",
    }
    if url.startswith("rtsp"):
        options["rtsp_transport"] = settings.transport
    opened = partial(_open, url, None, options, settings.colour, settings.silence, without_password(url))
    return CameraSource(settings.name, opened, settings.waiting)


def webcam_source(settings: WebcamSettings, *, driver: str | None = None) -> CameraSource:
    """A camera at this machine.

    Parameters
    ----------
    driver: input device of FFmpeg, such as ``v4l2``; None is that of the system.
    """
    with explain_missing():
        import av  # noqa: F401
    driver = driver or _WEBCAMS.get(sys.platform, "v4l2")
    device = f"video={settings.device}" if driver == "dshow" else settings.device
    options = {}
    if settings.size is not None:
        options["video_size"] = f"{settings.size[0]}x{settings.size[1]}"
    if settings.rate is not None:
        options["framerate"] = f"{settings.rate:g}"
    opened = partial(_open, device, driver, options, settings.colour, settings.silence, settings.device)
    return CameraSource(settings.name, opened, settings.waiting)


@contextmanager
def _open(
    address: str, driver: str | None, options: dict[str, str], colour: str, silence: float, shown: str
) -> Iterator[Iterator[Shot | None]]:
    """Shots of a camera until it is lost.

    Raises
    ------
    CameraLostError
        When it cannot be opened, or gives nothing for ``silence`` seconds.
    """
    import av

    try:
        with closing(
            av.open(address, format=driver, options=options, timeout=(max(OPEN_SECONDS, silence), silence))
        ) as container:
            if not container.streams.video:
                raise CameraLostError(f"{shown}: has no images; check the address of the stream")
            stream = container.streams.video[0]
            # Each part of a Motion JPEG stream is an image file, which is passed on as it came, but for colours that are not wanted.
            is_files = container.format.name == "mpjpeg" and colour == "rgb"

            def shots() -> Iterator[Shot]:
                for packet in container.demux(stream):
                    if is_files and packet.size:
                        yield partial(_same, bytes(packet))
                        continue
                    for frame in packet.decode():
                        yield partial(_pixels, frame, colour, shown)

            yield shots()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise CameraLostError(
            f"{shown}: {_PLAIN.get(reason, reason)}; it is tried again; check the camera and its cable"
        ) from None


_PLAIN = {"Immediate exit requested": "gives no frame in time", "End of file": "has ended its stream"}
"""Words of FFmpeg in others."""


def _same(content: bytes) -> Pixels:
    return content


def _pixels(frame: object, colour: str, shown: str) -> Pixels:
    try:
        return pixels_of(frame, colour)
    except ValueError as error:
        raise CameraLostError(f"{shown}: has frames of a kind that cannot be converted ({error})") from None
