"""Industrial cameras as sources: GigE Vision, USB3 Vision and others, by harvesters and the makers' GenTL producers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blemish.errors import MissingExtraError
from blemish.extras import explain_missing
from blemish.serve.line.source_settings import GenicamSettings
from blemish.serve.line.sources.latest import CameraLostError, CameraSource, Pixels, Shot

if TYPE_CHECKING:
    from harvesters.core import Harvester, ImageAcquirer

PRODUCERS = "GENICAM_GENTL64_PATH"
"""Environment variable of the GenICam standard: folders of GenTL producers, which the makers' installers set. It is the one
way to name them, since a producer is code that runs in this process."""
LOOK = 0.25
"""Seconds for which the camera is asked for a frame at one time."""


def genicam_source(settings: GenicamSettings) -> CameraSource:
    """An industrial camera.

    Raises
    ------
    MissingExtraError
        Without harvesters.
    """
    with explain_missing():
        import harvesters.core  # noqa: F401
    camera = _Camera(settings)
    fire = camera.fire if settings.software_trigger else None
    return CameraSource(settings.name, camera.open, settings.waiting, fire)


class _Camera:
    """One camera, open or not."""

    def __init__(self, settings: GenicamSettings) -> None:
        self._settings = settings
        self._acquirer: ImageAcquirer | None = None
        self._waits = settings.software_trigger or settings.features.get("TriggerMode") == "On"
        """Whether the camera may be silent for any time, because something triggers it."""

    @contextmanager
    def open(self) -> Iterator[Iterator[Shot | None]]:
        """Shots of the camera until it is lost; raises CameraLostError."""
        with _PRODUCERS.opened() as harvester:
            acquirer = self._found(harvester)
            try:
                self._set_features(acquirer)
                acquirer.start()
                self._acquirer = acquirer
                yield self._shots(acquirer)
            except _errors() as error:
                raise self._lost(f"is lost ({_line(error)})") from None
            finally:
                self._acquirer = None
                with _quietly():
                    acquirer.stop()
                with _quietly():
                    acquirer.destroy()

    def fire(self) -> None:
        """Expose one frame by software."""
        acquirer = self._acquirer
        if acquirer is None:
            raise self._lost("is not open, and was not triggered")
        try:
            acquirer.remote_device.node_map.TriggerSoftware.execute()
        except _errors(AttributeError) as error:
            raise self._lost(f"cannot be triggered by software ({_line(error)})") from None

    def _found(self, harvester: Harvester) -> ImageAcquirer:
        serial = self._settings.serial
        with _PRODUCERS.lock:
            if not _serials(harvester, serial):
                harvester.update()
            found = _serials(harvester, serial)
            known = ", ".join(_serials(harvester, None)) or "none"
            if len(found) != 1:
                what = "is not there" if serial else "is not named" if found else "is not there"
                raise self._lost(
                    f"{what} (serial numbers that are there: {known})", "; check its cable and 'serial'"
                )
            try:
                return harvester.create({"serial_number": found[0]})
            except _errors(ValueError) as error:
                raise self._lost(
                    f"cannot be opened ({_line(error)})", "; close other programs that use it"
                ) from None

    def _set_features(self, acquirer: ImageAcquirer) -> None:
        nodes = acquirer.remote_device.node_map
        name, value = "", None
        try:
            for name, value in self._settings.features.items():
                getattr(nodes, name).value = value
        except _errors(AttributeError, TypeError, ValueError) as error:
            raise self._lost(
                f"does not take the feature {name}: {value!r} ({_line(error)})", "; correct 'features'"
            ) from None

    def _shots(self, acquirer: ImageAcquirer) -> Iterator[Shot | None]:
        last = time.monotonic()
        while True:
            buffer = acquirer.try_fetch(timeout=LOOK)
            if buffer is None:
                if not self._waits and time.monotonic() - last > self._settings.silence:
                    raise self._lost("gives no frame in time")
                yield None
                continue
            last = time.monotonic()
            with buffer:
                component = buffer.payload.components[0]
                size = component.height, component.width
                # A copy, because the buffer goes back to the camera.
                data, kind = np.array(component.data), component.data_format
            yield partial(self._pixels, data, kind, size)

    def _pixels(self, data: NDArray[Any], kind: str, size: tuple[int, int]) -> Pixels:
        try:
            return pixels_of(data, kind, size)
        except ValueError as error:
            raise self._lost(str(error), "; set features: {PixelFormat: Mono8}") from None

    def _lost(self, problem: str, remedy: str = "; it is opened again") -> CameraLostError:
        return CameraLostError(f"{self._settings.name}: the camera {problem}{remedy}")


def pixels_of(data: NDArray[Any], kind: str, size: tuple[int, int]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Pixels (H, W), or (H, W, 3) in RGB order, of a buffer in a pixel format of the PFNC.

    Values of 10 to 14 bits stay as they are, in 16 bits. Mosaics of colour filters (Bayer) and chroma subsampling are
    converted by FFmpeg.

    Raises
    ------
    ValueError
        For a format that is none of these, or a buffer of another size.

    Examples
    --------
    >>> pixels_of(np.array([1, 2, 3, 4, 5, 6], np.uint8), "BGR8", (1, 2)).tolist()
    [[[3, 2, 1], [6, 5, 4]]]
    """
    height, width = size
    try:
        if kind in ("Mono8", "Mono10", "Mono12", "Mono14", "Mono16"):
            grey: NDArray[np.uint8] | NDArray[np.uint16] = data.reshape(height, width)
            return grey
        if kind in _CHANNELS:
            colours: NDArray[np.uint8] = data.reshape(height, width, -1)[..., _CHANNELS[kind]]
            return np.ascontiguousarray(colours)
        if kind in _BY_FFMPEG:
            from av import VideoFrame

            name, channels = _BY_FFMPEG[kind]
            shaped = data.reshape((height, width) if channels == 1 else (height, width, channels))
            deep = data.dtype.itemsize == 2
            rgb: NDArray[np.uint8] = VideoFrame.from_ndarray(shaped, format=name).to_ndarray(
                format="rgb48le" if deep else "rgb24"
            )
            return rgb
    except ImportError as error:
        raise MissingExtraError(str(error)) from None
    except ValueError:
        raise ValueError(f"gave {data.size} values for {width} × {height} pixels of {kind}") from None
    raise ValueError(f"has the pixel format {kind}, which is not read")


