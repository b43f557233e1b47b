"""Who writes queries: an endpoint with errors, timeouts and rate limits; a local model, each line with its own seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from chat_server import ChatServer, chat_server
from distilrank import web
from distilrank.data.writers import EndpointWriter, LocalWriter, Sampling
from distilrank.errors import UserError

pytestmark = pytest.mark.usefixtures("pauses")
CHATS = [[{"role": "system", "content": "s"}, {"role": "user", "content": f"Passage: text {n}"}] for n in range(12)]
SEEDS = list(range(12))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        server.rule = lambda body: f"  about {body['messages'][-1]['content'].split()[-1]} \nsecond line"
        yield server


def written(writer: Any, done: set[int] = frozenset()) -> dict[int, str]:  # type: ignore[assignment]
    return {number: line for batch in writer.write(CHATS, SEEDS, done) for number, line in batch}


def endpoint(server: ChatServer, **settings: Any) -> EndpointWriter:
    return EndpointWriter(server.url, "m", Sampling(), **settings)


ALL = {number: f"about {number}" for number in range(12)}


def test_an_endpoint_is_asked_in_openais_format_and_gives_one_line(server: ChatServer) -> None:
    assert written(endpoint(server)) == ALL
    path, body, headers = server.asked[0]
    assert path == "/v1/chat/completions"
    assert sorted(body) == ["max_tokens", "messages", "model", "seed", "temperature", "top_p"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.7, 40)
    assert {body["seed"] for _, body, _ in server.asked} == set(SEEDS)
    assert "Authorization" not in headers


def test_what_is_done_is_not_asked(server: ChatServer) -> None:
    assert written(endpoint(server), {0, 5}) == {number: line for number, line in ALL.items() if number not in (0, 5)}
    assert len(server.asked) == 10


def test_it_goes_on_after_errors_timeouts_and_rate_limits(server: ChatServer, pauses: list[float]) -> None:
    later = formatdate(web.time.time() + 30, usegmt=True)
    server.first = [
        (429, {"Retry-After": "7"}, "slow down"),
        (429, {"Retry-After": later}, ""),
        (503, {}, ""),
        None,
        0.5,
        (500, {}, "oops"),
    ]
    assert written(endpoint(server, timeout=0.3, concurrency=1, retries=6)) == ALL
    assert pauses[0] == 7
    assert 25 < pauses[1] <= 30
    assert len(pauses) == 6


@pytest.mark.parametrize(
    ("planned", "wanted"),
    [
        ((401, {}, "who are you"), r"answered 401: who are you$"),
        ((404, {}, "no model"), r"answered 404: no model$"),
        ((200, {}, "<html>"), r"the answer is no chat completion, check url: <html>"),
        ((200, {}, '{"choices": []}'), "no chat completion"),
        ((200, {}, '{"choices": [{"message": {"content": 3}}]}'), "no chat completion"),
        ((200, {}, "[" * 5_000), "no chat completion"),
    ],
)
def test_what_a_server_refuses_is_one_line(server: ChatServer, planned: web.Any, wanted: str) -> None:
    server.first = [planned]
    with pytest.raises(UserError, match=f"^{server.url}/chat/completions: .*{wanted}"):
        written(endpoint(server))


def test_it_gives_up_after_so_many_tries(server: ChatServer, pauses: list[float]) -> None:
    server.first = [(503, {}, "busy")] * 100
    with pytest.raises(UserError, match="answered 503 to 3 requests in a row"):
        written(endpoint(server, retries=2, concurrency=1))
    assert pauses[:2] == [pytest.approx(0.75, abs=0.25), pytest.approx(1.5, abs=0.5)]


def test_one_failure_stops_the_others(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "pause", Event.wait)
    server.first = [(429, {"Retry-After": "100"}, ""), (401, {}, "no")]
    with pytest.raises(UserError, match="answered 401"):
        written(endpoint(server, concurrency=2))


def test_an_answer_without_a_line_is_empty(server: ChatServer) -> None:
    server.rule = lambda body: None
    assert set(written(endpoint(server)).values()) == {""}


def test_a_token_is_sent_and_never_shown(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITER_KEY", "s3cret")
    writer = endpoint(server, key_variable="WRITER_KEY")
    server.first = [(400, {}, "bad token s3cret")]
    with pytest.raises(UserError) as caught:
        written(writer)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in writer.name
    assert server.asked[0][2]["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/v1/", "http://h:1/v1/chat/completions", "HTTP://u:p@h:1/v1?k=v"])
def test_a_url_may_be_the_root_or_the_endpoint(url: str) -> None:
    writer = EndpointWriter(url, "m", Sampling())
    assert writer.server.shown == "http://h:1/v1/chat/completions"
    assert writer.name == f"http://h:1/v1/chat/completions m {Sampling()}"
    with pytest.raises(UserError, match="the url must look like"):
        EndpointWriter("localhost:8000", "m", Sampling())


def test_a_local_model_is_named_by_its_weights_and_drawing(qwen: Path, llama: Path) -> None:
    names = {
        LocalWriter(folder, Sampling(temperature), dtype="float32", device="cpu").name
        for folder in (qwen, llama)
        for temperature in (0.0, 0.7)
    }
    assert len(names) == 4
    same = LocalWriter(qwen, Sampling(0.7), dtype="float32", device="cpu").name
    assert same in names


def test_lines_of_a_local_model_do_not_depend_on_what_is_done(qwen: Path) -> None:
    writer = LocalWriter(qwen, Sampling(most_tokens=6), dtype="float32", device="cpu")
    whole = written(writer)
    assert set(whole) == set(range(12))
    assert written(writer, {0, 1, 7}) == {number: line for number, line in whole.items() if number not in (0, 1, 7)}
    assert json.dumps(whole) == json.dumps(
        written(LocalWriter(qwen, Sampling(most_tokens=6), dtype="float32", device="cpu"))
    )


def test_a_server_that_is_not_there_is_told_soon(pauses: list[float]) -> None:
    with pytest.raises(UserError, match=r"no answer \(ConnectError\) to 3 requests in a row \(is it up\? check url\)"):
        written(EndpointWriter("http://127.0.0.1:9/v1", "m", Sampling(), concurrency=1))
