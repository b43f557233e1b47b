"""Asking a server: formats, order, retries, limits and refusals, against a stand-in that scores by a known rule."""

from __future__ import annotations

import json
import math
import random
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank import web
from distilrank.errors import UserError
from distilrank.records import Group, Passage
from distilrank.teachers.http import HttpTeacher
from stand_in import Planned, StandIn, served

Rows = list[dict[str, Any]]

pytestmark = pytest.mark.usefixtures("pauses")


def logit(query: str, text: str) -> float:
    return zlib.crc32(json.dumps([query, text]).encode()) / 2**32 * 16 - 8


def chance(query: str, text: str) -> float:
    return 1 / (1 + math.exp(-logit(query, text)))


def texts_of(body: dict[str, Any]) -> list[str]:
    return next(body[key] for key in ("texts", "documents", "text_2") if key in body)


class Server(StandIn):
    """Speaks all three formats."""

    def reset(self) -> None:
        super().reset()
        self.rule: Callable[[str, str], float | None] = logit
        self.spoil: Callable[[Rows], Rows] = lambda rows: rows
        self.limit = 1_000
        self.answer: Callable[[dict[str, Any]], Planned] = self.scored  # type: ignore[method-assign]

    @property
    def sizes(self) -> list[int]:
        return [len(texts_of(body)) for _, body, _ in self.asked]

    def scored(self, body: dict[str, Any]) -> Planned:
        texts, query = texts_of(body), body.get("query", body.get("text_1"))
        if len(texts) > self.limit:
            error = f"batch size {len(texts)} > maximum allowed batch size {self.limit}"
            return 413, {}, json.dumps({"error": error, "error_type": "Validation"})
        score = "relevance_score" if "documents" in body else "score"
        rows = [{"index": index, score: self.rule(query, text)} for index, text in enumerate(texts)]
        random.Random(query).shuffle(rows)
        rows = self.spoil(rows)
        key = "results" if "documents" in body else "data"
        return 200, {}, json.dumps(rows if "texts" in body else {key: rows, "model": "m"})


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with served(Server()) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.reset()
    return running


def groups(count: int, passages: int) -> list[Group]:
    return [Group(str(q), f"query {q}", tuple(Passage(f"passage {q} {p}") for p in range(passages))) for q in range(count)]


def expected(asked: list[Group], rule: Callable[[str, str], float] = logit) -> list[np.ndarray]:
    return [np.array([rule(group.query, passage.text) for passage in group.passages], np.float32) for group in asked]


def check(teacher: HttpTeacher, asked: list[Group]) -> None:
    for values, wanted in zip(teacher.score(asked), expected(asked), strict=True):
        np.testing.assert_array_equal(values, wanted)
        assert values.dtype == np.float32


# ---- formats and order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "path", "body"),
    [
        ("tei", "/rerank", {"query": "q", "texts": ["a", "b"], "raw_scores": True, "truncate": False}),
        ("cohere", "/v1/rerank", {"query": "q", "documents": ["a", "b"], "return_documents": False, "top_n": 2}),
        ("vllm", "/score", {"text_1": "q", "text_2": ["a", "b"], "use_activation": False}),
    ],
)
def test_each_format_is_asked_and_read(server: Server, api: str, path: str, body: dict[str, Any]) -> None:
    asked = [Group("0", "q", (Passage("a"), Passage("b")))]
    server.rule = lambda query, text: {"a": -3.5, "b": 2.25}[text]
    np.testing.assert_array_equal(HttpTeacher(server.url, api=api).score(asked)[0], [-3.5, 2.25])
    np.testing.assert_array_equal(HttpTeacher(server.url, api=api, model="m").score(asked)[0], [-3.5, 2.25])
    assert [(where, what) for where, what, _ in server.asked] == [(path, body), (path, body | {"model": "m"})]


@pytest.mark.parametrize("api", ["tei", "cohere", "vllm"])
def test_groups_of_any_size_come_back_in_order(server: Server, api: str) -> None:
    asked = [*groups(7, 9), Group("none", "nothing", ()), *groups(2, 1)]
    seen: list[int] = []
    teacher = HttpTeacher(server.url, api=api, batch=4)
    for values, wanted in zip(teacher.prepare(asked)(seen.append), expected(asked), strict=True):
        np.testing.assert_array_equal(values, wanted)
    assert sum(seen) == 65
    assert sorted(server.sizes) == [1] * 9 + [4] * 14


