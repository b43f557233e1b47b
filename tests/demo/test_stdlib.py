"""The embedded data set: Python's own functions, asked for by their docstrings, split by module."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter

import pytest

from distilrank.demo import demo_groups
from distilrank.demo.stdlib import MOST_CHARACTERS, Function, _functions, _in_test
from distilrank.records import Group


def digest(groups: list[Group]) -> str:
    return hashlib.sha256(repr(groups).encode()).hexdigest()


def modules(groups: list[Group]) -> set[str]:
    return {(p.id or "").split("#")[0].split("/")[0].removesuffix(".py") for group in groups for p in group.passages}


@pytest.fixture(scope="module")
def functions() -> list[Function]:
    return _functions()


@pytest.fixture(scope="module")
def test_part() -> list[Group]:
    return demo_groups("test", 120, 12)


@pytest.fixture(scope="module")
def train_part() -> list[Group]:
    return demo_groups("train", 120, 8)


def test_there_are_enough_functions_on_both_sides(functions: list[Function]) -> None:
    counts = Counter(_in_test(function.module) for function in functions)
    assert counts[False] > 3_000
    assert counts[True] > 900


def test_no_module_is_on_both_sides(functions: list[Function], train_part: list[Group], test_part: list[Group]) -> None:
    assert not modules(train_part) & modules(test_part)
    assert all(_in_test(module) for module in modules(test_part))
    assert len({function.query.lower() for function in functions}) == len(functions)
    assert len({function.passage for function in functions}) == len(functions)


@pytest.mark.parametrize(("part", "size"), [("train_part", 8), ("test_part", 12)])
def test_each_query_has_its_own_function_once_among_distinct_others(
    request: pytest.FixtureRequest, functions: list[Function], part: str, size: int
) -> None:
    own = {function.query: function.passage for function in functions}
    groups: list[Group] = request.getfixturevalue(part)
    assert len({group.query for group in groups}) == len(groups) == 120
    for group in groups:
        assert len({passage.text for passage in group.passages}) == len(group.passages) == size
        assert [passage.text for passage in group.passages if passage.label == 1] == [own[group.query]]
        assert [passage.label for passage in group.passages].count(0) == size - 1


def test_the_place_of_the_own_function_says_nothing(test_part: list[Group], train_part: list[Group]) -> None:
    for groups in (test_part, train_part):
        places = Counter([p.label for p in group.passages].index(1) for group in groups)
        assert len(places) == len(groups[0].passages)
        assert max(places.values()) < len(groups) / 3


def test_no_passage_tells_its_own_sentence(functions: list[Function]) -> None:
    for function in functions:
        _, _, body = function.passage.partition(":\n")
        assert function.query not in " ".join(body.split())
        assert len(function.passage) <= MOST_CHARACTERS


def test_queries_are_sentences_of_words(functions: list[Function]) -> None:
    for function in functions:
        assert function.query.isascii()
        assert 5 <= len(function.query.split()) <= 25
        assert "\n" not in function.query


def test_the_same_seed_gives_the_same_groups_and_another_seed_others(test_part: list[Group]) -> None:
    assert demo_groups("test", 120, 12) == test_part
    assert demo_groups("test", 120, 12, seed=1) != test_part


def test_another_process_makes_the_same_groups(test_part: list[Group]) -> None:
    program = """
import hashlib
from distilrank.demo import demo_groups
print(hashlib.sha256(repr(demo_groups("test", 120, 12)).encode()).hexdigest())
"""
    hashed = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=hashed)
    assert done.stdout.strip() == digest(test_part)


def test_a_part_smaller_than_asked_is_given_whole(functions: list[Function]) -> None:
    whole = demo_groups("test", None, 8)
    assert len(whole) == sum(_in_test(function.module) for function in functions)
