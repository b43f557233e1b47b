"""Pairs a second of a causal teacher of Qwen3-8B's shape (random weights): padded transformers against the packed engine.

    python benchmarks/qwen_tokenizer.py /tmp/qwen
    python benchmarks/teacher_throughput.py --tokenizer /tmp/qwen                # one H100, minutes
    python benchmarks/teacher_throughput.py --tokenizer /tmp/qwen --tiny         # on a CPU, to see that it runs

All arms get the same texts, in one process. Each prints a JSON line: `engine` arms time the model alone on rows that are
laid out already (median over rows), `end to end` arms time everything from text to the store, tokenising included.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from distilrank.engines.float8 import to_float8
from distilrank.engines.packing import make_ready
from distilrank.records import Group, Passage
from distilrank.scoring import ScoreStore, score
from distilrank.teachers.base import TeacherIdentity
from distilrank.teachers.causal import CausalTeacher

SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
TINY = SHAPE | {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
PASSAGES = 30
WORKLOADS = {"short": (11, 4), "long": (300, 80)}
"""Mean and deviation of a passage's tokens; a query has 11 +- 3."""


PADDED_ROWS = {"short": 160, "long": 40}


def tell(**values: Any) -> None:
    print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in values.items()}), flush=True)


def words(tokenizer: Any) -> list[str]:
    """Whole English-looking words that are one token each."""
    texts = tokenizer.convert_ids_to_tokens(range(1_000, 60_000))
    return [text[1:] for text in texts if text.startswith("Ġ") and text[1:].isascii() and text[1:].isalpha()]


def some_groups(vocabulary: Sequence[str], queries: int, workload: str, seed: int) -> list[Group]:
    rng = random.Random(seed)
    mean, deviation = WORKLOADS[workload]

    def text(mean: int, deviation: int) -> str:
        return " ".join(rng.choices(vocabulary, k=max(4, min(4 * mean, round(rng.gauss(mean, deviation))))))

    return [
        Group(str(i), text(11, 3), tuple(Passage(text(mean, deviation)) for _ in range(PASSAGES))) for i in range(queries)
    ]


def random_model(shape: dict[str, Any], device: str) -> Any:
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = Qwen3ForCausalLM(Qwen3Config(**shape)).eval().requires_grad_(False)
    torch.set_default_dtype(default)
    return model


def teacher_of(tokenizer: Path, model: Any, engine: str, dtype: str, device: str) -> CausalTeacher:
    """A teacher around a model that no folder holds."""
    teacher = CausalTeacher(tokenizer, engine=engine, dtype="bfloat16", device=device)
    vars(teacher.decoder)["model"] = model
    name = f"random, {engine}, {dtype}"
    vars(teacher)["identity"] = TeacherIdentity("causal", "logit difference", name, dtype, teacher.decoder.max_length)
    return teacher


def engine_alone(teacher: CausalTeacher, groups: Sequence[Group], flops: float, ceiling: float, **named: Any) -> None:
    """Rows one by one, after two to warm up."""
    asked = teacher.prompts(groups)
    laid = teacher.decoder.lay_out(asked.sequences, asked.tails)
    rows = [row for row in laid.rows if len(row.ids) > 0.9 * teacher.decoder.budget] or list(laid.rows)
    single = [type(laid)(laid.sequences, laid.tails, [row]) for row in rows]
    start = time.perf_counter()
    teacher.decoder.read(single[0], teacher._logits)
    first = time.perf_counter() - start
    teacher.decoder.read(single[1 % len(single)], teacher._logits)
    seconds = []
    for one in single[2:] or single:
        start = time.perf_counter()
        teacher.decoder.read(one, teacher._logits)
        seconds.append(time.perf_counter() - start)
    timed = rows[2:] or rows
    rate = statistics.median(len(row.numbers) / s for row, s in zip(timed, seconds, strict=True))
    tokens = statistics.median(teacher.decoder.budget / s for s in seconds)
    per_pair = sum(len(row.ids) for row in rows) / sum(len(row.numbers) for row in rows)
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    tflops = tokens * flops / 1e12
    tell(
        arm="engine",
        **named,
        pairs_s=rate,
        rows=len(timed),
        row=teacher.decoder.budget,
        row_s=statistics.median(seconds),
        tokens_a_pair=per_pair,
        tflops=tflops,
        of_ceiling=tflops / ceiling if ceiling else 0.0,
        first_call_s=first,
        gib=memory,
    )


def end_to_end(teacher: CausalTeacher, groups: Sequence[Group], warm: Sequence[Group], **named: Any) -> None:
    """From text to the store, tokenising included; `warm` groups first, so that nothing is compiled in the timing."""
    with tempfile.TemporaryDirectory() as folder:
        store = ScoreStore(folder, teacher.identity)
        start = time.perf_counter()
        score(warm, teacher, store)
        warmed = time.perf_counter() - start
        start = time.perf_counter()
        pairs = score(groups, teacher, store)
        seconds = time.perf_counter() - start
        parts = len(list(store.folder.glob("part-*.parquet")))
    tell(arm="end to end", **named, pairs_s=pairs / seconds, pairs=pairs, seconds=seconds, warm_s=warmed, parts=parts)


