"""The reference's rule, rendered a second time from its description alone, agrees line by line with `mine`."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.errors import UserError
from distilrank.mining import MiningSettings, mine
from distilrank.records import read_training_groups
from distilrank.rows import BadLines

TEXTS = ["a", "b", "ab", "é", "e\u0301", "", " ", "如何", "🙂", "a\nb", "a\x00b", 'say "x"']
QUERIES = [text for text in TEXTS if text.strip()]
SCORES = [0.0, -0.0, 1, 1.0, -1.5, 0.1, 0.1 + 2**-55, 0.3, 1e-300, 3e5, -20.25]
pairs = st.fixed_dictionaries(
    {
        "query": st.sampled_from(QUERIES[:4]) | st.sampled_from(QUERIES),
        "passage": st.sampled_from(QUERIES),
        "score": st.sampled_from(SCORES) | st.floats(-50, 50, width=32),
    }
)
lines = pairs.map(lambda pair: json.dumps(pair, ensure_ascii=False))
bad_lines = st.sampled_from(
    ["", "{", "[1]", '{"query": "a", "passage": "b"}', '{"query": "a", "passage": "b", "score": NaN}']
)


def rule(lines: list[str], top_k: int, num_negatives: int) -> list[str]:
    """reference.md, section 3, with dicts and `sorted`."""
    of_query: dict[str, list[tuple[str, float]]] = {}
    for line in lines:
        try:
            row = json.loads(line)
            entry = (row["passage"], float(row["score"]))
            if entry[1] != entry[1]:
                continue
            of_query.setdefault(row["query"], []).append(entry)
        except (ValueError, KeyError, TypeError):
            continue
    result = []
    for query, passages in of_query.items():
        ranked = sorted(passages, key=lambda entry: entry[1], reverse=True)
        for rank, (positive, high) in enumerate(ranked[:top_k]):
            for negative, low in ranked[rank + 1 : rank + 1 + num_negatives]:
                if positive != negative and high - low > 0:
                    row = {"query": query, "positive": positive, "negative": negative, "score": high - low}
                    result.append(json.dumps(row, ensure_ascii=False))
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mine")


def mined(folder: Path, lines: list[str], name: str = "mined.jsonl", **settings: Any) -> list[str]:
    """What `mine` writes, as lines; nothing where it says that there is no margin to teach."""
    (folder / "scored.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / name).unlink(missing_ok=True)
    triplets = settings.pop("triplets", True)
    with suppress(UserError):
        mine(folder / "scored.jsonl", folder / name, MiningSettings(**settings), triplets=triplets, skip=BadLines())
    return (folder / name).read_text(encoding="utf-8").split("\n")[:-1] if (folder / name).exists() else []


@settings(max_examples=60)
@given(
    rows=st.lists(lines | lines | lines | bad_lines, max_size=40),
    repeats=st.lists(st.integers(0, 39), max_size=6),
    top_k=st.integers(1, 9),
    num_negatives=st.integers(1, 6),
)
def test_adjacent_is_the_reference_rule_line_by_line(
    folder: Path, rows: list[str], repeats: list[int], top_k: int, num_negatives: int
) -> None:
    rows = rows + [rows[place] for place in repeats if place < len(rows)]
    assert mined(folder, rows, top_k=top_k, num_negatives=num_negatives) == rule(rows, top_k, num_negatives)


def test_a_query_far_apart_in_a_large_file_is_one_query_in_its_first_place(folder: Path) -> None:
    def row(query: str, passage: int, score: float) -> str:
        return json.dumps({"query": query, "passage": f"p{passage}", "score": score})

    rows = [
        row("early", 0, 1.0),
        *(row(f"q{n % 7_000}", n, float(n * 7919 % 1000)) for n in range(45_000)),
        row("early", 1, 0.25),
    ]
    found = mined(folder, rows)
    assert json.loads(found[0]) == {"query": "early", "positive": "p0", "negative": "p1", "score": 0.75}
    assert found == rule(rows, 8, 4)


@settings(max_examples=30)
@given(rows=st.lists(lines, max_size=30))
def test_all_pairs_is_every_combination_with_a_margin(folder: Path, rows: list[str]) -> None:
    of_query: dict[str, list[tuple[str, float]]] = {}
    for row in map(json.loads, rows):
        of_query.setdefault(row["query"], []).append((row["passage"], float(row["score"])))
    wanted = [
        (query, first[0], second[0], first[1] - second[1])
        for query, passages in of_query.items()
        for first, second in combinations(sorted(passages, key=lambda entry: -entry[1]), 2)
        if first[0] != second[0] and first[1] > second[1]
    ]
    found = [tuple(json.loads(line).values()) for line in mined(folder, rows, strategy="all_pairs")]
    assert found == wanted


@settings(max_examples=25)
@given(
    rows=st.lists(lines, max_size=30),
    strategy=st.sampled_from(["adjacent", "all_pairs"]),
    top_k=st.integers(1, 4),
    num_negatives=st.integers(1, 3),
)
def test_groups_hold_the_margins_of_the_triplets(
    folder: Path, rows: list[str], strategy: str, top_k: int, num_negatives: int
) -> None:
    chosen = {"strategy": strategy, "top_k": top_k, "num_negatives": num_negatives}
    triplets = [tuple(json.loads(line).values()) for line in mined(folder, rows, **chosen)]
    margins = []
    for group in map(json.loads, mined(folder, rows, "groups.jsonl", triplets=False, **chosen)):
        texts, scores = group["passages"], group["scores"]
        for i, j in group.get("pairs") or combinations(range(len(texts)), 2):
            margins.append((group["query"], texts[i], texts[j], scores[i] - scores[j]))
    assert margins == triplets


def test_an_adjacent_group_keeps_the_passages_that_are_in_a_pair(folder: Path) -> None:
    rows = [json.dumps({"query": "q", "passage": f"p{n}", "score": n}) for n in range(5)]
    mined(folder, rows, "groups.jsonl", triplets=False, top_k=1, num_negatives=2)
    (group,) = read_training_groups(folder / "groups.jsonl")
    assert group.passages == ("p4", "p3", "p2")
    assert group.pairs == ((0, 1), (0, 2))


def test_the_defaults_are_the_references() -> None:
    settings = MiningSettings()
    assert (settings.strategy, settings.top_k, settings.num_negatives) == ("adjacent", 8, 4)


def test_a_margin_beyond_all_doubles_is_refused_rather_than_written(tmp_path: Path) -> None:
    rows = [json.dumps({"query": "q", "passage": str(score), "score": score}) for score in (1e308, -1e308)]
    (tmp_path / "scored.jsonl").write_text("\n".join(rows))
    with pytest.raises(UserError):
        mine(tmp_path / "scored.jsonl", tmp_path / "triplets.jsonl")


def test_nothing_to_teach_is_said(tmp_path: Path) -> None:
    (tmp_path / "scored.jsonl").write_text(
        '{"query": "q", "passage": "a", "score": 1}\n{"query": "q", "passage": "b", "score": 1}\n'
    )
    with pytest.raises(UserError, match="no query has two passages with different scores"):
        mine(tmp_path / "scored.jsonl", tmp_path / "triplets.jsonl")
    assert not (tmp_path / "triplets.jsonl").exists()


def test_a_bad_line_stops_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "scored.jsonl").write_text('{"query": "q", "passage": "a", "score": 1}\n{"query": "q"}\n')
    with pytest.raises(UserError, match=r"scored\.jsonl:2: lacks \"passage\""):
        mine(tmp_path / "scored.jsonl", tmp_path / "triplets.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["scored.jsonl"]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"strategy": "adjacnt"}, "did you mean 'adjacent'"),
        ({"top_k": 0}, "at least 1"),
        ({"num_negatives": 0}, "at least 1"),
        ({"samples": 0}, "at least 1"),
        ({"passages": 1}, "at least 2"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        MiningSettings(**settings)