TEXTS = st.text(min_size=1, max_size=8)


@settings(max_examples=40)
@given(asked=st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=7)), max_size=5), batch=st.integers(1, 4))
def test_any_groups_come_back_in_order(running: Server, asked: list[tuple[str, list[str]]], batch: int) -> None:
    running.reset()
    check(HttpTeacher(running.url, batch=batch), [Group(query, query, tuple(map(Passage, ts))) for query, ts in asked])


def test_any_text_is_sent_as_it_is(server: Server) -> None:
    query, text = "为什么 \x00 \u2028 \U0001f9ff é", 'null\n"\\ \ud83d'  # the last is half of a pair
    check(HttpTeacher(server.url), [Group("0", query, (Passage(text),))])
    assert (server.asked[0][1]["query"], server.asked[0][1]["texts"]) == (query, [text])


@pytest.mark.parametrize(
    ("api", "given", "path"),
    [
        ("tei", "/", "/rerank"),
        ("tei", "/rerank/", "/rerank"),
        ("cohere", "/v2", "/v2/rerank"),
        ("cohere", "/a/v1/rerank?key=s3cret#x", "/a/v1/rerank?key=s3cret"),
        ("vllm", "/v1", "/v1/score"),
    ],
)
def test_a_url_may_be_the_root_or_the_endpoint(server: Server, api: str, given: str, path: str) -> None:
    check(HttpTeacher(server.url + given, api=api), groups(1, 3))
    assert server.asked[0][0] == path


def test_no_groups_ask_nothing(server: Server) -> None:
    assert HttpTeacher(server.url).score([]) == []
    assert [len(values) for values in HttpTeacher(server.url).score([Group("0", "q", ())])] == [0]
    assert not server.asked


# ---- identity and token -----------------------------------------------------------------------------------------------


def test_the_identity_names_the_server_but_no_secret(server: Server) -> None:
    plain = HttpTeacher("http://Host:80/", model="m").identity
    secret = HttpTeacher("http://user:pass@host:80/rerank?key=1", model="m", key_variable="KEY").identity
    assert plain == secret
    assert (plain.kind, plain.score, plain.weights) == ("http", "logit", "tei http://host:80/rerank m")
    others = [HttpTeacher("http://host:80", model="m", scores="probabilities"), HttpTeacher("http://host:80")]
    others.append(HttpTeacher("http://host:80", model="m", api="vllm"))
    assert len({plain.digest, *(other.identity.digest for other in others)}) == 4


def test_the_token_is_sent_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "s3cret\n")
    teacher = HttpTeacher(server.url, key_variable="TEACHER_KEY")
    check(teacher, groups(1, 3))
    assert server.asked[-1][2]["Authorization"] == "Bearer s3cret"
    for status in (401, 503):
        server.first = [(status, {}, "no such token: s3cret")] * 6
        with pytest.raises(UserError, match=rf"answered {status}.*no such token: \*\*\*") as caught:
            teacher.score(groups(1, 1))
        assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(teacher.identity)


def test_a_variable_without_a_token_is_the_users_to_set(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    with pytest.raises(UserError, match="environment variable TEACHER_KEY holds no token"):
        HttpTeacher(server.url, key_variable="TEACHER_KEY").score(groups(1, 1))
    with pytest.raises(UserError, match="variable that key_variable names") as caught:
        HttpTeacher(server.url, key_variable="hf_s3cret").score(groups(1, 1))
    assert "s3cret" not in str(caught.value)
    assert not server.asked


# ---- what passes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, None])
def test_what_passes_is_asked_again(server: Server, pauses: list[float], status: int | None) -> None:
    server.first = [status and (status, {}, "busy")] * 3
    check(HttpTeacher(server.url, concurrency=1), groups(2, 3))
    assert len(server.asked) == 5
    assert all(low <= taken <= 2 * low for taken, low in zip(pauses, (0.5, 1.0, 2.0), strict=True))


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("9999999", 120, 120),
        ("in a while", 0.5, 1),
        (None, 0.5, 1),
        (30.0, 28, 30),
        (-30.0, 0, 0),
        (9e5, 120, 120),
    ],
)
def test_the_server_says_when_to_ask_again(
    server: Server, pauses: list[float], header: str | float | None, low: float, high: float
) -> None:
    said = formatdate(time.time() + header, usegmt=True) if isinstance(header, float) else header
    server.first = [(429, {"Retry-After": said} if said else {}, "slow down")]
    check(HttpTeacher(server.url), groups(1, 3))
    assert len(pauses) == 1
    assert low <= pauses[0] <= high


