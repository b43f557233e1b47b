"""Millions of scored pairs through missing, mining and the making of the training set: seconds and peak memory of each.

    python benchmarks/out_of_core.py --millions 1 10 [100] [--folder /scratch] [--svg growth.svg] >> lines.jsonl
    python benchmarks/out_of_core.py --lines lines.jsonl --svg growth.svg       # draws what was measured before

Synthetic English-like queries and passages of about 11 words, 30 candidates a query, in Parquet; half of the pairs are in
the score store already. Each step runs in a process of its own and prints a JSON line: `peak_mb` is the most that was
resident at once, memory-mapped files included; `anonymous_mb` leaves those out; `disk_mb` is the most that was on disk,
spilled files included. What the disk has no room for is skipped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

CANDIDATES = 30
QUERIES_A_BATCH = 5_000
BYTES_A_PAIR = 250
"""Room on disk for a pair: its text twice, the store, what DuckDB spills, the tokens. 10 million pairs took 224 each."""
STEPS = ("make", "missing", "mine", "training set")


def vocabulary() -> list[str]:
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return sorted({"".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(5_000)})


def texts(words: pa.Array, count: int, rng: np.random.Generator) -> pa.Array:
    """So many texts of 8 to 14 words."""
    lengths = rng.integers(8, 15, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    chosen = words.take(pa.array(rng.integers(0, len(words), offsets[-1])))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, chosen), " ")


def make(folder: Path, pairs: int) -> None:
    """Groups and their scored pairs, and a store that holds the first half of them."""
    from distilrank.records import GROUP_SCHEMA
    from distilrank.scoring.store import PART, pair_digest
    from distilrank.shards import append_part

    words, rng = pa.array(vocabulary()), np.random.default_rng(1)
    scored = pa.schema([("query", pa.string()), ("passage", pa.string()), ("score", pa.float64())])
    left, number, kept = pairs // CANDIDATES, 0, pairs // CANDIDATES // 2
    passage = GROUP_SCHEMA.field("passages").type.value_type
    with (
        pq.ParquetWriter(folder / "groups.parquet", GROUP_SCHEMA, compression="zstd") as of_groups,
        pq.ParquetWriter(folder / "scored.parquet", scored, compression="zstd") as of_pairs,
    ):
        while left:
            some = min(left, QUERIES_A_BATCH)
            ids = pa.array([str(n) for n in range(number, number + some)])
            queries = pc.binary_join_element_wise(texts(words, some, rng), ids, " ")
            passages = texts(words, some * CANDIDATES, rng)
            nothing = [pa.nulls(len(passages), field.type) for field in list(passage)[1:]]
            structs = pa.StructArray.from_arrays([passages, *nothing], fields=list(passage))
            lists = pa.ListArray.from_arrays(np.arange(0, len(passages) + 1, CANDIDATES, dtype=np.int32), structs)
            of_groups.write_table(pa.table([ids, queries, lists.cast(GROUP_SCHEMA.field("passages").type)], GROUP_SCHEMA))
            repeated = queries.take(pa.array(np.repeat(np.arange(some), CANDIDATES)))
            scores = pa.array(rng.normal(0, 4, len(passages)))
            of_pairs.write_table(pa.table([repeated, passages, scores], scored))
            first = max(0, min(some, kept - number)) * CANDIDATES
            asked = zip(repeated[:first].to_pylist(), passages[:first].to_pylist(), strict=True)
            digests = pa.array([pair_digest(*pair) for pair in asked], pa.binary())
            if first:
                append_part(store_of(folder).folder, pa.table([digests, scores[:first].cast(pa.float32())], PART))
            left, number = left - some, number + some


def store_of(folder: Path) -> Any:
    from distilrank.scoring import ScoreStore
    from distilrank.teachers import TeacherIdentity

    return ScoreStore(folder / "scores", TeacherIdentity("causal", "logit difference", "synthetic", "bfloat16", 512))


def missing(folder: Path, pairs: int) -> None:
    from distilrank.records import GroupFile

    with store_of(folder).missing(GroupFile(folder / "groups.parquet")) as found:
        read = sum(len(group.passages) for group in found.groups)
        half = pairs // CANDIDATES - pairs // CANDIDATES // 2
        assert read == found.pairs == half * CANDIDATES, (read, found.pairs)


def mine(folder: Path, pairs: int) -> None:
    from distilrank.mining import MiningSettings
    from distilrank.mining import mine as mine_file

    settings = MiningSettings("quantile", passages=12, samples=1)
    assert mine_file(folder / "scored.parquet", folder / "training.parquet", settings, triplets=False) == pairs // CANDIDATES


def training_set(folder: Path, pairs: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from distilrank.records import read_training_groups
    from distilrank.students.dataset import sizes_of, tokenised

    words = ["<s>", "<pad>", "</s>", "<unk>", *vocabulary(), *map(str, range(10))]
    core = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, model_input_names=["input_ids", "attention_mask"], unk_token="<unk>", **names
    )
    rows = read_training_groups(folder / "training.parquet")
    data = tokenised(rows, tokenizer, 512, folder / "tokens", [pairs], lambda done: None)
    assert sizes_of(data).passages.sum() == 12 * (pairs // CANDIDATES)


def watched(step: str, folder: Path, pairs: int) -> None:
    """Run one step in this process and print what it took."""
    stop, anonymous, disk = threading.Event(), 0, 0

    def watch() -> None:
        nonlocal anonymous, disk
        while not stop.wait(0.1):
            anonymous = max(anonymous, status("RssAnon"))
            disk = max(disk, on_disk(folder))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    start = time.perf_counter()
    dict(zip(STEPS, (make, missing, mine, training_set), strict=True))[step](folder, pairs)
    seconds = time.perf_counter() - start
    stop.set()
    thread.join()
    told = {"pairs": pairs, "step": step, "seconds": round(seconds, 1), "peak_mb": status("VmHWM") // 1024}
    print(json.dumps(told | {"anonymous_mb": anonymous // 1024, "disk_mb": max(disk, on_disk(folder)) >> 20}), flush=True)


def on_disk(folder: Path) -> int:
    """Bytes of the files of a folder, which come and go meanwhile."""
    held = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                held += os.lstat(os.path.join(path, name)).st_size
    return held


def drawn(lines: Sequence[dict[str, Any]]) -> str:
    """Peak memory against pairs as an SVG: a line a step, pairs by their logarithm, the limit of 4 GB on top."""
    rows = [line for line in lines if line.get("step") in STEPS[1:]]
    sizes = sorted({row["pairs"] for row in rows})
    low, high = math.log10(sizes[0]), math.log10(sizes[-1])

    def at(pairs: int, megabytes: float) -> tuple[float, float]:
        return 60 + 520 * (math.log10(pairs) - low) / max(high - low, 1e-9), 260 - 230 * megabytes / 4_096

    svg = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 310" font-family="sans-serif" font-size="13">']
    svg.append('<rect width="700" height="310" fill="white"/>')
    for gigabytes in range(5):
        y = at(sizes[0], 1024 * gigabytes)[1]
        svg.append(f'<path d="M60 {y:.1f}H580" stroke="{"#c00" if gigabytes == 4 else "#ddd"}"/>')
        svg.append(f'<text x="52" y="{y + 4:.1f}" text-anchor="end">{gigabytes} GB</text>')
    for pairs in sizes:
        svg.append(f'<text x="{at(pairs, 0)[0]:.1f}" y="280" text-anchor="middle">{pairs / 1e6:.3g} million</text>')
    svg.append(
        '<text x="320" y="302" text-anchor="middle">scored pairs; most memory resident at once, files mapped included</text>'
    )
    last = 1e9
    for step, colour in sorted(zip(STEPS[1:], ("#06c", "#080", "#a50"), strict=True), key=lambda s: -peak(rows, s[0])):
        points = [
            at(row["pairs"], row["peak_mb"]) for row in sorted(rows, key=lambda row: row["pairs"]) if row["step"] == step
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        svg.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        svg += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
        x, y = points[-1]
        last = y = max(y, last + 16) if last < 1e9 else y
        svg.append(f'<text x="{x + 10:.1f}" y="{y + 4:.1f}" fill="{colour}">{step}</text>')
    return "\n".join([*svg, "</svg>\n"])


def peak(rows: Sequence[dict[str, Any]], step: str) -> float:
    """The peak of a step at the largest size at which it was run."""
    return float(max((row["pairs"], row["peak_mb"]) for row in rows if row["step"] == step)[1])


def status(name: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines: Iterator[str] = iter(Path("/proc/self/status").read_text().splitlines())
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 10])
    parser.add_argument("--folder", type=Path, help="where there is room; default: the system's temporary folder")
    parser.add_argument("--svg", type=Path, help="draw the lines of --lines, or those of this call")
    parser.add_argument("--lines", type=Path, help="lines that were measured before: nothing is run")
    parser.add_argument("--step", nargs=3, metavar=("STEP", "FOLDER", "PAIRS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, folder, pairs = options.step
        watched(step, Path(folder), int(pairs))
        return
    lines: list[dict[str, Any]] = []
    if options.lines:
        lines = [json.loads(line) for line in options.lines.read_text().splitlines()]
    else:
        for millions in options.millions:
            lines += measured(round(millions * 1e6) // CANDIDATES * CANDIDATES, options.folder)
    if options.svg:
        options.svg.write_text(drawn(lines))


def measured(pairs: int, where: Path | None) -> list[dict[str, Any]]:
    """All steps with so many pairs, a process each; what each prints is printed here, too."""
    found = []
    with tempfile.TemporaryDirectory(dir=where) as folder:
        free = shutil.disk_usage(folder).free
        if free < pairs * BYTES_A_PAIR:
            told = {"free_gb": free >> 30, "needed_gb": pairs * BYTES_A_PAIR >> 30}
            print(json.dumps({"pairs": pairs, "skipped": "no room on the disk"} | told), flush=True)
            return []
        for step in STEPS:
            command = [sys.executable, __file__, "--step", step, folder, str(pairs)]
            environment = os.environ | {"DISTILRANK_SPILL": folder}
            told = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
            print(told, end="", flush=True)
            found += [json.loads(line) for line in told.splitlines()]
    return found


if __name__ == "__main__":
    main()
