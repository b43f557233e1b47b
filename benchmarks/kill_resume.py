"""kill -9 at random moments of a run, then the same command again: nothing is lost, the results are the same.

    python benchmarks/kill_resume.py [--scoring 11 --training 6 --rename 3 --seed 0]

Each trial kills a fresh run of a small demo recipe: so far into scoring or into training (drawn over the measured length
of that stage), or around a rename (just before or just after an `os.replace`, drawn by number). It is then run again
to the end. A trial passes when the scores, the final table and the store (every pair once) equal an uninterrupted
run's, and nothing that the store kept was asked again: so what was paid twice is the part in flight, since a part is stored
before the next is asked. Prints one JSON line a trial and one in all; exits with 1 when a trial fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from distilrank.demo import demo_groups
from distilrank.records import write_groups

PART_PAIRS = 12
SETTINGS = {
    "data.train_queries": 24,
    "data.test_queries": 8,
    "score.part_pairs": PART_PAIRS,
    "score.checks": "skip",  # they come before the first pair, where there is nothing to lose
    "train.epochs": 2,
    "train.evaluations": 5,
}
KILL_AT_RENAME = """
import os, signal
_replace, _count = os.replace, 0
def replace(*arguments, **options):
    global _count
    _count += 1
    number, when = int(os.environ["KILL_NUMBER"]), os.environ["KILL_WHEN"]
    if _count == number and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    _replace(*arguments, **options)
    if _count == number and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
"""


@dataclass
class Outcome:
    """What a finished run left behind."""

    scores: list[tuple[str, str, float]]
    means: dict[str, Any]
    pairs: int
    distinct: int


def command(folder: Path) -> list[str]:
    data = {f"data.{part}": folder.parent / f"{part}.jsonl" for part in ("train", "test")}
    changes = SETTINGS | data | {"output": folder / "run", "score.store": folder / "scores"}
    return [sys.executable, "-m", "distilrank", "run", "demo", *(f"--set={key}={value}" for key, value in changes.items())]


def run(
    folder: Path, environment: dict[str, str] | None = None, stage: str = "", delay: float = 0.0
) -> tuple[int, list[Any]]:
    """Run to the end, or kill `delay` seconds into `stage`; returns the exit code and (second, line) of what was said."""
    process = subprocess.Popen(
        command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | (environment or {})
    )
    said: list[Any] = []
    timer: threading.Timer | None = None
    for line in process.stderr:  # type: ignore[union-attr]
        said.append((time.monotonic(), line.rstrip()))
        if stage and f"] {stage}:" in line and not timer:
            timer = threading.Timer(delay, process.send_signal, [signal.SIGKILL])
            timer.start()
    code = process.wait()
    if timer:
        timer.cancel()
    return code, said


def outcome(folder: Path) -> Outcome:
    data = folder / "run" / "data"
    rows = [row for name in ("train", "test") for row in pq.read_table(data / f"{name}.scored.parquet").to_pylist()]
    evaluation = json.loads((folder / "run" / "evaluation" / "evaluation.json").read_text())
    stored = stored_pairs(folder)
    return Outcome(
        [(row["query"], row["passage"], row["score"]) for row in rows],
        {system["name"]: system["means"] for system in evaluation["systems"]},
        len(stored),
        len(set(stored)),
    )


def stored_pairs(folder: Path) -> list[tuple[str, bytes]]:
    parts = sorted((folder / "scores").glob("*/part-*.parquet"))
    return [(part.parent.name, pair) for part in parts for pair in pq.read_table(part)["pair"].to_pylist()]


def stage_seconds(said: list[Any]) -> dict[str, float]:
    starts = [(second, line.split("] ")[1].split(":")[0]) for second, line in said if line.startswith("[")]
    ends = [second for second, _ in starts[1:]] + [said[-1][0]]
    return {name: end - start for (start, name), end in zip(starts, ends, strict=True)}


@dataclass(frozen=True)
class Kill:
    """A moment to die at: so many seconds into a stage, or before or after a rename with a certain number."""

    number: int
    stage: str
    delay: float = 0.0
    rename: int = 0
    when: str = ""

    @property
    def described(self) -> str:
        return f"{self.when} rename {self.rename}" if self.rename else f"{self.stage} + {self.delay:.1f} s"


def trial(kill: Kill, base: Path, whole: Outcome) -> bool:
    """Kill a fresh run, run it again, compare; prints the verdict."""
    folder = base / f"trial-{kill.number}"
    if kill.rename:
        hook = {
            "KILL_NUMBER": str(kill.rename),
            "KILL_WHEN": kill.when,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(base / "hook"), os.environ.get("PYTHONPATH")))),
        }
        killed, _ = run(folder, hook)
    else:
        killed, _ = run(folder, stage=kill.stage, delay=kill.delay)
    kept = len(stored_pairs(folder))
    again, said = run(folder)
    asked = sum(int(line.split(": ")[1].split(" pairs")[0].replace(",", "")) for _, line in said if "pairs scored" in line)
    found = outcome(folder) if again == 0 else None
    verdict = {
        "same scores": found is not None and found.scores == whole.scores,
        "same table": found is not None and found.means == whole.means,
        "every pair once": found is not None and found.pairs == found.distinct == whole.pairs,
        "nothing kept was asked again": kept + asked == whole.pairs or bool(again),
    }
    passed = killed == -signal.SIGKILL and all(verdict.values())
    line = {"trial": kill.number, "killed": kill.described, "exit": killed, "pairs kept": kept, "pairs asked after": asked}
    print(json.dumps(line | verdict | {"passed": passed}), flush=True)
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for kind, count in (("scoring", 11), ("training", 6), ("rename", 3)):
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time, each on one thread")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    os.environ |= {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        (base / "hook").mkdir()
        (base / "hook" / "sitecustomize.py").write_text(KILL_AT_RENAME)
        for part, candidates in (("train", 4), ("test", 8)):
            write_groups(base / f"{part}.jsonl", demo_groups(part, SETTINGS[f"data.{part}_queries"], candidates))
        code, said = run(base / "whole")
        if code:
            print("\n".join(line for _, line in said), file=sys.stderr)
            return 1
        whole, seconds = outcome(base / "whole"), stage_seconds(said)
        parts = len(list((base / "whole" / "scores").glob("*/part-*.parquet")))
        print(json.dumps({"uninterrupted": {name: round(value, 1) for name, value in seconds.items()}, "parts": parts}))
        kinds = ["score"] * options.scoring + ["train"] * options.training + ["rename"] * options.rename
        kills = [
            Kill(number, kind, rename=rng.randint(6, parts + 8), when=rng.choice(["before", "after"]))
            if kind == "rename"
            else Kill(number, kind, rng.uniform(0, seconds[kind]))
            for number, kind in enumerate(kinds)
        ]
        with ThreadPoolExecutor(options.jobs) as pool:
            passed = list(pool.map(lambda kill: trial(kill, base, whole), kills))
        print(
            json.dumps(
                {"trials": len(kills), "failed": passed.count(False), "pairs": whole.pairs, "largest part": PART_PAIRS}
            )
        )
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
