"""Results of Liu et al. 2022: fits, the comparison of codecs, BD-rates between any two of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from blemish.jpeg.benchmark.baselines import PILLOW_420, PILLOW_444
from blemish.jpeg.benchmark.records import BdRate, CodecEvaluation, CodecRecord
from blemish.jpeg.benchmark.run import RECORDS_FILE
from blemish.jpeg.benchmark.summary import rate_between
from blemish.jpeg.deep.model import DeepEncoder
from blemish.jpeg.deep.recipe import DeepRecipe
from blemish.jpeg.quality import Measure
from blemish.storage.records_log import RecordsLog
from studies.liu2022_plan import Planned
from studies.protocol import Request


class Fit(NamedTuple):
    """A fit that was made."""

    planned: Planned
    start: str
    """Where the attention begins: "ImageNet", "scratch", or "–" where there is none to begin."""
    encoder: DeepEncoder

    @property
    def name(self) -> str:
        return self.planned.name

    @property
    def recipe(self) -> DeepRecipe:
        return self.planned.recipe

    @property
    def steps_per_second(self) -> float:
        """Steps per second of the whole training, its looks at the held-out photographs included."""
        return self.encoder.file.training.steps / self.encoder.file.training.seconds


class Results(NamedTuple):
    """Everything that page and figures are made from."""

    request: Request
    fits: list[Fit]
    evaluation: CodecEvaluation
    records: list[CodecRecord]
    with_lpips: bool

    def fit(self, name: str) -> Fit:
        return next(fit for fit in self.fits if fit.name == name)

    def rate(
        self, anchor: str, encoder: str, measure: Measure, bpp_range: tuple[float, float] | None = None
    ) -> BdRate | None:
        """The BD-rate of one encoder against any other, by default between the evaluation's rates."""
        chosen = bpp_range or self.evaluation.bpp_range
        return rate_between(self.records, anchor, encoder, measure, chosen, self.evaluation.images)

    def rates(
        self, anchor: str, encoder: str, bpp_range: tuple[float, float] | None = None
    ) -> dict[str, Any]:
        """The same by measure, as JSON."""
        found = {
            measure: self.rate(anchor, encoder, measure, bpp_range) for measure in self.evaluation.measures
        }
        return {measure: rate.model_dump(mode="json") for measure, rate in found.items() if rate is not None}


def records_of(request: Request, evaluation: CodecEvaluation) -> list[CodecRecord]:
    """The files that ``evaluation`` is of; the journal also holds those of former fits and images."""
    descriptions = {encoder.name: encoder.description for encoder in evaluation.encoders}
    newest = {
        (record.encoder, record.image, record.quality): record
        for record in RecordsLog(request.work / "evaluation" / RECORDS_FILE, CodecRecord).records
        if descriptions.get(record.encoder) == record.description and record.image in evaluation.images
    }
    return list(newest.values())


def fit_record(results: Results, fit: Fit) -> dict[str, Any]:
    training = fit.encoder.file.training
    evaluated = next(one for one in results.evaluation.encoders if one.name == fit.name)
    without = {"version", "name", "title", "paper", "needs", "expect"}
    return {
        "name": fit.name,
        "recipe": fit.recipe.name,
        "seed": fit.recipe.training.seed,
        "attention_from": fit.start,
        "settings": fit.recipe.model_dump(mode="json", exclude=without),
        "parameters": sum(parameter.numel() for parameter in fit.encoder.model.parameters()),
        "steps": training.steps,
        "best_step": training.best_step,
        "training_seconds": training.seconds,
        "steps_per_second": fit.steps_per_second,
        "machine": training.machine_words,
        "history": [look.model_dump() for look in training.history],
        "milliseconds_per_image": evaluated.milliseconds_per_image,
        "times_pillow": evaluated.times_pillow,
        "rates": {anchor.name: results.rates(anchor.name, fit.name) for anchor in (PILLOW_420, PILLOW_444)},
    }