def test_a_server_that_stays_away_is_told(server: Server, pauses: list[float]) -> None:
    server.first = [(503, {}, "loading")] * 9
    with pytest.raises(UserError, match=r"answered 503 to 3 requests in a row .*is it up.*: loading"):
        HttpTeacher(server.url, retries=2).score(groups(1, 1))
    assert len(server.asked) == 3
    with pytest.raises(UserError, match=r"no answer \(ConnectError\)"):
        HttpTeacher("http://127.0.0.1:9", retries=1).score(groups(1, 1))
    assert len(pauses) == 3


def test_a_server_that_was_never_there_is_told_soon_and_one_that_restarts_is_waited_for(
    server: Server, pauses: list[float]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    gone = f"http://127.0.0.1:{port}"
    with pytest.raises(UserError, match=r"no answer \(ConnectError\) to 3 requests in a row \(is it up\?"):
        HttpTeacher(gone, retries=9).score(groups(1, 1))
    assert sum(pauses) < 4
    teacher = HttpTeacher(server.url, retries=9)
    check(teacher, groups(1, 1))
    teacher.server.url = f"{gone}/rerank"
    with pytest.raises(UserError, match=r"no answer \(ConnectError\) to 10 requests in a row"):
        teacher.score(groups(1, 1))


def test_a_slow_answer_is_asked_for_again(server: Server, pauses: list[float]) -> None:
    released = Event()

    def rule(query: str, text: str) -> float:
        if len(server.asked) == 1:
            released.wait(5)
        return logit(query, text)

    server.rule = rule
    check(HttpTeacher(server.url, timeout=0.2), groups(1, 1))
    released.set()
    assert (len(server.asked), len(pauses)) == (2, 1)


def test_a_refusal_ends_the_waiting_of_the_others(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "pause", Event.wait)
    refused = (403, {}, "no")
    waits, refused = (503, {"Retry-After": "60"}, ""), (403, {}, "no")
    server.answer = lambda body: waits if texts_of(body) == ["passage 0 0"] else refused
    start = time.monotonic()
    with pytest.raises(UserError, match="answered 403"):
        HttpTeacher(server.url, concurrency=2).score(groups(2, 1))
    assert time.monotonic() - start < 5


# ---- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["tei", "cohere", "vllm"])
def test_a_request_above_the_servers_limit_is_halved_once_and_for_all(server: Server, api: str) -> None:
    server.limit = 9
    teacher = HttpTeacher(server.url, api=api, concurrency=1)
    check(teacher, groups(3, 40))
    assert [size for size in server.sizes if size > 9] == [32, 16]
    server.asked.clear()
    check(teacher, groups(2, 40))
    assert max(server.sizes) == 8


def test_a_request_of_too_many_bytes_is_halved(server: Server) -> None:
    server.first = [(413, {}, "<html>Request Entity Too Large</html>")]
    check(HttpTeacher(server.url), groups(1, 5))
    assert server.sizes == [5, 2, 2, 1]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (413, '{"error":"`inputs` must have less than 512 tokens. Given: 600","error_type":"Validation"}'),
        (400, '{"error": {"message": "This model\'s maximum context length is 512 tokens."}}'),
    ],
)
def test_a_text_that_is_too_long_is_refused_with_its_query(server: Server, status: int, body: str) -> None:
    server.first = [(status, {}, body)]
    with pytest.raises(UserError, match=rf"answered {status} to the query 'query 0' .*too long.*512 tokens"):
        HttpTeacher(server.url).score(groups(1, 5))
    assert len(server.asked) == 1


# ---- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        (401, "who are you", r"answered 401 \(check key_variable\): who are you$"),
        (404, "<h1>\n404</h1>", r"answered 404 \(check url and api\): <h1> 404</h1>$"),
        (422, '{"detail": "field required"}', r"answered 422 to the query 'query 0' with 2 of its passages: .*required"),
        (307, "", r"answered 307$"),
        (418, "x" * 999, r"answered 418: x{200}$"),
        (200, "<html>welcome</html>", "not JSON, check url: <html>welcome"),
        (200, "", "not JSON, check url$"),
        (200, '{"results": []}', "not in the tei format, check api"),
        (200, "[1, 2]", "not in the tei format, check api"),
    ],
)
def test_another_answer_is_told_in_one_line(server: Server, status: int, body: str, line: str) -> None:
    server.first = [(status, {}, body)]
    with pytest.raises(UserError, match=line) as caught:
        HttpTeacher(server.url).score(groups(1, 2))
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1


