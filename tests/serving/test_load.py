"""Under load: below the limit no request is lost, above it only 429s come, and every answer is its own request's."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx2 as httpx
import numpy as np

from distilrank.engines.batches import Encoded
from serving.servers import metric, running, stand_in

WORDS = ("river", "stone", "bridge", "market", "window", "garden", "silver", "paper", "candle", "engine")


def slowly(encoded: Encoded) -> np.ndarray:
    import time

    time.sleep(0.002)
    return np.array([row[-2] for row in encoded["input_ids"]], dtype=np.float32)


async def load(url: str, clients: int, each: int, texts: int) -> Counter[int]:
    """So many clients at once, each with so many requests in a row; the statuses, each answer checked."""
    statuses: Counter[int] = Counter()
    limits = httpx.Limits(max_connections=clients)

    async def one(client: httpx.AsyncClient, number: int) -> None:
        for turn in range(each):
            chosen = [WORDS[(number + turn + place) % len(WORDS)] for place in range(texts)]
            body = {"query": f"why {number}", "texts": chosen, "raw_scores": True, "return_text": True}
            answer = await client.post("/rerank", json=body)
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                ranks = answer.json()
                assert [chosen[rank["index"]] for rank in ranks] == [rank["text"] for rank in ranks]
                assert sorted(rank["index"] for rank in ranks) == list(range(texts))
                by_text = {rank["text"]: rank["score"] for rank in ranks}
                assert len(set(by_text.values())) == len(by_text)
                scores = [rank["score"] for rank in ranks]
                assert scores == sorted(scores, reverse=True)
            elif answer.status_code == 429:
                assert int(answer.headers["Retry-After"]) >= 1

    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        await asyncio.gather(*(one(client, number) for number in range(clients)))
    return statuses


def test_below_the_limit_no_request_is_lost() -> None:
    with running(stand_in(slowly, 512), queue=1_000, max_texts=100) as client:
        statuses = asyncio.run(load(str(client.base_url), clients=30, each=8, texts=10))
        assert statuses == {200: 240}
        assert metric(client, 'distilrank_requests_total{path="/rerank",status="200"}') == 240
        assert metric(client, "distilrank_pairs_total") == 2_400
        assert metric(client, "distilrank_queue_pairs") == 0


def test_above_the_limit_come_only_429s() -> None:
    with running(stand_in(slowly, 64), queue=40, max_texts=40) as client:
        statuses = asyncio.run(load(str(client.base_url), clients=40, each=5, texts=10))
        assert set(statuses) == {200, 429}
        assert sum(statuses.values()) == 200
        assert metric(client, 'distilrank_rejected_total{status="429"}') == statuses[429]
        assert metric(client, "distilrank_queue_pairs") == 0
        assert asyncio.run(load(str(client.base_url), clients=1, each=3, texts=10)) == {200: 3}
