"""Near duplicates: texts that share most of their letters in a row, joined into clusters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from zlib import crc32

import numpy as np

from distilrank.errors import UserError
from distilrank.progress import bar

THRESHOLD = 0.8
"""The share of common shingles from which two texts are near duplicates, where nothing else is asked for."""
SHINGLE = 4
"""Letters in a row: works alike in languages with and without spaces."""
HASHES = 128
"""Hash functions a sketch; what is kept of it in memory is 8 bytes a band."""
_NO_WORD = re.compile(r"[\W_]+")


def plain(text: str) -> str:
    """A text without what makes no difference: case, width, punctuation and spaces. One with nothing else stays."""
    return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip() or text


def shingles(text: str) -> set[str]:
    """Each run of `SHINGLE` letters of the plain text; a shorter text is its own only one."""
    text = plain(text)
    return {text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1))}


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of two texts' shingles, in [0, 1]."""
    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


def clusters(texts: Iterable[str], threshold: float = THRESHOLD) -> np.ndarray:
    """A cluster number a text, int64 [texts], numbered from 0 in order of first appearance.

    Two texts lie in one cluster when a chain of texts joins them, each at least `threshold` similar to the next (single
    linkage). Candidates come from MinHash with locality-sensitive hashing (Broder 1997; Indyk and Motwani 1998), with
    datasketch's sketches; each is then confirmed by its exact similarity, so that nothing is joined by chance, while a pair
    right at the threshold is missed in about 2 of 100 cases, the same ones every time. Raises `UserError` when the
    threshold does not lie in (0, 1].
    """
    from datasketch import MinHash
    from scipy.cluster.hierarchy import DisjointSet

    if not 0 < threshold <= 1:
        raise UserError(f"a threshold of near duplicates lies above 0 and at most at 1, not at {threshold}")
    unique: dict[str, int] = {}
    which = [unique.setdefault(plain(text), len(unique)) for text in texts]
    kept = list(unique)
    bands, rows_a_band = _bands(threshold)
    mixed = np.random.default_rng(0).integers(0, 2**63, (bands, rows_a_band), dtype=np.uint64) | np.uint64(1)
    sketches = np.empty((bands, len(kept)), dtype=np.uint64)
    sketch = MinHash(num_perm=HASHES, seed=1, hashfunc=crc32)  # its permutations take longer to draw than a text to hash
    with bar("near duplicates", len(kept), "texts") as advance:
        for number, text in enumerate(kept):
            sketch.clear()
            sketch.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in shingles(text)])
            rows = sketch.hashvalues[: bands * rows_a_band].astype(np.uint64).reshape(bands, rows_a_band)
            # Modulo 2^64; what is equal by chance is told apart below.
            sketches[:, number] = (rows * mixed).sum(axis=1)
            advance(1)
    joined = DisjointSet(range(len(kept)))
    for band in sketches:
        for bucket in _equal(band):
            for place, one in enumerate(bucket):
                for other in bucket[:place]:
                    if not joined.connected(one, other) and similarity(kept[one], kept[other]) >= threshold:
                        joined.merge(one, other)
    numbers: dict[int, int] = {}
    return np.asarray([numbers.setdefault(joined[place], len(numbers)) for place in which], dtype=np.int64)


@cache
def _bands(threshold: float) -> tuple[int, int]:
    """How many bands of how many hashes find the pairs from a threshold on; worked out by numerical integration, slowly."""
    from datasketch import MinHashLSH

    # Mostly recall: what is found too much is sorted out by the exact similarity. Above 0.95 there would be a single band.
    bands = MinHashLSH(threshold=min(threshold, 0.95), num_perm=HASHES, weights=(0.02, 0.98))
    return bands.b, bands.r


def _equal(values: np.ndarray) -> Iterator[list[int]]:
    """The numbers of the values that are equal to another, bucket by bucket."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, values[order][1:] != values[order][:-1]]) if len(values) else np.empty(0, int)
    ends = np.r_[starts[1:], len(values)]
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        yield order[start:end].tolist()
