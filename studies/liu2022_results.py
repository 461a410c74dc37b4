"""Results of Liu et al. 2022: fits, the comparison of codecs, BD-rates between any two of them."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy import stats

from blemish.jpeg.benchmark.baselines import PILLOW_420, PILLOW_444
from blemish.jpeg.benchmark.records import BdRate, CodecEvaluation, CodecRecord
from blemish.jpeg.benchmark.run import RECORDS_FILE
from blemish.jpeg.benchmark.summary import rate_between
from blemish.jpeg.deep.model import DeepEncoder
from blemish.jpeg.deep.recipe import DeepRecipe
from blemish.jpeg.quality import Measure
from blemish.storage.records_log import RecordsLog
from studies.liu2022_plan import FEWEST_SEEDS, Planned
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


class OverSeeds(NamedTuple):
    """BD-rates of one encoder against another, one a seed, and the steps of the two trainings."""

    rates: list[BdRate]
    steps: tuple[int | None, ...] = (None, None)

    @property
    def interval(self) -> tuple[float, float, float] | None:
        """Mean and 95 % interval over the seeds (Student's t); None of fewer than ``FEWEST_SEEDS``."""
        if len(self.rates) < FEWEST_SEEDS:
            return None
        means = [rate.mean for rate in self.rates]
        half = float(stats.t.ppf(0.975, len(means) - 1)) * stdev(means) / len(means) ** 0.5
        return fmean(means), fmean(means) - half, fmean(means) + half

    @property
    def same_steps(self) -> bool:
        """Whether both trainings, where there are two, have as many steps."""
        return len({steps for steps in self.steps if steps is not None}) < 2


class Results(NamedTuple):
    """Everything that page and figures are made from."""

    request: Request
    fits: list[Fit]
    evaluation: CodecEvaluation
    records: list[CodecRecord]
    with_lpips: bool
    seconds_a_step: dict[str, list[float]]
    """By recipe, of steps that took turns; of the first seed's settings."""

    def fit(self, name: str) -> Fit:
        return next(fit for fit in self.fits if fit.name == name)

    def rate(
        self, anchor: str, encoder: str, measure: Measure, bpp_range: tuple[float, float] | None = None
    ) -> BdRate | None:
        """The BD-rate of one encoder against any other, by default between the evaluation's rates."""
        chosen = bpp_range or self.evaluation.bpp_range
        return rate_between(self.records, anchor, encoder, measure, chosen, self.evaluation.images)

    def over_seeds(
        self, anchor: str, encoder: str, measure: Measure, bpp_range: tuple[float, float] | None = None
    ) -> OverSeeds:
        """The BD-rates of one encoder against another with every seed that both have."""
        return OverSeeds(
            [
                rate
                for own, other in zip(self.seeded(encoder), self.seeded(anchor), strict=False)
                if (rate := self.rate(other, own, measure, bpp_range)) is not None
            ],
            steps=tuple(self.steps_of(name) for name in (encoder, anchor)),
        )

    def seeded(self, name: str) -> list[str]:
        """Names of the fits of ``name`` with all seeds; of what is no fit, as often as there are seeds."""
        seeds = sorted({fit.recipe.training.seed for fit in self.fits})
        if name not in {fit.name for fit in self.fits}:
            return [name] * max(len(seeds), 1)
        found = [fit.name for fit in self.fits if fit.name == name or fit.name.startswith(f"{name}, seed ")]
        return found

    def steps_of(self, name: str) -> int | None:
        """Steps of training; None of what is no fit."""
        return next((fit.recipe.training.steps for fit in self.fits if fit.name == name), None)

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
        "machine": training.machine_words,
        "history": [look.model_dump() for look in training.history],
        "milliseconds_per_image": evaluated.milliseconds_per_image,
        "times_pillow": evaluated.times_pillow,
        "rates": {anchor.name: results.rates(anchor.name, fit.name) for anchor in (PILLOW_420, PILLOW_444)},
    }
