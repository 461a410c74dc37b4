"""Parts of one running server, opened together and closed in the reverse order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from blemish.serve.candidates import Candidates
from blemish.serve.contracts import NewDecision, StoredDecision
from blemish.serve.decision_images import DecisionImages
from blemish.serve.history import History, Wish
from blemish.serve.live import Live
from blemish.serve.logs import LOGGER
from blemish.serve.metrics import Metrics
from blemish.serve.served_model import ServedModel, ServedModels
from blemish.serve.service import Service
from blemish.serve.settings import ServeSettings

MODELS = "models"


@dataclass
class Server:
    """What the routes, the line and the page share."""

    settings: ServeSettings
    key: str | None
    """That requests must give; None lets every program of this machine in."""
    models: ServedModels
    history: History
    service: Service
    live: Live
    metrics: Metrics
    images: DecisionImages
    candidates: Candidates
    sinks: dict[str, Wish] = field(default_factory=dict)
    """Sinks that new decisions are owed to, each with the decisions that it wants; the line fills it in."""

    def store(self, decisions: Sequence[NewDecision]) -> list[StoredDecision]:
        """Store decisions with what the sinks are owed of them, in one transaction."""
        return self.history.add(decisions, self.sinks)


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
        models = ServedModels(settings.models, settings.home / MODELS)
        live, metrics = Live(), Metrics()
        server: Server

        def store(decisions: Sequence[NewDecision]) -> list[StoredDecision]:
            return server.store(decisions)

        service = Service(
            models,
            store,
            lambda frame, detection, decision: decision,
            limits=settings.limits,
            workers=settings.workers,
            live=live,
            metrics=metrics,
        )
        images = DecisionImages(service.recent, max_pixels=settings.limits.pixels)
        candidates = Candidates(
            settings.home,
            history,
            images,
            changed=lambda fit: live.publish("fit", fit.model_dump(mode="json")),
            max_pixels=settings.limits.pixels,
        )
        server = Server(settings, key, models, history, service, live, metrics, images, candidates)
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
        resources.callback(live.close)
        yield server
