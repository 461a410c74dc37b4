"""Results of a job as a stream of tables, from actors of Ray Data that each load the model once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from blemish.errors import BlemishError
from blemish.scale.cluster import JobSettings
from blemish.scale.work import ImageWork
from blemish.scale.worker import ArchiveWorker, Attempts

if TYPE_CHECKING:
    import pyarrow as pa


def stored(tables: Iterable[pa.Table]) -> list[Any]:
    """The tables in Ray's object store, which moves to the disk what exceeds its memory."""
    import ray

    return [ray.put(table) for table in tables]


def result_tables(
    planned: Sequence[Any], work: ImageWork, schema: pa.Schema, job: JobSettings, workers: int
) -> Iterator[pa.Table]:
    """Tables of results, in the order in which they are finished.

    Parameters
    ----------
    planned: tables of images, in Ray's object store.
    schema: of the results, without the column that only the driver sees.

    Raises
    ------
    BlemishError
        When the work on an image raises one that is not of the image, or the cluster fails.
    """
    with cluster_errors_in_words("go on with --resume"):
        if job.is_client:
            yield from _from_the_cluster(planned, work, schema, job, workers)
        else:
            yield from _by_ray_data(planned, work, schema, job, workers)


def _by_ray_data(
    planned: Sequence[Any], work: ImageWork, schema: pa.Schema, job: JobSettings, workers: int
) -> Iterator[pa.Table]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    DataContext.get_current().enable_progress_bars = False
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "ray"]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    attempts = ray.remote(Attempts).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    results = ray.data.from_arrow_refs(list(planned)).map_batches(
        ArchiveWorker,
        fn_constructor_kwargs={"work": work, "attempts": attempts, "schema": schema},
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        # One worker is enough to go on: a machine of the cluster may be gone for good.
        compute=ActorPoolStrategy(
            min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=job.in_flight
        ),
        num_cpus=1,
    )
    yield from results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)


class ResultStream:
    """The stream as an actor within the cluster: Ray Data does not run in a client from outside."""

    def __init__(
        self, planned: Sequence[Any], work: ImageWork, schema: pa.Schema, job: JobSettings, workers: int
    ) -> None:
        self._tables = _by_ray_data(planned, work, schema, job, workers)

    def next(self) -> pa.Table | None:
        """The next table of results; None after the last."""
        return next(self._tables, None)


def _from_the_cluster(
    planned: Sequence[Any], work: ImageWork, schema: pa.Schema, job: JobSettings, workers: int
) -> Iterator[pa.Table]:
    import ray

    stream = ray.remote(ResultStream).options(num_cpus=0).remote(list(planned), work, schema, job, workers)
    while (table := ray.get(stream.next.remote())) is not None:
        yield table


@contextmanager
def cluster_errors_in_words(remedy: str) -> Iterator[None]:
    """Turn an error of the cluster into one line that ends with ``remedy``, and one of Blemish within it into itself."""
    import ray

    try:
        yield
    except (ray.exceptions.RayError, ConnectionError) as error:
        cause = getattr(error, "cause", None) or error.__cause__
        if isinstance(cause, BlemishError):
            raise cause.without_frames() from None
        words = " ".join((str(cause or "") or str(error)).split())[-300:]
        raise BlemishError(f"the cluster failed ({words}); {remedy}") from None
