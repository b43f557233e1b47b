"""What the page's script reads is what was scored, and no more than fits."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrank.evidence import evaluate, rankings
from distilrank.evidence.rankings import script_json
from evidence.pages import evaluation, groups, system


def unpacked(blocks: Any) -> list[dict[str, Any]]:
    return [query for block in blocks for query in json.loads(gzip.decompress(base64.b64decode(block)))]


def test_orders_and_values_are_those_that_were_scored() -> None:
    found = evaluation()
    page = rankings.rankings(found, texts=True)
    index, queries = json.loads(page.index), unpacked(page.blocks)
    systems = [found.systems[place] for place in (0, 1, 2)]
    assert index["systems"] == ["student", "student-distilled", "big teacher"]
    assert len(index["rows"]) == len(queries) == len(found.groups)
    assert len(page.blocks) == -(-len(found.groups) // index["block"]) > 1
    for number, (group, row, query) in enumerate(zip(found.groups, index["rows"], queries, strict=True)):
        assert row[:2] == [group.query_id, group.query]
        values = iter(row[2])
        for name in (*found.measures, None):
            for one in systems:
                wanted = found.measured[one.name].values[name][number] if name else _agreement(found, one.name, number)
                assert next(values) == (None if np.isnan(wanted) else pytest.approx(wanted, abs=5e-5))
        assert query["passages"] == [passage.text for passage in group.passages]
        assert query["labels"] == [passage.label for passage in group.passages]
        for one, order, scores in zip(systems, query["orders"], query["scores"], strict=True):
            assert order == np.argsort(-one.scores[number]).tolist()
            assert scores == pytest.approx(one.scores[number].tolist(), abs=6e-4)


def _agreement(found: Any, name: str, number: int) -> float:
    return float(found.agreement[name].values["ndcg"][number]) if name in found.agreement else float("nan")


def test_without_a_pair_the_first_systems_stand_side_by_side() -> None:
    of = groups()
    found = evaluate(of, [system(str(n), "model", 1.0, of, n) for n in range(5)])
    index = json.loads(rankings.rankings(found, texts=True).index)
    assert (index["systems"], index["pair"]) == (["0", "1", "2"], False)


def test_texts_are_cut_until_they_fit_and_go_where_none_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    of = groups()
    for group in of:
        for passage in group.passages:
            object.__setattr__(passage, "text", "".join(map(chr, noise.integers(97, 123, 700))))
    found = evaluation(of=of)
    whole = rankings.rankings(found, texts=True)
    assert whole.length == rankings.LENGTHS[0]
    size = len(whole.index) + sum(map(len, whole.blocks))
    monkeypatch.setattr(rankings, "LIMIT", size // 2)
    half = rankings.rankings(found, texts=True)
    assert half.length is not None
    assert half.length < rankings.LENGTHS[0]
    assert len(half.index) + sum(map(len, half.blocks)) <= size // 2
    assert max(len(text) for query in unpacked(half.blocks) for text in query["passages"]) == half.length + len(" …")
    monkeypatch.setattr(rankings, "LIMIT", 1)
    none = rankings.rankings(found, texts=True)
    assert none.length is None
    assert not any("passages" in query for query in unpacked(none.blocks))


@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_json_in_a_script_element_cannot_end_it(value: Any) -> None:
    text = script_json(value)
    assert json.loads(text) == value
    assert "<" not in text
