"""Parts of one running server, opened together and closed in the reverse order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from blemish.data.appearance import stretch
from blemish.errors import BlemishError
from blemish.inspection.detection import Detection
from blemish.serve.candidates import FITS, GOOD, MODELS, Candidates
from blemish.serve.contracts import Frame, NewDecision, StoredDecision
from blemish.serve.decision_images import DecisionImages
from blemish.serve.history import IMAGES, History, KeptImages, prune
from blemish.serve.history.kept_images import Keeping
from blemish.serve.line.line import ProductionLine
from blemish.serve.line.open_line import LOGS, open_line, sinks_by_source
from blemish.serve.live import Live
from blemish.serve.logs import LOGGER
from blemish.serve.metrics import Metrics
from blemish.serve.served_mask import ServedMasks
from blemish.serve.served_model import ServedModel, ServedModels
from blemish.serve.service import Service
from blemish.serve.settings import ServeSettings
from blemish.storage.leftovers import remove_leftovers


@dataclass
class Server:
    """What the routes, the line and the page share."""

    settings: ServeSettings
    key: str | None
    """That requests must give; None lets every program of this machine in."""
    models: ServedModels
    history: History
    service: Service[Keeping]
    live: Live
    metrics: Metrics
    kept: KeptImages
    images: DecisionImages
    line: ProductionLine
    """Sources and sinks."""
    masks: ServedMasks
    """Judged areas of the models."""
    candidates: Candidates
    """Fits from the page, and what their versions are compared on."""

    def encode(self, frame: Frame, detection: Detection, decision: NewDecision) -> Keeping:
        """A decision with the files of its image and map, where the rule says so or a sink needs them."""
        return self.kept.encode(frame, detection.map, decision, self.line.image_wishes(decision.source))

    def store(self, keepings: Sequence[Keeping]) -> list[StoredDecision]:
        """Write the files, then store the decisions with what the sinks are owed of them, in one transaction."""
        decisions = [self._write(one) for one in keepings]
        stored = self.history.add(decisions, sinks_by_source(self.line))
        self.line.wake()
        return stored

    def _write(self, keeping: Keeping) -> NewDecision:
        former = self.kept.problem
        decision = self.kept.write(keeping)
        if self.kept.problem is not None and str(self.kept.problem) != str(former):
            LOGGER.error(str(self.kept.problem), extra={"fields": {"model": decision.model}})
        return decision

    def stop(self) -> int:
        """Stop the line, then finish the images that were accepted; the number of those that were not finished in time."""
        self.line.stop()
        return self.service.stop()

    def clean_up(self) -> None:
        """Remove old images and decisions by the rule of the settings; the log says what, or why not."""
        try:
            removed = prune(self.history, self.kept, self.settings.retention)
        except Exception as error:  # the server goes on, and the next clean-up tries again
            LOGGER.error("the clean-up failed: %s", error, exc_info=not isinstance(error, BlemishError))
            return
        if removed.images or removed.decisions:
            LOGGER.info("clean-up", extra={"fields": removed._asdict()})


@contextmanager
def open_server(settings: ServeSettings) -> Iterator[Server]:
    """Open the history and the models, and run the service as long as the block lasts.

    Raises
    ------
    ServeError
        When a setting does not fit, there is no model, or another server has the history.
    ModelError, FileError, HistoryError
        When a model or the history cannot be opened.
    """
    key = settings.access_key()
    with ExitStack() as resources:
        history = resources.enter_context(History.open(settings.history or settings.home))
        _remove_leftovers(settings.home)
        models = ServedModels(settings.models, settings.home / MODELS)
        live, metrics = Live(), Metrics()
        kept = KeptImages(settings.home / IMAGES, settings.keep)
        server: Server

        service = Service(
            models,
            lambda keepings: server.store(keepings),
            lambda frame, detection, decision: server.encode(frame, detection, decision),
            limits=settings.limits,
            workers=settings.workers,
            live=live,
            metrics=metrics,
        )

        def brightness(model: str) -> float:
            found = models.get(model)
            return 1.0 if found is None else stretch(found.detector.file.fingerprint.appearance)

        images = DecisionImages(
            service.recent, max_pixels=settings.limits.pixels, kept=kept, brightness=brightness
        )
        masks = ServedMasks(
            models,
            lambda name: settings.home / GOOD / name,
            lambda name: live.publish("model", {"model": name, "threshold": models[name].detector.threshold}),
        )
        line = open_line(settings.line, settings.home, service, history, live, images.files)
        candidates = Candidates(
            settings.home,
            history,
            images,
            changed=lambda fit: live.publish("fit", fit.model_dump(mode="json")),
            max_pixels=settings.limits.pixels,
        )
        server = Server(
            settings, key, models, history, service, live, metrics, kept, images, line, masks, candidates
        )
        resources.enter_context(service)
        resources.callback(candidates.close)

        def changed(model: ServedModel) -> None:
            outcome = "refused" if model.problem else "loaded"
            metrics.loads.labels(model.name, outcome).inc()
            fields = {"model": model.name, "version": model.version.number}
            if model.problem:
                LOGGER.error(model.problem, extra={"fields": fields})
            else:
                LOGGER.info("new version of a model", extra={"fields": fields})
            live.publish("model", {**fields, "problem": model.problem})

        models.watch(settings.reload_seconds, changed)
        resources.callback(models.close)
        resources.enter_context(_every(settings.clean_up_seconds, server.clean_up))
        resources.callback(live.close)
        metrics.measure("blemish_line_not_ready", "Sources and sinks that are not ready.", line.not_ready)
        metrics.measure(
            "blemish_outbox_decisions",
            "Decisions that sinks are owed.",
            lambda: sum(one.owed for one in history.owed()),
        )
        resources.callback(line.stop)
        line.start()
        resources.callback(masks.close)
        masks.start()
        yield server


def _remove_leftovers(home: Path) -> None:
    """Remove temporary files of a killed server; images, which are many, have a clean-up of their own."""
    remove_leftovers(home)
    for name in (LOGS, MODELS, FITS):
        remove_leftovers(home / name, below=True)


@contextmanager
def _every(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Do ``work`` in a thread, at once and every so many seconds, as long as the block lasts."""
    ended = threading.Event()

    def loop() -> None:
        while True:
            work()
            if ended.wait(seconds):
                return

    thread = threading.Thread(target=loop, name="clean-up")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
