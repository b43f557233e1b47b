"""From a folder of documents without queries to a student, on tiny models: the recipe, what it keeps, what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import tiny
from chat_server import ChatServer, chat_server, first_words
from distilrank.cli import run
from distilrank.errors import UserError
from distilrank.pipeline import plan_recipe, run_recipe
from distilrank.recipe import Recipe, load_recipe, packaged_recipes, sampled
from distilrank.records import read_groups, write_groups


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 Markdown documents of two sections each."""
    folder = tmp_path_factory.mktemp("documents")
    for number in range(20):
        one, other = tiny.WORDS[number], tiny.WORDS[number + 1]
        sections = [
            f"## {word}\n\nhow does the {word} open and close in the {one} of {other} {number}" for word in (one, other)
        ]
        (folder / f"{one}.md").write_text(f"# {one} {number}\n\n" + "\n\n".join(sections))
    return folder


def recipe(folder: Path, documents: Path, url: str, student: Path, **corpus: Any) -> Recipe:
    write = {"llm": "m", "url": url, "count": 40, "held_out": 0.25}
    made = {"documents": str(documents), "tokens": 48, "write": write, "depth": 10} | corpus
    return Recipe.model_validate(
        {
            "name": "made",
            "data": {"corpus": made},
            "teacher": {"kind": "cross-encoder", "model": str(student), "dtype": "float32"},
            "score": {"checks": "skip"},
            "student": {"model": str(student), "max_length": 64},
            "train": {"precision": "float32", "learning_rate": 1e-3, "queries_per_step": 4},
            "output": str(folder / "run"),
        }
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, documents: Path, server: ChatServer, bert: Path) -> Recipe:
    made = recipe(tmp_path_factory.mktemp("corpus"), documents, server.url, bert)
    run_recipe(made)
    return made


def test_documents_alone_end_in_a_student_and_a_report(ran: Recipe) -> None:
    assert (ran.folder / "model/model.safetensors").exists()
    report = (ran.folder / "report.html").read_text(encoding="utf-8")
    assert "The test queries were written by a language model" in report


def test_groups_hold_the_passage_that_was_asked_about_and_no_document_is_in_both(ran: Recipe) -> None:
    train, test = (list(read_groups(ran.folder / f"data/{part}.parquet")) for part in ("train", "test"))
    assert len(test) >= 0.2 * (len(train) + len(test)) > 0
    for group in [*train, *test]:
        (own,) = (passage for passage in group.passages if passage.label)
        assert group.query_id.startswith(f"{own.id}/")
        assert group.query in " ".join(own.text.split())
        assert {passage.source for passage in group.passages} == {"bm25"}
        assert [passage.rank for passage in group.passages] == list(range(1, len(group.passages) + 1))
    of_train, of_test = ({group.query_id.split("#")[0] for group in part} for part in (train, test))
    assert not of_train & of_test


def test_a_second_run_pays_for_nothing_and_a_changed_document_for_its_own(
    ran: Recipe, documents: Path, server: ChatServer
) -> None:
    before = len(server.asked)
    run_recipe(ran)
    assert {state for *_, state in plan_recipe(ran)} == {"done before"}
    (documents / f"{tiny.WORDS[0]}.md").write_text("# new\n\nwhat is the new text of this document and how does it go on")
    assert plan_recipe(ran)[0][2] == "to do"
    run_recipe(ran)
    assert len(server.asked) == before + 1


def test_a_trial_asks_about_fewer_passages_and_shares_the_store(ran: Recipe, server: ChatServer) -> None:
    before = len(server.asked)
    folder = run_recipe(sampled(ran, 8))
    assert len(list(read_groups(folder / "data/train.parquet"))) <= 8
    assert len(server.asked) == before


def test_real_queries_and_a_real_test_take_the_place_of_written_ones(
    ran: Recipe, documents: Path, server: ChatServer, bert: Path, tmp_path: Path
) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text(
        "".join(json.dumps({"_id": str(n), "text": f"{w} open"}) + "\n" for n, w in enumerate(tiny.WORDS[:12]))
    )
    write_groups(tmp_path / "test.jsonl", tiny.groups(6, 4))
    made = recipe(tmp_path, documents, server.url, bert, write=None, queries=str(queries))
    assert not made.data.tested
    assert [name for name, *_ in plan_recipe(made)] == ["data", "score", "mine", "train"]
    before = len(server.asked)
    tested = made.model_copy(update={"data": made.data.model_copy(update={"test": str(tmp_path / "test.jsonl")})})
    folder = run_recipe(tested)
    groups = list(read_groups(folder / "data/train.parquet"))
    assert [group.query_id for group in groups] == [str(n) for n in range(12)]
    assert all(passage.label is None for group in groups for passage in group.passages)
    assert "were written by a language model" not in (folder / "report.html").read_text(encoding="utf-8")
    assert len(server.asked) == before


