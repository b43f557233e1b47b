"""What is too much, too slow, not JSON or not allowed is refused in one clear line, and costs the others nothing."""

from __future__ import annotations

import json
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from distilrank.engines.batches import Encoded
from distilrank.serving.run import IDLE
from serving.servers import metric, post, raw, running, running_server, stand_in, until

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank", "/score")
FINE = {"query": "why", "texts": ["river", "stone"]}


def body(path: str, texts: list[str], query: str = "why") -> dict[str, Any]:
    if path == "/score":
        return {"text_1": query, "text_2": texts}
    return {"query": query, "texts" if path == "/rerank" else "documents": texts}


def message(answer: httpx.Response) -> str:
    """The one line of an error body, which is that of the path's API."""
    found = answer.json()
    path = answer.request.url.path
    if path in ("/v1/rerank", "/v2/rerank"):
        assert set(found) == {"message"}
        return str(found["message"])
    if path == "/score":
        assert set(found["error"]) == {"message", "type", "code"}
        assert found["error"]["code"] == answer.status_code
        return str(found["error"]["message"])
    assert set(found) == {"error", "error_type"}
    return str(found["error"])


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(stand_in(), max_texts=100, queue=100, max_chars=1_000, max_body=100_000) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_too_much_is_told_with_its_limit(client: httpx.Client, path: str) -> None:
    cases = {
        400: [body(path, [])],
        413: [body(path, ["river"] * 101), body(path, ["r" * 1_001]), body(path, ["stone"], "r" * 1_001)],
    }
    for status, bodies in cases.items():
        for each in bodies:
            answer = client.post(path, json=each)
            assert answer.status_code == status, answer.text
            assert "\n" not in message(answer)
    assert "batch size 101 > maximum allowed batch size 100" in message(client.post(path, json=cases[413][0]))
    assert "must have less than 1001 characters. Given: 1001" in message(client.post(path, json=cases[413][1]))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "sent",
    [
        b"", b"{", b"[" * 100_000, b'{"query": NaN}', b'{"query": 1e999', b"\xff\xfe", b'{"query": "\xff"}',
        b'{"query": "\\ud800"}', b"null", b"[]", b'"text"', b"3",
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused_in_a_line(client: httpx.Client, path: str, sent: bytes) -> None:
    answer = client.post(path, content=sent, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert len(message(answer)) < 200
    assert "\n" not in message(answer)


def test_nan_is_no_number_even_where_nothing_reads_it(client: httpx.Client) -> None:
    for number in ("NaN", "Infinity", "-Infinity"):
        sent = f'{{"query": "why", "texts": ["river"], "ignored": {number}}}'
        answer = client.post("/rerank", content=sent, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert "the body is not JSON" in message(answer)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"texts": ["river"]}, "query: Field required"),
        ({"query": 3, "texts": ["river"]}, "query: Input should be a valid string"),
        ({"query": "why", "texts": "river"}, "texts: Input should be a valid list"),
        ({"query": "why", "texts": ["river", None]}, "texts.1: Input should be a valid string"),
        ({**FINE, "raw_scores": "yes"}, "raw_scores: Input should be a valid boolean"),
        ({**FINE, "truncation_direction": "up"}, "truncation_direction"),
    ],
)
def test_a_wrong_field_is_named_and_no_text_is_quoted(client: httpx.Client, wrong: dict[str, Any], told: str) -> None:
    answer = client.post("/rerank", json=wrong)
    assert answer.status_code == 422
    assert told in message(answer)
    assert "river" not in message(answer)


def test_a_wrong_document_is_named_by_its_place_in_the_body(client: httpx.Client) -> None:
    answer = client.post("/v1/rerank", json={"query": "why", "documents": [{"title": "river"}]})
    assert answer.status_code == 422
    assert message(answer) == "documents.0: Input should be a valid string; documents.0.text: Field required"