def padded_alone(teacher: CausalTeacher, groups: Sequence[Group], rows: int, **named: Any) -> np.ndarray:
    """Plain transformers from text to scores: `rows` a batch as they come, and sorted by length under a token budget."""

    def as_they_come() -> np.ndarray:
        prompts = teacher.prompts(groups)
        batches = range(0, len(prompts.sequences), rows)
        laid = [teacher.decoder.lay_out(prompts.sequences[i : i + rows], prompts.tails[i : i + rows]) for i in batches]
        return np.concatenate([teacher.decoder.read(one, teacher._logits) for one in laid])

    def sorted_by_length() -> np.ndarray:
        return np.concatenate(teacher.score(groups))

    teacher.score(groups[:2])
    for arm, way in ((f"padded, {rows} a batch as they come", as_they_come), ("padded, sorted by length", sorted_by_length)):
        start = time.perf_counter()
        scores = way()
        seconds = time.perf_counter() - start
        tell(arm=arm, **named, pairs_s=len(scores) / seconds, pairs=len(scores), seconds=seconds)
    return scores


def ceiling_of(dtype: torch.dtype, device: str) -> float:
    """TFLOP/s of an 8192-cubed product."""
    n = 8192
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    b = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    if dtype == torch.float8_e4m3fn:
        a8, b8 = a.to(dtype), b.to(dtype).t()
        scale = torch.ones(n, 1, device=device)
        product = lambda: torch._scaled_mm(  # noqa: E731
            a8, b8, scale_a=scale, scale_b=scale.t().contiguous(), out_dtype=torch.bfloat16, use_fast_accum=True
        )
    else:
        product = lambda: a @ b  # noqa: E731
    for _ in range(3):
        product()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        product()
    torch.cuda.synchronize()
    return 20 * 2 * n**3 / (time.perf_counter() - start) / 1e12


def agreement(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    centred = [(x.reshape(-1, PASSAGES) - x.reshape(-1, PASSAGES).mean(1, keepdims=True)).ravel() for x in (found, expected)]
    return {
        "relative_error_within_query": float(np.linalg.norm(centred[0] - centred[1]) / np.linalg.norm(centred[1])),
        "correlation_within_query": float(np.corrcoef(*centred)[0, 1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--arms", default="padded,bfloat16,float8,float8-keep2")
    parser.add_argument("--workloads", default="short,long")
    parser.add_argument("--queries", type=int, nargs=2, default=(2_000, 220), help="end to end, short and long")
    parser.add_argument("--budget", type=int)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() and not options.tiny else "cpu"
    gpu = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    ceilings = {d: ceiling_of(d, device) if device == "cuda" else 0.0 for d in (torch.bfloat16, torch.float8_e4m3fn)}
    tell(
        machine=gpu,
        torch=torch.__version__,
        ceiling_bf16=ceilings[torch.bfloat16],
        ceiling_fp8=ceilings[torch.float8_e4m3fn],
    )
    start = time.perf_counter()
    model = random_model(TINY if options.tiny else SHAPE, device)
    flops = 2.0 * sum(p.numel() for name, p in model.named_parameters() if "proj" in name)
    tell(built_s=time.perf_counter() - start, linear_gflop_a_token=flops / 1e9)
    tokenizer = teacher_of(options.tokenizer, model, "plain", "bfloat16", device).decoder.tokenizer
    vocabulary = words(tokenizer)
    workloads = options.workloads.split(",")
    sizes = dict(zip(("short", "long"), (4, 2) if options.tiny else options.queries, strict=True))
    data = {name: some_groups(vocabulary, sizes[name], name, 1) for name in workloads}
    warm = {
        name: some_groups(vocabulary, 4 if options.tiny else {"short": 150, "long": 12}[name], name, 2) for name in workloads
    }
    arms = options.arms.split(",")
    reference: dict[str, np.ndarray] = {}
    if "padded" in arms:
        plain = teacher_of(options.tokenizer, model, "plain", "bfloat16", device)
        for name in workloads:
            reference[name] = padded_alone(
                plain, data[name][: {"short": 64, "long": 16}[name]], PADDED_ROWS[name], workload=name
            )
    make_ready(model)
    for arm in ("bfloat16", "float8-keep2", "float8"):
        if arm not in arms:
            continue
        if arm.startswith("float8"):
            to_float8(model, 2 if arm == "float8-keep2" else 0)
            torch._dynamo.reset()
            if device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
        teacher = teacher_of(options.tokenizer, model, "packed", arm, device)
        teacher.decoder.budget = options.budget or teacher.decoder.budget
        ceiling = ceilings[torch.float8_e4m3fn if arm.startswith("float8") else torch.bfloat16]
        for name in workloads:
            few = data[name][: {"short": 500, "long": 40}[name]]
            engine_alone(teacher, few, flops, ceiling, dtype=arm, workload=name)
            end_to_end(teacher, data[name], warm[name], dtype=arm, workload=name)
            if name in reference:
                queries = len(reference[name]) // PASSAGES
                found = np.concatenate(teacher.score(data[name][:queries]))
                tell(arm="agreement with padded bfloat16", dtype=arm, workload=name, **agreement(found, reference[name]))


if __name__ == "__main__":
    main()