_CHANNELS = {
    "RGB8": [0, 1, 2],
    "BGR8": [2, 1, 0],
    "RGBa8": [0, 1, 2],
    "BGRa8": [2, 1, 0],
    "RGB8Packed": [0, 1, 2],
}
_MOSAICS = {"RG": "rggb", "BG": "bggr", "GB": "gbrg", "GR": "grbg"}
_BY_FFMPEG = {
    **{f"Bayer{ours}8": (f"bayer_{theirs}8", 1) for ours, theirs in _MOSAICS.items()},
    **{
        f"Bayer{ours}{bits}": (f"bayer_{theirs}16le", 1)
        for ours, theirs in _MOSAICS.items()
        for bits in (10, 12, 16)
    },
    "YUV422_8": ("yuyv422", 2),
    "YCbCr422_8": ("yuyv422", 2),
    "YUV422_8_UYVY": ("uyvy422", 2),
}


class _Producers:
    """The producers of this process, which may be opened once: shared by all cameras, closed with the last of them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._harvester: Harvester | None = None
        self._users = 0

    @contextmanager
    def opened(self) -> Iterator[Harvester]:
        """The cameras that are there; raises CameraLostError without a producer."""
        with self.lock:
            if self._harvester is None:
                self._harvester = _harvester()
            self._users += 1
            harvester = self._harvester
        try:
            yield harvester
        finally:
            with self.lock:
                self._users -= 1
                if not self._users:
                    self._harvester = None
                    with _quietly():
                        harvester.reset()


_PRODUCERS = _Producers()


def _harvester() -> Harvester:
    from harvesters.core import Harvester

    folders = [Path(folder) for folder in os.environ.get(PRODUCERS, "").split(os.pathsep) if folder]
    files = sorted(file for folder in folders for file in folder.glob("*.cti"))
    if not files:
        raise CameraLostError(
            f"there is no GenTL producer in {PRODUCERS}; install the one of the camera's maker, and start the server again"
        )
    harvester = Harvester()
    try:
        for file in files:
            harvester.add_file(str(file), check_existence=True)
        harvester.update()
    except _errors() as error:
        harvester.reset()
        raise CameraLostError(
            f"the GenTL producers {files} cannot be used ({_line(error)}); install them again"
        ) from None
    return harvester


def _serials(harvester: Harvester, wanted: str | None) -> list[str]:
    found = [str(device.serial_number) for device in harvester.device_info_list]
    return found if wanted is None else [serial for serial in found if serial == wanted]


def _errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Classes of the errors of GenApi, GenTL and harvesters, and ``others``."""
    from genicam import genapi, gentl

    return genapi.GenericException, gentl.GenericException, OSError, RuntimeError, *others


@contextmanager
def _quietly() -> Iterator[None]:
    """Whatever a camera that is lost answers to its end."""
    try:
        yield
    except _errors(AttributeError, TypeError):
        return


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
