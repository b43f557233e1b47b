"""Reading rows of JSON lines and Parquet, a batch at a time. What is refused is tested with the records."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from distilrank.rows import file_rows


def test_what_has_been_read_of_a_parquet_file_is_not_held(tmp_path: Path) -> None:
    rng = random.Random(0)
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(tmp_path / "rows.parquet", schema, compression="none", use_dictionary=False) as writer:
        for _ in range(16):
            writer.write_table(pa.table({"text": [rng.randbytes(250).hex() for _ in range(1_000)]}, schema))
    assert (tmp_path / "rows.parquet").stat().st_size > 8_000_000
    tracemalloc.start()
    try:
        assert sum(1 for _ in file_rows(tmp_path / "rows.parquet", None)) == 16_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000
