"""One way to open DuckDB for data larger than memory: a memory limit, and a folder of its own that it spills to.

`DISTILRANK_SPILL` sets where that folder is made (default: the system's temporary folder, which `TMPDIR` moves),
`DISTILRANK_MEMORY` what DuckDB may hold before it spills (default: 2GB).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distilrank.errors import UserError

MEMORY = "2GB"
MOST_THREADS = 8
"""Each sorts and joins in memory of its own: a hundred of them would reach the limit before anything is spilled."""


@contextmanager
def spilling_database() -> Iterator[Any]:
    """A DuckDB connection whose tables and sorts may be larger than memory; all of it is deleted at the end.

    Raises `UserError` where the folder or the limit that the environment asks for cannot be had.
    """
    import duckdb

    where, memory = os.environ.get("DISTILRANK_SPILL") or None, os.environ.get("DISTILRANK_MEMORY") or MEMORY
    if where:
        try:
            Path(where).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"DISTILRANK_SPILL={where}: cannot be made: {error.strerror}") from None
    with tempfile.TemporaryDirectory(prefix="distilrank-", dir=where) as folder:
        database = duckdb.connect(f"{folder}/spill.duckdb")
        try:
            database.execute("SET enable_progress_bar = false")  # it would draw on standard output
            database.execute("SET preserve_insertion_order = false")
            database.execute(f"SET threads = {min(os.cpu_count() or 1, MOST_THREADS)}")
            database.execute("SET temp_directory = $1", [f"{folder}/spill"])
            try:
                database.execute("SET memory_limit = $1", [memory])
            except duckdb.Error:
                raise UserError(f"DISTILRANK_MEMORY={memory}: write a size, like 2GB") from None
            yield database
        finally:
            database.close()