def test_a_dry_run_names_what_is_made_and_what_is_not_there(
    ran: Recipe, tmp_path: Path, server: ChatServer, bert: Path
) -> None:
    assert plan_recipe(ran)[0][1].endswith("queries written by m, bm25 candidates")
    (_, does, _), *_ = plan_recipe(recipe(tmp_path, tmp_path / "nowhere", server.url, bert))
    assert does.endswith(f"(not there yet: {tmp_path / 'nowhere'})")
    with pytest.raises(UserError, match=r"nowhere: no such file or folder$"):
        run_recipe(recipe(tmp_path, tmp_path / "nowhere", server.url, bert))


def test_the_packaged_recipe_is_sound() -> None:
    assert "corpus-only" in packaged_recipes()
    assert load_recipe("corpus-only").data.holds_out


@pytest.mark.parametrize(
    ("corpus", "wanted"),
    [
        ({"documents": "d", "passages": "p", "queries": "q"}, "give either documents (a folder) or passages (a corpus)"),
        ({"documents": "d"}, "give either queries (a file) or write (a language model writes them)"),
        ({"documents": "d", "queries": "q", "retriever": "dense"}, "the retriever dense needs an embedder"),
        ({"documents": "d", "write": {"llm": "m"}, "depth": 5}, "write.round_trip is 10: at most depth, which is 5"),
        ({"documents": "d", "write": {"llm": "m", "url": "http://u:p@h/v1"}}, "no user, password or query in it"),
        ({"documents": "d", "write": {"lm": "m"}}, "no setting 'lm': did you mean 'llm'?"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, corpus: dict[str, Any], wanted: str) -> None:
    whole = yaml.safe_load(packaged_recipes()["corpus-only"])
    whole["data"] = {"corpus": corpus}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(whole))
    with pytest.raises(UserError) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert wanted in str(caught.value)


# ---- file by file


def test_the_path_file_by_file(
    documents: Path, server: ChatServer, bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: object) -> dict[str, Any]:
        assert run([str(argument) for argument in arguments]) == 0
        found: dict[str, Any] = json.loads(capfd.readouterr().out)
        return found

    corpus, queries, groups = (tmp_path / f"{name}.jsonl" for name in ("corpus", "queries", "groups"))
    cut = command("passages", documents, "-o", corpus, "--tokenizer", bert, "--tokens", 48, "--json")["passages"]
    assert cut == len(corpus.read_text().splitlines()) >= 39
    asked = ["queries", corpus, "-o", queries, "--llm", "m", "--url", server.url, "--count", 30, "--json"]
    kept = command(*asked)["queries"]
    before = len(server.asked)
    assert command(*asked)["queries"] == kept > 10
    assert len(server.asked) == before
    assert command("candidates", "--corpus", corpus, "--queries", queries, "-o", groups, "--json")["queries"] == kept
    assert len(list(read_groups(groups))) == kept
    assert (
        run(["candidates", "--corpus", str(corpus), "--queries", str(queries), "-o", str(groups), "--retriever", "dense"])
        == 2
    )
    assert "the retriever dense needs an embedder" in capfd.readouterr().err
    assert (
        run(["queries", str(corpus), "-o", str(queries), "--llm", "m", "--template", "webquestion", "--url", server.url])
        == 2
    )
    assert "did you mean 'web-question'?" in capfd.readouterr().err


def test_queries_go_on_after_kill_9_and_what_was_kept_is_not_paid_for_again(tmp_path: Path) -> None:
    places = [f"{one} {other}" for one in tiny.WORDS[:8] for other in tiny.WORDS[8:28]]
    rows = [
        {"_id": f"{n}.md#0", "text": f"the way to {place} {n} is open until winter comes"} for n, place in enumerate(places)
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def started(server: ChatServer) -> subprocess.Popen[bytes]:
        asked = ["queries", str(tmp_path / "corpus.jsonl"), "-o", str(tmp_path / "queries.jsonl"), "--llm", "m"]
        asked += ["--url", server.url, "--count", str(len(rows)), "--near-duplicates", "0", "--round-trip", "0"]
        program = "import sys; from distilrank.data import queries; from distilrank.cli import run; queries.PART_LINES = 5; "
        return subprocess.Popen([sys.executable, "-c", f"{program}sys.exit(run({asked!r}))"], stderr=subprocess.DEVNULL)

    with chat_server() as server:
        server.rule = lambda body: time.sleep(0.05) or first_words(body, 9)  # type: ignore[func-returns-value]
        process = started(server)
        while len(list(tmp_path.glob("queries/*/part-*.parquet"))) < 3 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        before = len(server.asked)
        kept = sum(pq.read_metadata(part).num_rows for part in (tmp_path / "queries").glob("*/part-*.parquet"))
        assert 15 <= kept <= before < len(rows)
        assert started(server).wait() == 0
        assert len(server.asked) == before + len(rows) - kept
    made = [json.loads(line) for line in (tmp_path / "queries.jsonl").read_text().splitlines()]
    assert {row["passage"]: row["text"] for row in made} == {row["_id"]: " ".join(row["text"].split()[-9:]) for row in rows}
