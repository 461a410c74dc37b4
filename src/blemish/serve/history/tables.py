"""Tables of the history in SQL, the same in SQLite and in PostgreSQL.

Times are whole microseconds since 1970 in UTC. Decisions and verdicts are never changed: a trigger refuses it. A
decision's model and source stand once in ``streams``. ``hours`` and ``score_counts`` sum the decisions of each stream and hour as they are
added, so that counts and charts over a week read a few hundred rows; the bounds of the numbers in each hour lead from a
time to the rows, whatever the clock did.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

_Number = BigInteger().with_variant(Integer, "sqlite")
"""Only a column of the type INTEGER is SQLite's own number of a row."""

schema = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("written_by", Text, nullable=False),
)
"""Each version that this database went through, and the version of Blemish that brought it there."""

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("last", BigInteger, nullable=False),
)
"""The last number given, which is never given again, also where its row was removed."""

streams = Table(
    "streams",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("model", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    Column("source", Text, nullable=False),
    UniqueConstraint("model", "model_sha256", "source"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("stream", Integer, ForeignKey("streams.id"), nullable=False),
    Column("is_anomalous", SmallInteger, nullable=False),
    Column("score", Double, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("pixel_threshold", Double, nullable=False),
    Column("p_value", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("other_kind", Text),
    Column("request", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("image_sha256", Text, nullable=False),
    Column("regions", Text, nullable=False),
    Column("classes", Text, nullable=False),
    Index("decisions_by_stream", "stream", "is_anomalous", "id"),
    Index("decisions_by_score", "is_anomalous", "score", "time", "stream", "other_kind"),
)

hours = Table(
    "hours",
    metadata,
    Column("hour", Integer, primary_key=True),
    Column("stream", Integer, ForeignKey("streams.id"), primary_key=True),
    Column("is_anomalous", SmallInteger, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("first_id", BigInteger, nullable=False),
    Column("last_id", BigInteger, nullable=False),
    Column("score_sum", Double, nullable=False),
)
"""``hour`` counts hours since 1970; ``score_sum`` is that of the scores."""

score_counts = Table(
    "score_counts",
    metadata,
    Column("hour", Integer, primary_key=True),
    Column("stream", Integer, ForeignKey("streams.id"), primary_key=True),
    Column("kind", SmallInteger, primary_key=True),
    Column("bin", Integer, primary_key=True),
    Column("count", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Decisions of each hour and kind by bins of their scores (:mod:`blemish.serve.history.score_bins`)."""

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("decision", BigInteger, ForeignKey("decisions.id"), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("is_right", Boolean, nullable=False),
    Column("label", Text),
    Column("shapes", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("note", Text, nullable=False),
    Index("verdicts_by_decision", "decision", "id"),
    sqlite_autoincrement=True,
)

kept_images = Table(
    "kept_images",
    metadata,
    Column("decision", _Number, ForeignKey("decisions.id"), primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False, unique=True),
    Column("bytes", BigInteger, nullable=False),
    Column("until_delivered", Boolean, nullable=False),
    Index("kept_until_delivered", "until_delivered", "decision"),
)
"""Decisions whose image and map are in the folder of images, under the name ``key``; the rows go with the files."""

outbox = Table(
    "outbox",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("sink", Text, nullable=False),
    Column("decision", BigInteger, ForeignKey("decisions.id"), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_try", BigInteger, nullable=False),
    Column("error", Text),
    UniqueConstraint("sink", "decision"),
    Index("outbox_by_decision", "decision"),
    sqlite_autoincrement=True,
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("sink", Text, nullable=False),
    Column("decision", BigInteger, ForeignKey("decisions.id"), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Index("deliveries_by_decision", "decision"),
)
"""What has arrived; the number is that of the outbox."""
