"""The line as a whole: all sources and sinks of a description, which may be replaced while others go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import yaml

from blemish.errors import BlemishError, ServeError, nearest
from blemish.serve.contracts import Sink, Source, StoredDecision
from blemish.serve.line.description import LineDescription, read_line
from blemish.serve.line.outbox_worker import Files, Outbox, OutboxWorker
from blemish.serve.line.places import check_places
from blemish.serve.line.sink_settings import (
    CsvSettings,
    FolderSinkSettings,
    MqttSettings,
    OpcUaServerSettings,
    SinkSettings,
    Wants,
    WebhookSettings,
)
from blemish.serve.line.source_runner import SourceRunner, Submit
from blemish.serve.line.source_settings import (
    FolderSettings,
    SnapshotSettings,
    SourceSettings,
    StreamSettings,
    VideoSettings,
    WebcamSettings,
)
from blemish.serve.line.triggers import TriggerError, make_trigger
from blemish.serve.logs import LOGGER
from blemish.storage.atomic import write_text
from blemish.storage.leftovers import remove_leftovers

LINE_FILE = "line.yaml"
WATCH = 1.0
"""Seconds between looks at whether a source or a sink has become ready, or is no longer."""

Publish = Callable[[dict[str, Any]], None]


class ProductionLine:
    """Sources and sinks at work.

    Parameters
    ----------
    file: the description; without it, the line has no parts until one is put.
    home: folder for what sources note about images that are done.
    submit: see :data:`~blemish.serve.line.source_runner.Submit`.
    models: names of the models that are served.
    outbox, files: see :class:`~blemish.serve.line.outbox_worker.OutboxWorker`.
    publish: tells the pages what has changed.
    ahead: see :class:`~blemish.serve.line.source_runner.SourceRunner`.
    """

    def __init__(
        self,
        file: Path,
        home: Path,
        submit: Submit,
        models: Iterable[str],
        outbox: Outbox,
        files: Files,
        publish: Publish = lambda state: None,
        ahead: int = 4,
    ) -> None:
        self.file, self._home = file, home
        self._submit, self._models, self._outbox, self._files = submit, tuple(models), outbox, files
        self._publish, self._ahead = publish, ahead
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self.description = LineDescription()
        self._sources: dict[str, SourceRunner] = {}
        self._sinks: dict[str, OutboxWorker] = {}
        self._seen: dict[str, bool] = {}
        self._watcher = threading.Thread(target=self._watch, name="line", daemon=True)

    # -- begin and end -----------------------------------------------------------------------------

    def start(self) -> None:
        """Read the description, and begin.

        Raises
        ------
        ServeError
            When it is wrong, a secret is not set, or a model is not served; in one line.
        MissingExtraError
            When a package of a part is not installed.
        """
        remove_leftovers(self.file.parent)
        if self.file.is_file():
            self._replace(read_line(self.file))
        self._watcher.start()

    def stop(self) -> None:
        """Finish what is under way: first the sources, then the deliveries; what is left stays in the outbox."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join(WATCH + 5)
        with self._lock:
            self._stop_sources(list(self._sources))
            self._stop_sinks(list(self._sinks))

    def put(self, description: LineDescription) -> None:
        """Replace the line, and write its description; parts that stay the same go on without a break.

        Raises
        ------
        ServeError, MissingExtraError
            As :meth:`start`; the line stays as it was then.
        FileError
            When the description cannot be written; then it stays, too.
        """
        with self._lock:
            former = self.description
            self._replace(description)
            try:
                content = yaml.safe_dump(
                    description.model_dump(mode="json", exclude_defaults=True)
                    | {"version": description.version},
                    sort_keys=False,
                    allow_unicode=True,
                )
                write_text(self.file, content)
            except BlemishError:
                self._replace(former)
                raise
        self._publish(self.state())

    # -- what people do ----------------------------------------------------------------------------

    def pause(self, names: Iterable[str] | None = None) -> None:
        """Pause sources, all of them without names.

        Raises
        ------
        ServeError
            When there is none of a name.
        """
        for runner in self._named(names):
            runner.pause()
        self._publish(self.state())

    def resume(self, names: Iterable[str] | None = None) -> None:
        """Let sources go on, all of them without names; errors as of :meth:`pause`."""
        for runner in self._named(names):
            runner.resume()
        self._publish(self.state())

    def trigger(self, source: str | None = None, name: str | None = None) -> Future[StoredDecision]:
        """Trigger a source by hand; its decision comes with the future.

        Parameters
        ----------
        source: may be left out where one source has the trigger ``http``.
        name: of the image, such as a serial number.

        Raises
        ------
        ServeError
            When there is no such source.
        TriggerError
            When it cannot be triggered now.
        """
        if source is None:
            having = [one.name for one in self.description.sources if one.trigger.type == "http"]
            if len(having) != 1:
                raise TriggerError(
                    f"sources with the trigger 'http' are {', '.join(having)}; name one of them"
                    if having
                    else "no source has the trigger 'http'; give one it in the description of the line"
                )
            source = having[0]
        (runner,) = self._named([source])
        return runner.fire(name)

    def skip(self, sink: str) -> int:
        """Give up the first decision that a sink owes, which holds up the others; the number of the decision.

        Raises
        ------
        ServeError
            When there is no such sink, or it owes nothing.
        """
        with self._lock:
            if sink not in self._sinks:
                raise ServeError(f"there is no sink '{sink}'; {nearest(sink, list(self._sinks))}")
            worker = self._sinks[sink]
        number = self._outbox.forget_first(sink)
        if number is None:
            raise ServeError(f"the sink '{sink}' owes nothing; see GET /api/line")
        LOGGER.warning(f"sink '{sink}': decision {number} was given up, and is not delivered")
        worker.hurry()
        return number

    # -- what others ask ---------------------------------------------------------------------------

    def sinks_of(self, source: str) -> Mapping[str, Wants]:
        """Sinks that are owed decisions on images of ``source``, each with which of them it wants."""
        return self.description.sinks_of(source)

    def image_wishes(self, source: str) -> set[Wants]:
        """Which decisions on images of ``source`` are delivered with their image."""
        needing = {name for name, worker in list(self._sinks.items()) if worker.sink.needs_images}
        return {wants for name, wants in self.sinks_of(source).items() if name in needing}

    def wake(self) -> None:
        """Say that decisions were stored, so that deliveries begin at once."""
        for worker in list(self._sinks.values()):
            worker.wake()

    def state(self) -> dict[str, Any]:
        """For the page: each source and each sink, with whether it is ready, and why not."""
        types = {part.name: part.type for part in (*self.description.sources, *self.description.sinks)}
        sources = [{"type": types.get(name), **one.state()} for name, one in list(self._sources.items())]
        sinks = [
            {"type": types.get(name), "name": name, **one.state()} for name, one in list(self._sinks.items())
        ]
        return {
            "is_paused": bool(sources) and all(one["is_paused"] for one in sources),
            "sources": sources,
            "sinks": sinks,
        }

    def not_ready(self) -> int:
        """Number of sources and sinks that are not ready."""
        state = self.state()
        return sum(not one["is_ready"] for one in (*state["sources"], *state["sinks"]))

    # -- parts -------------------------------------------------------------------------------------

    def _named(self, names: Iterable[str] | None) -> list[SourceRunner]:
        with self._lock:
            if names is None:
                return list(self._sources.values())
            found = []
            for name in names:
                if name not in self._sources:
                    raise ServeError(f"there is no source '{name}'; {nearest(name, list(self._sources))}")
                found.append(self._sources[name])
            return found

    def _replace(self, wanted: LineDescription) -> None:
        """Bring the line to another description: new parts are made before others are stopped, so that a fault changes nothing."""
        for number, source in enumerate(wanted.sources):
            if source.model is not None and source.model not in self._models:
                raise ServeError(
                    f"'sources[{number}].model' is '{source.model}', which is not served; {nearest(source.model, self._models)}"
                )
            if source.model is None and len(self._models) > 1:
                raise ServeError(
                    f"'sources[{number}].model' is missing, and {len(self._models)} models are served; add one of "
                    f"{', '.join(self._models)}"
                )
        base, before = self.file.parent, self.description
        check_places(wanted, base, self._home.parent)
        same_sources = {source.name for source in wanted.sources if source in before.sources}
        same_sources &= {name for name, runner in self._sources.items() if not runner.has_ended}
        same_sinks = {sink.name for sink in wanted.sinks if sink in before.sinks}
        runners: dict[str, SourceRunner] = {}
        workers: dict[str, OutboxWorker] = {}
        try:
            for number, source in enumerate(wanted.sources):
                if source.name not in same_sources:
                    key = f"sources[{number}]"
                    made = make_source(source, key, base, self._home)
                    trigger = make_trigger(source.trigger, f"{key}.trigger", base)
                    runners[source.name] = SourceRunner(
                        made, trigger, self._submit, source.model, self._ahead
                    )
            for number, sink in enumerate(wanted.sinks):
                if sink.name not in same_sinks:
                    workers[sink.name] = OutboxWorker(
                        make_sink(sink, f"sinks[{number}]", base), self._outbox, self._files
                    )
        except BaseException:  # whatever ends it, no thread of a source or sink may stay
            for runner in runners.values():
                runner.stop()
            for worker in workers.values():
                worker.stop()
            raise
        paused = {name for name, runner in self._sources.items() if runner.is_paused}
        self._stop_sources([name for name in self._sources if name not in same_sources])
        # From here on decisions are owed to the new sinks.
        self.description = wanted
        self._stop_sinks([name for name in self._sinks if name not in same_sinks])
        self._sinks |= workers
        self._sources |= runners
        for worker in workers.values():
            worker.start()
        for name, runner in runners.items():
            runner.start(paused=name in paused)

    def _stop_sources(self, names: Iterable[str]) -> None:
        stopping = [self._sources.pop(name) for name in names]
        threads = [threading.Thread(target=runner.stop) for runner in stopping]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _stop_sinks(self, names: Iterable[str]) -> None:
        for name in names:
            self._sinks.pop(name).stop()

    def _watch(self) -> None:
        """Write to the log, and tell the pages, when a part becomes ready or is no longer."""
        while not self._stopping.wait(WATCH):
            state = self.state()
            ready = {
                f"{kind} '{one['name']}'": (bool(one["is_ready"]), str(one["message"]))
                for kind in ("source", "sink")
                for one in state[f"{kind}s"]
            }
            changed = False
            for part, (is_ready, message) in ready.items():
                if self._seen.get(part) == is_ready:
                    continue
                changed = True
                if is_ready:
                    LOGGER.info(f"{part} is ready")
                else:
                    LOGGER.warning(f"{part} is not ready: {message}")
            self._seen = {part: is_ready for part, (is_ready, _) in ready.items()}
            if changed:
                self._publish(state)


