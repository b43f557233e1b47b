"""Vectors of a corpus are kept by content: nothing is embedded twice, and what is not whole is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilrank.data.vectors import embedded, read_block
from distilrank.errors import UserError


class Counting:
    """Stands in for an embedder: counts what it is asked, and may be killed."""

    def __init__(self, name: str = "one", most: int = 10**6) -> None:
        self.name, self.most, self.asked = name, most, 0

    def embed(self, texts: Sequence[str], role: str) -> np.ndarray:
        assert role == "document"
        self.asked += len(texts)
        if self.asked > self.most:
            raise KeyboardInterrupt
        return np.array([[len(text), *map(ord, text[:2])] for text in texts], dtype=np.float32)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilrank.data.vectors.PASSAGES_A_BLOCK", 4)


TEXTS = [f"passage {number}" for number in range(10)]


def vectors(texts: Sequence[str], embedder: Any, folder: Path) -> np.ndarray:
    return np.concatenate([read_block(file) for file in embedded(texts.__getitem__, len(texts), embedder, folder)])


def test_a_corpus_is_embedded_once_and_one_that_grew_at_its_end_anew_from_its_last_block(tmp_path: Path) -> None:
    embedder = Counting()
    first = vectors(TEXTS, embedder, tmp_path)
    np.testing.assert_array_equal(first, Counting().embed(TEXTS, "document"))
    assert embedder.asked == 10
    np.testing.assert_array_equal(vectors(TEXTS, embedder, tmp_path), first)
    assert embedder.asked == 10
    vectors([*TEXTS, "new"], embedder, tmp_path)
    assert embedder.asked == 13
    other = Counting("other")
    vectors(TEXTS, other, tmp_path)
    assert other.asked == 10


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        vectors(TEXTS, Counting(most=8), tmp_path)
    embedder = Counting()
    assert len(vectors(TEXTS, embedder, tmp_path)) == 10
    assert embedder.asked == 2


def test_a_file_that_is_not_whole_is_named(tmp_path: Path) -> None:
    *_, last = embedded(TEXTS.__getitem__, 10, Counting(), tmp_path)  # type: ignore[arg-type]
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{last.name}: not whole, delete it"):
        read_block(last)
