"""Routes of the models on the line: what they are, what they promise, and their threshold."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Request
from pydantic import BaseModel

from blemish.serve.api.problems import answers
from blemish.serve.model_versions import ModelVersion
from blemish.serve.served_model import ServedModel, ThresholdChoice
from blemish.serve.server import Server

router = APIRouter(tags=["models"], responses=answers(401))

Name = Annotated[str, Path(max_length=100)]


class ModelState(BaseModel):
    """A model on the line, as it decides now."""

    name: str
    version: ModelVersion
    model_sha256: str
    """SHA-256 of its weights, as decisions have it."""
    recipe: str
    runtime: str
    """``onnx``, ``openvino`` or ``torch``."""
    threshold: float
    pixel_threshold: float
    false_reject_rate: float | None
    """Promised share of good images that are rejected; None of a threshold set by hand."""
    guarantee: str
    """The promise in words."""
    calibration_images: int
    least_false_reject_rate: float
    """Least rate that so many images can promise."""
    is_chosen: bool
    """Whether the threshold was chosen while serving."""
    problem: str | None
    """Why newer content of its folder is not in use."""
    drift: dict[str, Any]


class ModelList(BaseModel):
    """All models, the one that is used without a name first."""

    models: list[ModelState]


class ModelPage(ModelState):
    """A model with its card."""

    card: str
    """The model in a page of Markdown."""


@router.get("/api/models")
def models(request: Request) -> ModelList:
    """All models on the line."""
    server = _server(request)
    return ModelList(models=[ModelState(**_state(server, one)) for one in server.models.values()])


@router.get("/api/models/{name}", responses=answers(404))
def model(request: Request, name: Name) -> ModelPage:
    """One model with its card."""
    server = _server(request)
    found = server.models.named(name)
    return ModelPage(**_state(server, found), card=found.detector.card())


@router.put("/api/models/{name}/threshold", responses=answers(403, 404, 422, 507))
def choose_threshold(
    request: Request, name: Name, choice: Annotated[ThresholdChoice | None, Body()] = None
) -> ModelState:
    """Decide by another promise or threshold from the next image on, after a restart too; ``null`` is that of the model."""
    server = _server(request)
    found = server.models.named(name)
    found.choose(choice)
    state = ModelState(**_state(server, found))
    server.live.publish("model", {"model": name, "threshold": state.threshold, "problem": state.problem})
    return state


def _state(server: Server, found: ServedModel) -> dict[str, Any]:
    detector, decision = found.detector, found.detector.decision
    count, export = len(decision.calibration.scores), detector.file.export
    return {
        "name": found.name,
        "version": found.version,
        "model_sha256": detector.file.weights_sha256,
        "recipe": detector.recipe.name,
        "runtime": "torch" if export is None else export.runtime,
        "threshold": decision.threshold,
        "pixel_threshold": decision.pixel_threshold,
        "false_reject_rate": decision.false_reject_rate if decision.rule == "conformal" else None,
        "guarantee": decision.guarantee,
        "calibration_images": count,
        "least_false_reject_rate": 1 / (count + 1),
        "is_chosen": found.choice is not None,
        "problem": found.problem,
        "drift": server.service.drift.state(found.name),
    }


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server
