"""Tables of results: the fields of the records, unchanged to the last bit."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blemish.decision import Inspection, Region
from blemish.decision.classes import ClassScore
from blemish.errors import UsageError
from blemish.jpeg.batch.records import EncodedFile
from blemish.jpeg.protection import ImageDecision, Protection, RateSplit
from blemish.scale.tables import ERROR, record_fields, record_of, result_schema

SPLIT = RateSplit(
    verdict=ImageDecision(score=0.1, is_anomalous=False),
    bits_per_pixel=1 / 3,
    bits_inside=10.5,
    bits_outside=2.25,
    psnr_inside=None,
    psnr_outside=41.0,
)
RECORDS = [
    Inspection(
        path="a/ü.png",
        size=(48, 40),
        score=0.1 + 0.2,
        threshold=1e-300,
        p_value=1 / 3,
        is_anomalous=True,
        regions=(
            Region(x=1, y=2, width=3, height=4, area=12, peak=0.7, mean=1 / 7),
            Region(x=0, y=0, width=1, height=1, area=1, peak=0.1, mean=0.1, region_class="lid"),
        ),
        time="2026-11-30T12:00:00+00:00",
        seconds=0.25,
        other_kind="colour",
        classes=(ClassScore(name="lid", score=2.0, threshold=1.0, is_above=True, peak=3.0),),
        sha256="0" * 64,
    ),
    EncodedFile(
        input="a.png",
        input_sha256="1" * 64,
        output="a.png.jpg",
        output_sha256="2" * 64,
        settings="{}",
        action="encoded",
        bytes_before=100,
        bytes_after=50,
        bits_per_pixel=0.3,
        quality=75.0,
        notices=("one", "two"),
        sampling="4:2:0",
        protection=Protection(
            threshold=0.2,
            strength=4.0,
            inside=0.5,
            before=ImageDecision(score=0.1, is_anomalous=False),
            after=SPLIT,
            plain=SPLIT,
        ),
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_the_same_after_writing_and_reading(
    record: Inspection | EncodedFile, tmp_path: Path
) -> None:
    schema = result_schema(type(record), [])
    path = tmp_path / "part.parquet"
    pq.write_table(pa.Table.from_pylist([record.model_dump(), {ERROR: "cannot be read"}], schema), path)
    first, second = pq.read_table(path).to_pylist()
    assert record_of(first, type(record)) == record
    assert record_of(second, type(record)) is None


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_columns_are_the_fields_of_the_record(record: Inspection | EncodedFile) -> None:
    assert [field.name for field in record_fields(type(record))] == list(type(record).model_fields)


def test_columns_of_the_listing_are_carried_but_do_not_take_the_place_of_others() -> None:
    carried = [pa.field("lot", pa.int32()), pa.field("label", pa.string())]
    schema = result_schema(Inspection, carried)
    assert schema.field("lot").type == pa.int32()
    assert schema.names.count("label") == 1
    with pytest.raises(UsageError, match="score"):
        result_schema(Inspection, [pa.field("score", pa.float64())])
