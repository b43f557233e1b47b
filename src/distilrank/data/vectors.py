"""The vectors of a corpus on disk, by content: a passage is embedded once, and a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from distilrank.engines.embedder import Embedder
from distilrank.errors import UserError
from distilrank.progress import bar
from distilrank.shards import whole_file

PASSAGES_A_BLOCK = 2_048
"""Passages a file: at most so many are embedded again after a kill."""
PASSAGES_A_STEP = 256


def embedded(passage: Callable[[int], str], count: int, embedder: Embedder, folder: Path) -> list[Path]:
    """A file for each block of passages, in order: unit vectors, float16 [passages of the block, width].

    `passage` gives the text of a number below `count`. A file lies under the embedder's name and is called by the digest of
    its texts, so that another run, or a corpus that has grown at its end, embeds only what is new.
    """
    files = []
    with bar("vectors looked up", count, "passages") as advance:
        for start in range(0, count, PASSAGES_A_BLOCK):
            texts = _block(passage, start, count)
            name = hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).hexdigest()
            files.append(folder / embedder.name / f"{name}.npy")
            advance(len(texts))
    lacking = [number for number, file in enumerate(files) if not file.exists()]
    there = count - sum(len(_range(number * PASSAGES_A_BLOCK, count)) for number in lacking)
    with bar("embed", count, "passages", before=there) if lacking else bar("", 0, "") as advance:
        for number in lacking:
            texts, vectors = _block(passage, number * PASSAGES_A_BLOCK, count), []
            for start in range(0, len(texts), PASSAGES_A_STEP):
                some = texts[start : start + PASSAGES_A_STEP]
                vectors.append(embedder.embed(some, "document").astype(np.float16))
                advance(len(some))
            with whole_file(files[number]) as temporary, temporary.open("wb") as stream:
                np.save(stream, np.concatenate(vectors), allow_pickle=False)
    return files


def read_block(file: Path) -> np.ndarray:
    """The vectors of a block, float32. Raises `UserError` when the file is not what was written."""
    try:
        # Read and not mapped: pages of a mapping would count as memory of this process.
        vectors: np.ndarray = np.load(file, allow_pickle=False)
        return vectors.astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file}: not whole, delete it and it is made anew: {error}") from None


def _range(start: int, count: int) -> range:
    return range(start, min(start + PASSAGES_A_BLOCK, count))


def _block(passage: Callable[[int], str], start: int, count: int) -> list[str]:
    return [passage(number) for number in _range(start, count)]
