"""Archives of any size, inspected and encoded by the workers of a Ray cluster; results are Parquet files."""

from __future__ import annotations
