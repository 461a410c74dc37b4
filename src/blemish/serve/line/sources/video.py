"""Video file as a source: its frames one after the other, each once, also over restarts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blemish.errors import ServeError
from blemish.extras import explain_missing
from blemish.serve.contracts import Frame
from blemish.serve.line.done_log import DoneImage, DoneLog
from blemish.serve.line.source_settings import VideoSettings

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg,mxf,wav,gif,h264,hevc,mjpeg,m4v,mpegvideo,ivf,obu"
"""Formats of files that are opened. Left out: lists, which name other files or addresses to open."""
LOCAL = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}


class VideoSource:
    """Gives the frames of a video file, one in ``every_nth``, as fast as they are taken.

    A frame's number is made of the file's name, size and time, and the number of the frame in it, so that after a restart
    the file goes on where it was, and nothing is stored twice.

    Parameters
    ----------
    log: file that notes which frame was done last.
    """

    is_live = False

    def __init__(self, settings: VideoSettings, path: Path, log: Path) -> None:
        self.name = settings.name
        self.path = path
        self._settings = settings
        self._log = DoneLog(log)
        self._given: dict[str, DoneImage] = {}
        self._closed = threading.Event()
        self._state: dict[str, Any] = {"is_ready": False, "message": "", "frame": 0}

    def frames(self) -> Iterator[Frame | None]:
        """Frames in their order; they end with the file, unless it is repeated.

        Raises
        ------
        ServeError
            When the file cannot be read, is no video, or is damaged.
        MissingExtraError
            Without PyAV.
        """
        with explain_missing():
            import av
        repeat = 0
        while not self._closed.is_set():
            try:
                state = self.path.stat()
            except OSError as error:
                raise self._fault(f"cannot be read ({error.strerror}); check the path") from None
            last = (
                -1
                if self._settings.repeat
                else self._log.last_frame(self.path.name, state.st_size, state.st_mtime_ns)
            )
            count = 0
            try:
                with closing(av.open(str(self.path), options=dict(LOCAL))) as container:
                    for number, frame in enumerate(_decoded(container)):
                        count += 1
                        if self._closed.is_set():
                            return
                        if number <= last or number % self._settings.every_nth:
                            continue
                        self._state |= {"is_ready": True, "message": "", "frame": number}
                        image = DoneImage(
                            name=self.path.name, size=state.st_size, changed=state.st_mtime_ns, frame=number
                        )
                        request = f"{self.name}/{image.name}/{image.size}/{image.changed}/{number}"
                        if self._settings.repeat:
                            made = Frame(
                                pixels_of(frame, self._settings.colour),
                                f"{image.name}-{number:06d}",
                                self.name,
                            )
                        else:
                            made = Frame(
                                pixels_of(frame, self._settings.colour),
                                f"{image.name}-{number:06d}",
                                self.name,
                                request=request,
                            )
                            self._given[request] = image
                        yield made
            except (av.error.FFmpegError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise self._fault(
                    f"is no video that can be read to its end ({reason}); convert it to MP4"
                ) from None
            if not count:
                raise self._fault("has no frames; record it again")
            repeat += 1
            if not self._settings.repeat:
                self._state |= {"is_ready": False, "message": f"{self.path.name}: all frames were given"}
                return

    def fire(self) -> None:
        """Nothing to do: the next frame is there."""

    def done(self, frame: Frame) -> None:
        """Note the frame, so that a restart goes on after it."""
        image = self._given.pop(frame.request, None)
        if image is not None:
            self._log.add(image)

    def refused(self, frame: Frame, reason: str) -> None:
        """Note the frame as done, and show the reason."""
        self.done(frame)
        self._state |= {"message": reason}

    def state(self) -> dict[str, Any]:
        """Whether frames come, and the number of the last one."""
        return dict(self._state)

    def close(self) -> None:
        """End after the frame that is given."""
        self._closed.set()

    def _fault(self, problem: str) -> ServeError:
        message = f"{self.path}: {problem}"
        self._state |= {"is_ready": False, "message": message}
        return ServeError(message)


def _decoded(container: InputContainer) -> Iterator[VideoFrame]:
    if not container.streams.video:
        raise ValueError("it has no images")
    container.streams.video[0].thread_type = "AUTO"
    yield from container.decode(video=0)


def pixels_of(frame: VideoFrame, colour: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Pixels of a decoded frame: (H, W, 3) in RGB order, or (H, W) of a grey one, in 16 bits where it has more than 8."""
    if colour == "rgb":
        rgb: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
        return rgb
    deep = any(component.bits > 8 for component in frame.format.components)
    grey: NDArray[np.uint8] | NDArray[np.uint16] = frame.to_ndarray(format="gray16le" if deep else "gray")
    return grey
