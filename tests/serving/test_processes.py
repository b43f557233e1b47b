"""The command as people run it: it goes down gracefully, replicas share nothing, and what it cannot do it says in a line."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import httpx2 as httpx
import pytest

import tiny
from distilrank import cli
from serving.servers import Process

TEXTS = [" ".join(tiny.WORDS[place % 30 :][:20]) + f" {place}" for place in range(400)]
QUERY = "how does the river open the window"


def small(folder: Path) -> list[str]:
    return [str(folder), "--port", "0", "--device", "cpu", "--dtype", "float32", "--max-length", "128", "--threads", "1"]


def test_sigterm_answers_what_is_asked_and_refuses_what_comes(tmp_path: Path) -> None:
    slow = tiny.bert_folder(tmp_path / "slow", num_hidden_layers=24, hidden_size=128, intermediate_size=512)
    with Process(*small(slow), "--batch-tokens", "512") as server:
        url = server.url()
        with httpx.Client(base_url=url, timeout=60) as kept:
            assert kept.get("/health").status_code == 200
            answers: list[httpx.Response] = []
            body = {"query": QUERY, "texts": TEXTS}
            thread = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/rerank", json=body, timeout=60)))
            thread.start()
            while "distilrank_queue_pairs 400" not in kept.get("/metrics").text:
                assert thread.is_alive()
                time.sleep(0.005)
            server.process.terminate()
            refused = 0
            while thread.is_alive() and refused < 3:
                try:
                    late = kept.post("/rerank", json={"query": QUERY, "texts": ["stone"]})
                except httpx.TransportError:
                    break
                if late.status_code == 503:
                    assert late.json()["error_type"] == "Unhealthy"
                    assert late.headers["Retry-After"] == "5"
                    refused += 1
            thread.join()
        assert server.ended() == 0
    assert answers[0].status_code == 200
    assert len(answers[0].json()) == 400
    assert refused
    assert server.told.endswith("stopped\n")
    assert "Traceback" not in server.told


def test_two_replicas_share_nothing_and_say_the_same(bert: Path) -> None:
    with Process(*small(bert)) as one, Process(*small(bert)) as other:
        urls = [one.url(), other.url()]
        body = {"query": QUERY, "texts": TEXTS[:20], "raw_scores": True}
        first, second = (httpx.post(f"{url}/rerank", json=body, timeout=60).json() for url in urls)
        assert first == second
        one.process.kill()
        one.ended()
        assert httpx.post(f"{urls[1]}/rerank", json=body, timeout=60).json() == second
        assert other.stop() == 0


def test_what_cannot_be_is_told_in_a_line(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases = {
            "cannot listen there": [str(bert), "--port", str(taken.getsockname()[1])],
            "choose another --port": [str(bert), "--port", str(taken.getsockname()[1])],
            "choose another --host": [str(bert), "--port", "0", "--host", "192.0.2.1"],
            "holds no key": [str(bert), "--port", "0", "--api-key-env", "NOT_SET_ANYWHERE"],
            "--queue": [str(bert), "--queue", "0"],
            "must fit into it": [str(bert), "--queue", "5"],
            "over half of max_length 64": [str(bert), "--max-length", "64", "--windows", "40"],
            "no config.json": [str(tmp_path), "--port", "0"],
            "no .onnx file": [str(bert), "--port", "0", "--engine", "onnx"],
            "--engine": [str(bert), "--engine", "fast"],
            "--dtype": [str(bert), "--dtype", "float16"],
            "no device": [str(bert), "--port", "0", "--device", "tpu"],
        }
        for told, arguments in cases.items():
            assert cli.run(["serve", *arguments]) == 2
            assert told in capsys.readouterr().err.splitlines()[-1]


def test_the_key_comes_from_the_environment(bert: Path) -> None:
    with Process(*small(bert), "--api-key-env", "RERANK_KEY", RERANK_KEY="open-sesame") as server:
        body, url = {"query": QUERY, "texts": TEXTS[:2]}, server.url()
        assert httpx.post(f"{url}/rerank", json=body, timeout=60).status_code == 401
        headers = {"Authorization": "Bearer open-sesame"}
        assert httpx.post(f"{url}/rerank", json=body, headers=headers, timeout=60).status_code == 200
        assert server.stop() == 0
    assert "open-sesame" not in server.told


def test_it_listens_on_this_machine_alone_by_default() -> None:
    from distilrank.serving import ServeSettings

    assert ServeSettings().host == "127.0.0.1"