def _first(rows: Rows, **changes: Any) -> Rows:
    return [rows[0] | changes, *rows[1:]]


@pytest.mark.parametrize("api", ["tei", "cohere", "vllm"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows[1:],
        lambda rows: [*rows, rows[0]],
        lambda rows: [rows[1], *rows[1:]],
        lambda rows: _first(rows, index=3),
        lambda rows: _first(rows, index=-1),
        lambda rows: _first(rows, index=None),
        lambda rows: _first(rows, index="0"),
        lambda rows: [],
    ],
    ids=["missing", "one more", "repeated", "too large", "negative", "none", "a text", "empty"],
)
def test_each_passage_is_answered_once(server: Server, api: str, spoil: Callable[[Rows], Rows]) -> None:
    server.spoil = spoil
    with pytest.raises(UserError, match="must hold each index from 0 to 2 once"):
        HttpTeacher(server.url, api=api).score(groups(1, 3))


@pytest.mark.parametrize("score", [math.nan, math.inf, 1e39, 10**400, None, "1.0", True])
def test_only_finite_numbers_are_scores(server: Server, score: Any) -> None:
    server.spoil = lambda rows: _first(rows, score=score)
    with pytest.raises(UserError, match="a score is not a finite number, check the server's model"):
        HttpTeacher(server.url).score(groups(1, 3))


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", "", "http:/host"])
def test_a_url_must_be_one(url: str) -> None:
    with pytest.raises(UserError, match="must look like http://localhost:8080"):
        HttpTeacher(url)


def test_settings_are_known_ones() -> None:
    with pytest.raises(UserError, match="api 'vlm' is not known: did you mean 'vllm'"):
        HttpTeacher("http://host", api="vlm")
    with pytest.raises(UserError, match="scores 'logit' is not known: did you mean 'logits'"):
        HttpTeacher("http://host", scores="logit")


# ---- probabilities ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 40])
def test_probabilities_are_refused_where_logits_are_expected(server: Server, count: int) -> None:
    server.rule = chance
    with pytest.raises(UserError, match=r"every score lies in \[0, 1\], as probabilities do"):
        HttpTeacher(server.url).score(groups(1, count))
    assert sum(server.sizes) == count + (2 if count < 16 else 0)


def test_a_few_logits_may_lie_between_0_and_1(server: Server) -> None:
    server.rule = lambda query, text: {"passage": 0.5, "The": 9.0, "Salt": -9.0}[text.split()[0]]
    teacher = HttpTeacher(server.url)
    assert teacher.score(groups(1, 3))[0].tolist() == [0.5] * 3
    assert server.sizes == [3, 2]
    assert teacher.score(groups(1, 20))[0].tolist() == [0.5] * 20  # known by now
    assert server.sizes == [3, 2, 20]


def test_probabilities_become_their_logits(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.rule = chance
    asked = groups(2, 20)
    for values, wanted in zip(HttpTeacher(server.url, scores="probabilities").score(asked), expected(asked), strict=True):
        np.testing.assert_allclose(values, wanted, rtol=1e-5)
    assert capsys.readouterr().err == ""


def test_saturated_probabilities_are_cut_off_and_told_once(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.rule = lambda query, text: [0.0, 1e-7, 0.5, 0.9999, 1.0][int(text[-1])]
    teacher = HttpTeacher(server.url, scores="probabilities")
    (values,) = teacher.score(groups(1, 5))
    np.testing.assert_allclose(values, [-16.118095, -16.118095, 0, 9.21024, 16.118095], rtol=1e-6)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "3 of 5 probabilities" in said
    teacher.score(groups(1, 5))
    assert capsys.readouterr().err == ""


def test_logits_are_no_probabilities(server: Server) -> None:
    with pytest.raises(UserError, match=r"a score lies outside \[0, 1\].*set scores to logits"):
        HttpTeacher(server.url, scores="probabilities").score(groups(1, 9))
