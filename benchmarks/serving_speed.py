"""Pairs a second and milliseconds a query: sentence-transformers as it is and tuned, ours in torch and onnxruntime.

    distilrank export demo:reranker -o /tmp/onnx --format onnx
    distilrank export demo:reranker -o /tmp/int8 --format onnx-int8
    python benchmarks/serving_speed.py --threads 2 --onnx /tmp/onnx --int8 /tmp/int8     # the demo's student, on a CPU
    python benchmarks/serving_speed.py --large                                           # XLM-R-large's shape, a GPU
    python benchmarks/serving_speed.py --large --queries 2 --rounds 2                    # the same on a CPU: minutes an arm
    python benchmarks/serving_speed.py --rounds 1 --queries 1 --map-queries 2            # to see that it runs

One process, all arms on the same texts, tokenising included; the arms take turns, round by round, so that whatever else the
machine does hits all of them. `single` is one query with 30 candidates at a time, `batched` all queries at once, and those
of `--bulk` more. The arms:

    default   CrossEncoder.predict as it is: float32, 32 pairs a batch, sorted by length
    tuned     the same with bfloat16 where the hardware multiplies it, if faster, and the best of several batch sizes
    torch     engines/fast.py, what `distilrank serve` runs
    onnx, int8   serving/engine.py on exported folders, if given

With a real model each arm's MAP on a labelled set (DISTILRANK_DATA, default ../shared/data) is told beside its difference to
the default's; the random one has no MAP, so Kendall's tau with the default's order within queries is told for all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import tiny
from distilrank.engines.classifier import encode_pairs
from distilrank.engines.fast import FastReranker
from distilrank.engines.load import device_of, has_bfloat16
from distilrank.metrics import measure
from distilrank.records import Group, Passage, read_groups
from distilrank.serving.engine import open_engine
from distilrank.serving.settings import ServeSettings
from large import large_model

Arm = Callable[[Sequence[Group]], list[np.ndarray]]
CANDIDATES = 30


def tell(**values: Any) -> None:
    print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in values.items()}), flush=True)


def made_up(queries: int, tokens: int) -> list[Group]:
    rng = random.Random(0)

    def words(mean: float) -> str:
        return " ".join(rng.choices(tiny.WORDS, k=max(2, round(rng.gauss(mean, mean / 3)))))

    return [Group(str(n), words(8), tuple(Passage(words(tokens - 12)) for _ in range(CANDIDATES))) for n in range(queries)]


def lengthened(groups: Sequence[Group], tokenizer: Any, tokens: int) -> list[Group]:
    """The same queries with passages joined to their neighbours until pairs have about so many tokens."""
    result = []
    for group in groups:
        texts = [passage.text for passage in group.passages]
        joined = []
        for place in range(min(CANDIDATES, len(texts))):
            text, other = texts[place], place
            while len(tokenizer(group.query, text)["input_ids"]) < tokens - 6:
                other += 1
                text += " " + texts[other % len(texts)]
            joined.append(Passage(text))
        result.append(Group(group.query_id, group.query, tuple(joined)))
    return result


def pairs_of(groups: Sequence[Group]) -> list[tuple[str, str]]:
    return [(group.query, passage.text) for group in groups for passage in group.passages]


def split(values: np.ndarray, groups: Sequence[Group]) -> list[np.ndarray]:
    return np.split(values, np.cumsum([len(group.passages) for group in groups])[:-1])


def theirs(folder: Path, device: str, dtype: str, batch: int) -> Arm:
    from sentence_transformers import CrossEncoder

    kind = {"model_kwargs": {"dtype": getattr(torch, dtype)}}
    model = CrossEncoder(str(folder), max_length=512, device=device, activation_fn=torch.nn.Identity(), **kind)

    def score(groups: Sequence[Group]) -> list[np.ndarray]:
        return split(model.predict(pairs_of(groups), batch_size=batch).astype(np.float32), groups)

    return score


def tuned(folder: Path, device: str, groups: Sequence[Group]) -> Arm:
    """The fastest of batch sizes and of float32 and bfloat16, by pairs a second on the groups at once."""
    kinds = ["float32", "bfloat16"] if has_bfloat16(device) else ["float32"]
    sizes = (32, 128, 512, 1024) if device == "cuda" else (8, 32, 128)
    best: tuple[float, Arm, str, int] | None = None
    for dtype in kinds:
        for size in sizes:
            arm = theirs(folder, device, dtype, size)
            arm(groups[:1])
            seconds = min(clocked(arm, groups) for _ in range(2))
            if best is None or seconds < best[0]:
                best = seconds, arm, dtype, size
    assert best is not None
    tell(tuned={"dtype": best[2], "batch": best[3]})
    return best[1]


def ours(folder: Path, device: str) -> Arm:
    model = FastReranker(folder, max_length=512, device=device)
    return lambda groups: model.score(groups)


def exported(folder: Path, threads: int | None) -> Arm:
    engine = open_engine(folder, ServeSettings(engine="onnx", threads=threads))

    def score(groups: Sequence[Group]) -> list[np.ndarray]:
        pairs = pairs_of(groups)
        encoded = encode_pairs(engine.tokenizer, [q for q, _ in pairs], [p for _, p in pairs], 512)
        return split(engine.score(encoded), groups)

    return score


def clocked(arm: Arm, groups: Sequence[Group]) -> float:
    start = time.perf_counter()
    arm(groups)
    return time.perf_counter() - start


def order_agreement(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    return float(np.mean([kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)]))


def quality(arms: dict[str, Arm], groups: Sequence[Group], labelled: bool) -> dict[str, dict[str, float]]:
    reference: list[np.ndarray] = []
    found: dict[str, dict[str, float]] = {}
    for name, arm in arms.items():
        scores = arm(groups)
        reference = reference or scores
        found[name] = {
            "largest_difference": max(float(np.abs(a - b).max()) for a, b in zip(scores, reference, strict=True)),
            "tau": order_agreement(scores, reference),
        }
        if labelled:
            found[name]["map"] = measure(groups, scores, ("AP",)).mean("AP")
            found[name]["map_difference"] = found[name]["map"] - found["default"]["map"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder; default: the demo's student")
    parser.add_argument("--large", action="store_true", help="XLM-R-large's shape with random weights")
    parser.add_argument("--onnx", type=Path, help="a folder of `distilrank export --format onnx`")
    parser.add_argument("--int8", type=Path, help="a folder of `distilrank export --format onnx-int8`")
    parser.add_argument("--arms", nargs="+", default=["default", "tuned", "torch", "onnx", "int8"])
    parser.add_argument("--tokens", type=int, default=50, help="of a timed pair, about")
    parser.add_argument("--queries", type=int, default=20, help="timed")
    parser.add_argument("--bulk", type=int, default=0, help="further queries of `batched`; made-up ones, with --large alone")
    parser.add_argument("--map-queries", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = device_of(options.device)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    tell(machine=name, bfloat16=has_bfloat16(device), threads=torch.get_num_threads(), torch=torch.__version__)
    with tempfile.TemporaryDirectory() as scratch:
        labelled: list[Group] = []
        if options.large:
            folder = large_model(Path(scratch) / "large", device, 0.05)
            bulk = made_up(options.queries + options.bulk, options.tokens)
        else:
            from distilrank.demo import demo_model

            folder = options.model or demo_model("reranker")
            data = Path(os.environ.get("DISTILRANK_DATA", "../shared/data")) / "askubuntu_dup/test.jsonl"
            labelled = list(read_groups(data))[: options.map_queries]
            bulk = lengthened(labelled[: options.queries], FastReranker(folder).tokenizer, options.tokens)
        timed = bulk[: options.queries]
        makers: dict[str, Callable[[], Arm]] = {
            "default": lambda: theirs(folder, device, "float32", 32),
            "tuned": lambda: tuned(folder, device, bulk[: max(2, options.queries // 4, options.bulk // 8)]),
            "torch": lambda: ours(folder, device),
            "onnx": lambda: exported(options.onnx, options.threads),
            "int8": lambda: exported(options.int8, options.threads),
        }
        given = {"onnx": options.onnx, "int8": options.int8}
        arms = {arm: makers[arm]() for arm in options.arms if arm not in given or given[arm]}
        found = quality(arms, labelled or timed, bool(labelled))
        single: dict[str, list[float]] = {arm: [] for arm in arms}
        batched: dict[str, list[float]] = {arm: [] for arm in arms}
        for arm in arms.values():
            if device == "cpu":
                arm(timed[:1])
                continue
            for _ in range(2):  # shapes are met, graphs captured
                for group in timed:
                    arm([group])
                arm(bulk)
        for turn in range(options.rounds):
            for arm in random.Random(turn).sample(sorted(arms), len(arms)):
                single[arm] += [clocked(arms[arm], [group]) for group in timed]
                batched[arm].append(clocked(arms[arm], bulk))
        tell(single_pairs=len(pairs_of(timed[:1])), batched_pairs=len(pairs_of(bulk)))
        rates = {
            arm: (len(pairs_of(timed)) / len(timed) / np.median(single[arm]), len(pairs_of(bulk)) / np.median(batched[arm]))
            for arm in arms
        }
        for arm in arms:
            tell(
                arm=arm,
                p50_ms=1e3 * float(np.median(single[arm])),
                p95_ms=1e3 * float(np.percentile(single[arm], 95)),
                single_pairs_s=float(rates[arm][0]),
                batched_pairs_s=float(rates[arm][1]),
                **{
                    f"{way}_times_{other}": float(rates[arm][place] / rates[other][place])
                    for other in ("default", "tuned")
                    if other in arms
                    for place, way in enumerate(("single", "batched"))
                },
                **found[arm],
            )


if __name__ == "__main__":
    main()
