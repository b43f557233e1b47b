"""A server under load: requests a second, latency, and what is refused, at rising numbers of clients.

    python benchmarks/serve_load.py                          # the demo's student, in a process of its own
    python benchmarks/serve_load.py --clients 4 --seconds 2  # to see that it runs
    python benchmarks/serve_load.py --url http://host:8080   # any server that speaks TEI's /rerank

Each client sends one query with 30 passages after another, a share of them 300 passages. A line a number of clients:
answered and refused requests, pairs a second, milliseconds of small and of large requests (p50, p95), and how many requests
were lost (neither 200 nor 429), each way by its name.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import httpx2 as httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import tiny

SMALL, LARGE = 30, 300


@contextmanager
def server(arguments: list[str]) -> Iterator[str]:
    """`distilrank serve` on a free port; its URL."""
    command = [sys.executable, "-m", "distilrank", "serve", *arguments, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(rb"at (http://\S+)", line):
                yield found[1].decode()
                break
            print(line.decode(), end="", file=sys.stderr)
        process.terminate()


async def load(url: str, clients: int, seconds: float, share: float, words: int) -> dict[str, object]:
    rng, until = random.Random(clients), time.perf_counter() + seconds
    took: dict[int, list[float]] = {SMALL: [], LARGE: []}
    lost: Counter[str] = Counter()
    refused = pairs = 0

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal refused, pairs
        while time.perf_counter() < until:
            size = LARGE if rng.random() < share else SMALL
            texts = [tiny.text(rng, words // 2, words * 3 // 2) for _ in range(size)]
            start = time.perf_counter()
            try:
                answer = await client.post("/rerank", json={"query": tiny.text(rng), "texts": texts})
            except httpx.HTTPError as error:
                lost[f"{type(error).__name__} {error}"] += 1
                continue
            if answer.status_code == 200:
                took[size].append(time.perf_counter() - start)
                pairs += size
            elif answer.status_code == 429:
                refused += 1
                await asyncio.sleep(min(float(answer.headers["Retry-After"]), 1.0))
            else:
                lost[str(answer.status_code)] += 1

    limits = httpx.Limits(max_connections=clients)
    start = time.perf_counter()
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))
    wall = time.perf_counter() - start
    latency = {
        f"{name}_p{share}_ms": round(1e3 * float(np.percentile(took[size], share)), 1)
        for name, size in (("small", SMALL), ("large", LARGE))
        for share in (50, 95)
        if took[size]
    }
    answered = sum(map(len, took.values()))
    counts = {"answered": answered, "refused": refused, "lost": lost.total(), "pairs_s": round(pairs / wall, 1)}
    return {"clients": clients, **counts, **latency, **({"lost_by": lost} if lost else {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a server that runs; default: one of the demo's student is started")
    parser.add_argument("--model", default="demo:reranker")
    parser.add_argument("--serve", nargs="*", default=[], help="options of `distilrank serve`, as name=value")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--large-share", type=float, default=0.1, help="of the requests, with 300 passages")
    parser.add_argument("--words", type=int, default=30, help="of a passage")
    options = parser.parse_args()
    more = [part for pair in options.serve for part in (f"--{pair.partition('=')[0]}", pair.partition("=")[2])]
    with nullcontext(options.url) if options.url else server([options.model, *more]) as url:
        for clients in options.clients:
            found = asyncio.run(load(url, clients, options.seconds, options.large_share, options.words))
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
