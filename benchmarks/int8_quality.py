"""What int8 costs in quality: the float32 ONNX export of a reranker against its int8 forms, on all queries of labelled sets.

    python benchmarks/int8_quality.py                                   # demo:reranker, askubuntu_dup and trecqa
    python benchmarks/int8_quality.py --model MODEL --sets cosqa epqa --threads 2
    python benchmarks/int8_quality.py --queries 3                       # to see that it runs: two minutes

One JSON line a set and form: MAP, what it gained with its 95 % bootstrap interval and the p of the paired t-test,
whether a loss is within the gate of `distilrank export`, Kendall's tau within queries, the largest and the root mean square
difference of a logit, megabytes, and seconds of CPU to score the set (no benchmark of speed). The forms:

    default   what `distilrank export --format onnx-int8` writes
    plain     the same with the second product of each feed-forward part in int8, too
    uint8     plain, with 8 bits and unsigned: saturates without a word on CPUs without VNNI
    static    what `--calibrate` writes: ranges of activations fixed on 32 groups of the set's training file
    blocks    weights in blocks of 32, activations quantised block by block (MatMulNBits, 8 bits)

Data: `$DISTILRANK_DATA`, default ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from distilrank.engines.load import load_tokenizer
from distilrank.evidence.significance import paired
from distilrank.metrics import measure
from distilrank.pipeline.ask import resolve_model
from distilrank.progress import bar
from distilrank.records import Group, read_groups
from distilrank.students.export import onnx
from distilrank.students.export.export import MAX_LOSS
from distilrank.students.export.layout import length_of
from distilrank.students.export.scorers import batches, onnx_forward, score

CALIBRATED_ON = 32


def tell(**values: Any) -> None:
    print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in values.items()}), flush=True)


def blocks(source: Path, target: Path) -> None:
    """The quantiser's own default for language models: nothing of it depends on the batch."""
    import onnx as library
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    with onnx.prepared(source) as file:
        settings = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=False, accuracy_level=4, bits=8)
        quantiser = MatMulNBitsQuantizer(library.load(str(file)), algo_config=settings)
        quantiser.process()
        quantiser.model.save_model_to_file(str(target), False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo:reranker")
    parser.add_argument("--sets", nargs="+", default=["askubuntu_dup", "trecqa"])
    parser.add_argument("--forms", nargs="+", default=["default", "plain", "uint8", "static", "blocks"])
    parser.add_argument("--queries", type=int, help="of a set, the first; default: all")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)  # what onnx_forward reads
    data = Path(os.environ.get("DISTILRANK_DATA", Path(__file__).parents[1] / "../shared/data"))
    folder = Path(resolve_model(options.model, offline=False))
    tokenizer = load_tokenizer(folder)
    longest = length_of(folder, tokenizer)
    tell(machine=cpu(), threads=options.threads, model=options.model, gate=MAX_LOSS)
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "float32.onnx"
        onnx.write_onnx(folder, tokenizer, plain)
        for name in options.sets:
            groups = list(islice(read_groups(data / name / "test.jsonl"), options.queries))
            training = list(islice(read_groups(data / name / "train.jsonl"), CALIBRATED_ON))
            seen = [inputs for _, inputs in batches(training, tokenizer, longest)]
            writers: dict[str, Callable[[Path, Path], None]] = {
                "default": onnx.quantise_dynamic,
                "plain": lambda source, target: onnx.quantise_dynamic(source, target, everything=True),
                "uint8": lambda source, target: onnx.quantise_dynamic(source, target, everything=True, bits=8),
                "static": lambda source, target, seen=seen: onnx.quantise_static(source, target, seen),  # type: ignore[misc]
                "blocks": blocks,
            }
            before, seconds = scored(groups, tokenizer, longest, plain)
            value = measure(groups, before, ("AP",))
            told = {"set": name, "queries": len(groups), "pairs": sum(map(len, before))}
            tell(**told, form="float32", MAP=value.mean("AP"), MB=megabytes(plain), cpu_seconds=seconds)
            for form in options.forms:
                file = Path(scratch) / f"{form}.onnx"
                writers[form](plain, file)
                after, seconds = scored(groups, tokenizer, longest, file)
                tell(**told, form=form, **compared(groups, value, before, after), MB=megabytes(file), cpu_seconds=seconds)


def scored(groups: list[Group], tokenizer: Any, longest: int, file: Path) -> tuple[list[np.ndarray], float]:
    start = time.process_time()
    with bar(f"  {file.stem}", sum(len(group.passages) for group in groups), "pairs") as advance:
        return score(groups, tokenizer, longest, onnx_forward(file), advance), time.process_time() - start


def compared(groups: list[Group], value: Any, before: list[np.ndarray], after: list[np.ndarray]) -> dict[str, Any]:
    found = measure(groups, after, ("AP",))
    test = paired(found.values["AP"], value.values["AP"])
    off = np.concatenate(after) - np.concatenate(before)
    taus = [kendalltau(a, b).statistic for a, b in zip(before, after, strict=True) if np.ptp(a) > 0]
    return {
        "MAP": found.mean("AP"),
        "gain": float(test.difference),
        "interval": [round(float(test.low), 4), round(float(test.high), 4)],
        "p": float(test.p),
        "within_gate": bool(-test.difference <= MAX_LOSS),
        "kendall_tau": float(np.mean(taus)),
        "max_difference": float(np.abs(off).max()),
        "rms_difference": float(np.sqrt((off**2).mean())),
    }


def megabytes(file: Path) -> float:
    return sum(each.stat().st_size for each in file.parent.glob(f"{file.name}*")) / 1e6


def cpu() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    kinds = [kind for kind in ("avx2", "avx512_vnni", "avx_vnni", "amx_int8") if f" {kind}" in told]
    return f"{told.partition('model name')[2].partition(':')[2].partition(chr(10))[0].strip()} ({', '.join(kinds)})"


if __name__ == "__main__":
    main()