def test_a_body_that_is_not_called_json_is_refused(client: httpx.Client) -> None:
    answer = client.post("/rerank", content=json.dumps(FINE), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert "Content-Type: application/json" in message(answer)
    assert client.get("/rerank").status_code == 405


@pytest.mark.parametrize("claimed", [None, 10 * 2**20, 2**40])
def test_ten_megabytes_are_refused_and_the_client_hears_it(client: httpx.Client, claimed: int | None) -> None:
    sent = b" " * (10 * 2**20 if claimed != 2**40 else 1_000)
    with raw(client) as connection:
        if claimed is None:
            connection.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            connection.sendall(f"{2**20:x}\r\n".encode() + sent[: 2**20] + b"\r\n0\r\n\r\n")
        else:
            try:
                connection.sendall(post("/rerank", sent, claimed))
            except (BrokenPipeError, ConnectionResetError):
                assert claimed > 16 * 100_000  # so much too large that it is not even read away
        answer = b""
        try:
            while part := connection.recv(65_536):  # head and body may come apart; then the server hangs up
                answer += part
        except ConnectionResetError:
            pass
    if claimed is None or claimed == 2**40:
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"the body is over 100,000 bytes" in answer
    assert client.post("/rerank", json=FINE).status_code == 200


def test_a_body_a_little_too_large_is_refused_after_it_has_been_read(client: httpx.Client) -> None:
    answer = client.post("/rerank", content=b" " * 1_000_000, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert message(answer) == "the body is over 100,000 bytes"


def test_bodies_share_a_bound() -> None:
    answers: list[httpx.Response] = []

    def answered(status: int) -> bool:
        answers.append(client.post("/rerank", json=body("/rerank", ["stone"] * 80)))
        return answers[-1].status_code == status

    with running(stand_in(), max_body=1_000, read_timeout=600) as client:
        waiting = [raw(client) for _ in range(70)]
        for connection in waiting:
            connection.sendall(post("/rerank", b" " * 990, 1_000))
        until(lambda: len(select.select(waiting, [], [], 0)[0]) == 6)  # those for which there was no more room
        assert answered(429)
        assert message(answers[-1]) == "too many large bodies at once"
        for connection in waiting:
            connection.close()
        until(lambda: answered(200))


def test_ten_thousand_texts_are_refused_by_the_default_limits() -> None:
    with running(stand_in()) as client:
        for path in PATHS:
            answer = client.post(path, json=body(path, ["river"] * 10_000))
            assert answer.status_code == 413
            assert "batch size 10000 > maximum allowed batch size 1000" in message(answer)
        assert len(client.post("/rerank", json=body("/rerank", ["river"] * 1_000)).json()) == 1_000


def test_slow_headers_and_slow_bodies_are_given_up() -> None:
    with running(stand_in(), read_timeout=0.5, idle=1.0) as client:
        slow = {"body": post("/rerank", b"{", 100), "headers": b"POST /rerank HTTP/1.1\r\nHost:", "nothing": b""}
        connections = {name: raw(client) for name in slow}
        for name, connection in connections.items():
            connection.sendall(slow[name])
        assert client.post("/rerank", json=FINE).status_code == 200  # the others are served meanwhile
        dripping = raw(client)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip(dripping, b"POST /rerank HTTP/1.1\r\nX: " + b"y" * 1_000)
        answers = {}
        for name, connection in connections.items():
            try:
                answers[name] = connection.recv(65_536)
            except ConnectionResetError:
                answers[name] = b""
            connection.close()
        dripping.close()
    assert answers["body"].startswith(b"HTTP/1.1 408")
    assert b"the body did not arrive within 0.5 s" in answers["body"]
    assert answers["headers"] == answers["nothing"] == b""


def test_a_client_that_does_not_take_its_answer_is_given_up() -> None:
    texts = ["r" * 100_000] * 160
    sent = post("/rerank", {"query": "why", "texts": texts, "return_text": True})
    with running(stand_in(), writing=0.2, max_body=2**25) as client, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.connect((client.base_url.host, client.base_url.port))
        slow.settimeout(60)
        slow.sendall(sent)
        until(lambda: metric(client, 'distilrank_requests_total{path="/rerank",status="200"}') == 1)
        time.sleep(1.0)
        taken = 0
        try:
            while part := slow.recv(2**20):
                taken += len(part)
        except ConnectionResetError:
            pass
        assert taken < len(sent)  # the answer holds all texts, too
        assert client.post("/rerank", json=FINE).status_code == 200


def test_a_length_that_is_no_length_is_refused(client: httpx.Client, capfd: pytest.CaptureFixture[str]) -> None:
    with raw(client) as connection:
        connection.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 400")
    assert client.post("/rerank", json=FINE).status_code == 200
    assert capfd.readouterr().err == ""


def drip(connection: socket.socket, sent: bytes) -> None:
    for letter in sent:
        connection.sendall(bytes([letter]))
        time.sleep(0.02)


class Held:
    """A model that computes only when it is let."""

    def __init__(self) -> None:
        self.let, self.entered, self.rows = Event(), Event(), 0

    def __call__(self, encoded: Encoded) -> np.ndarray:
        if not self.let.is_set():
            self.entered.set()
            assert self.let.wait(60)
        self.rows += len(encoded["input_ids"])
        return np.array([row[-2] for row in encoded["input_ids"]], dtype=np.float32)


@contextmanager
def held(**settings: Any) -> Iterator[tuple[httpx.Client, Held]]:
    """A server whose model stands still once it has warmed up."""
    model = Held()
    model.let.set()
    with running(stand_in(model, batch_tokens=64), **settings) as client:
        model.let.clear()
        model.rows = 0
        try:
            yield client, model
        finally:
            model.let.set()


def test_when_the_time_to_drain_is_over_the_waiting_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    model = Held()
    model.let.set()
    with running_server(stand_in(model), drain=0.5) as (client, server):
        model.let.clear()
        answers: list[httpx.Response] = []
        waiting = asking(client, 3, answers)
        assert model.entered.wait(60)
        server.handle_exit(signal.SIGTERM, None)
        waiting.join()
        model.let.set()
    assert answers[0].status_code == 503
    assert answers[0].json()["error_type"] == "Unhealthy"
    assert "Traceback" not in capfd.readouterr().err


def asking(client: httpx.Client, texts: int, answers: list[httpx.Response]) -> Thread:
    def ask() -> None:
        answers.append(httpx.post(f"{client.base_url}/rerank", json=body("/rerank", ["river"] * texts), timeout=60))

    thread = Thread(target=ask)
    thread.start()
    return thread


def test_a_full_queue_says_when_to_come_back_and_loses_nobody() -> None:
    with held(queue=10, max_texts=10) as (client, model):
        answers: list[httpx.Response] = []
        waiting = [asking(client, 5, answers) for _ in range(2)]
        until(lambda: metric(client, "distilrank_queue_pairs") == 10)
        for path in PATHS:
            refused = client.post(path, json=body(path, ["stone"]))
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
            assert message(refused) == "Model is overloaded"
        assert metric(client, 'distilrank_rejected_total{status="429"}') == len(PATHS)
        model.let.set()
        for thread in waiting:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert client.post("/rerank", json=FINE).status_code == 200


def test_a_killed_client_is_forgotten_and_its_rows_are_not_computed() -> None:
    with held(queue=1_000) as (client, model):
        answers: list[httpx.Response] = []
        first = asking(client, 1, answers)
        assert model.entered.wait(60)
        gone = raw(client)
        gone.sendall(post("/rerank", body("/rerank", ["stone"] * 500)))
        until(lambda: metric(client, "distilrank_queue_pairs") == 501)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # hang up as a killed process does
        gone.close()
        until(lambda: metric(client, "distilrank_queue_pairs") == 1)
        until(lambda: metric(client, 'distilrank_requests_total{path="/rerank",status="499"}') == 1)
        assert "distilrank_rejected_total{" not in client.get("/metrics").text  # nobody was refused
        model.let.set()
        first.join()
        assert answers[0].status_code == 200
        assert client.post("/rerank", json=FINE).status_code == 200
        assert model.rows < 500


def test_what_takes_too_long_is_given_up() -> None:
    with held(timeout=0.3) as (client, model):
        answer = client.post("/rerank", json=FINE)
        assert answer.status_code == 504
        assert "not answered within 0.3 s" in message(answer)
        until(lambda: metric(client, "distilrank_queue_pairs") == 0)
        model.let.set()
        until(lambda: client.post("/rerank", json=FINE).status_code == 200)


def test_a_model_that_fails_is_told_without_a_text(capfd: pytest.CaptureFixture[str]) -> None:
    broken = Event()

    def score(encoded: Encoded) -> np.ndarray:
        if broken.is_set():
            raise RuntimeError("secret river")
        return np.zeros(len(encoded["input_ids"]), dtype=np.float32)

    def not_a_number(encoded: Encoded) -> np.ndarray:
        return np.full(len(encoded["input_ids"]), np.nan if broken.is_set() else 0.0, dtype=np.float32)

    for model in (score, not_a_number):
        broken.clear()
        with running(stand_in(model)) as client:
            broken.set()
            answer = client.post("/rerank", json=FINE)
            assert answer.status_code == 424
            assert answer.json()["error_type"] == "Backend"
            assert client.get("/health").status_code == 503
            broken.clear()
            assert client.get("/health").status_code == 200  # the model is asked, whether or not anybody else asks
            assert client.post("/rerank", json=FINE).status_code == 200
    said = capfd.readouterr()
    assert "secret" not in said.out + said.err
    assert "RuntimeError" in said.err


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", "Basic open-sesame", "open-sesame", "Bearer open-sesame2"]
)
def test_without_the_key_nothing_is_told(given: str | None) -> None:
    with running(stand_in(), key="open-sesame") as client:
        headers = {} if given is None else {"Authorization": given}
        for path in PATHS:
            refused = client.post(path, json=body(path, ["river"]), headers=headers)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            assert "open-sesame" not in message(refused)
        assert client.get("/info", headers=headers).status_code == 401
        assert client.get("/metrics", headers=headers).status_code == 401
        for path in ("/health", "/", "/docs", "/openapi.json"):
            found = client.get(path, headers=headers)
            assert found.status_code == 200
            assert "stand-in" not in found.text  # the model's name
        let_in = client.post("/rerank", json=FINE, headers={"Authorization": "Bearer open-sesame"})
        assert let_in.status_code == 200


def test_no_text_and_no_path_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    with running(stand_in()) as client:
        capfd.readouterr()
        client.post("/rerank", json={"query": "secret", "texts": ["hidden"]})
        client.post("/rerank", json={"query": "secret", "texts": 3})
        client.get("/secret/path")
        with raw(client) as connection:
            connection.sendall(b"secret nonsense\r\n\r\n")
            connection.recv(1_000)
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_what_would_be_answered_too_late_is_refused_at_once() -> None:
    with held(timeout=4.0) as (client, model):
        answers: list[httpx.Response] = []
        first = asking(client, 1, answers)
        assert model.entered.wait(60)
        time.sleep(1.0)  # with the warm-up about 130 tokens in this second, so some 260 can be promised in half of the time
        model.let.set()
        first.join()
        model.let.clear()
        waiting = asking(client, 1, answers)
        until(lambda: metric(client, "distilrank_queue_pairs") == 1)
        refused = client.post("/rerank", json=body("/rerank", ["stone"] * 300))
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        small = asking(client, 2, answers)
        until(lambda: metric(client, "distilrank_queue_pairs") == 3)
        model.let.set()
        waiting.join()
        small.join()
        assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_a_server_that_was_just_started_promises_no_more_than_its_warm_up_was_fast() -> None:
    def slow(encoded: Encoded) -> np.ndarray:
        time.sleep(0.001 * sum(map(len, encoded["input_ids"])))
        return np.zeros(len(encoded["input_ids"]), dtype=np.float32)

    with running(stand_in(slow), timeout=2.0) as client:
        answers: list[httpx.Response] = []
        burst = [asking(client, 40, answers) for _ in range(20)]  # 200 tokens each, and a thousand can be promised
        for thread in burst:
            thread.join()
        assert {answer.status_code for answer in answers} == {200, 429}


def test_windows_are_counted_before_they_are_made(bert: Path) -> None:
    with running(bert, max_length=64, windows=32, queue=200, max_texts=200) as client:
        query = "river " * 28  # which leaves room for the overlap and one word
        assert client.post("/rerank", json={"query": query, "texts": ["stone " * 100]}).status_code == 200
        for texts in (["stone " * 300], ["stone " * 60] * 10):
            refused = client.post("/rerank", json={"query": query, "texts": texts})
            assert refused.status_code == 413
            assert "windows of 64 tokens" in refused.json()["error"]
            assert "at most 200 a request" in refused.json()["error"]
        assert client.post("/rerank", json={"query": "river", "texts": ["stone " * 300]}).status_code == 200


def test_a_client_that_takes_its_time_between_two_requests_and_before_the_first_is_answered() -> None:
    with running(stand_in(), read_timeout=0.3) as client:
        connection = HTTPConnection(client.base_url.host, client.base_url.port, timeout=60)
        connection.connect()
        first = connection.sock
        for _ in range(3):
            time.sleep(0.6)
            connection.request("POST", "/rerank", json.dumps(FINE), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, len(json.loads(answer.read()))) == (200, 2)
            assert connection.sock is first
        connection.close()
    assert IDLE > 60