def make_source(settings: SourceSettings, key: str, base: Path, home: Path) -> Source:
    """The source of a description.

    Parameters
    ----------
    key: of the description, for errors.
    base: folder at which relative paths begin.
    home: folder for logs of images that are done.

    Raises
    ------
    ServeError
        When a secret is not set.
    MissingExtraError
        When its package is not installed.
    """
    log = home / f"{settings.name}.jsonl"
    if isinstance(settings, FolderSettings):
        from blemish.serve.line.sources.folder import FolderSource

        move_to = None if settings.move_to is None else base / settings.move_to
        return FolderSource(settings, base / settings.path, log, move_to)
    if isinstance(settings, VideoSettings):
        from blemish.serve.line.sources.video import VideoSource

        return VideoSource(settings, base / settings.path, log)
    if isinstance(settings, StreamSettings):
        from blemish.serve.line.sources.stream import stream_source

        return stream_source(settings, key)
    if isinstance(settings, WebcamSettings):
        from blemish.serve.line.sources.stream import webcam_source

        return webcam_source(settings)
    if isinstance(settings, SnapshotSettings):
        from blemish.serve.line.sources.snapshot import SnapshotSource

        return SnapshotSource(settings, key)
    from blemish.serve.line.sources.genicam import genicam_source

    return genicam_source(settings)


def make_sink(settings: SinkSettings, key: str, base: Path) -> Sink:
    """The sink of a description; parameters and errors as of :func:`make_source`."""
    if isinstance(settings, FolderSinkSettings):
        from blemish.serve.line.sinks.folder import FolderSink

        return FolderSink(settings, base / settings.path)
    if isinstance(settings, CsvSettings):
        from blemish.serve.line.sinks.csv_file import CsvSink

        return CsvSink(settings, base / settings.path)
    if isinstance(settings, WebhookSettings):
        from blemish.serve.line.sinks.webhook import WebhookSink

        return WebhookSink(settings, key, base)
    if isinstance(settings, MqttSettings):
        from blemish.serve.line.sinks.mqtt import MqttSink

        return MqttSink(settings, key, base)
    if isinstance(settings, OpcUaServerSettings):
        from blemish.serve.line.sinks.opcua_server import OpcUaServerSink

        return OpcUaServerSink(settings, key, base)
    from blemish.serve.line.sinks.opcua_client import OpcUaClientSink

    return OpcUaClientSink(settings, key, base)
