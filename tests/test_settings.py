"""What is wrong with a setting is told in our words, whatever was written there."""

from __future__ import annotations

import datetime
import math
from copy import deepcopy
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from distilrank.errors import UserError
from distilrank.recipe import Recipe, packaged_recipes, parse_recipe, teacher_spec
from distilrank.settings import mistake
from distilrank.teachers.prompts import Template

ODD: list[Any] = [
    None, "x", "", "\ud800", -1, 0, 1.5, 2**70, True, math.nan, math.inf, [], [None], ["x", 3], {}, {"x": 1}, {1: 2},
    {"kind": "x"}, {"kind": None}, datetime.date(2020, 1, 1), b"x", "http://host", {"margin_mse": -1}, {"mse": "x", "kl": 1},
]  # fmt: skip
"""What a YAML file can hold where something else is wanted."""
THEIRS = ("Input should", "Field required", "Value error", "a valid", "pydantic", "something else")
TEACHERS = [
    {"kind": "causal", "model": "m"}, {"kind": "likelihood", "model": "m"}, {"kind": "cross-encoder", "model": "m"},
    {"kind": "embedder", "model": "m"}, {"kind": "http", "url": "http://host"},
    {"kind": "ensemble", "members": [{"kind": "embedder", "model": "m"}]},
]  # fmt: skip


def told(section: Any, data: Any) -> str:
    """What is said about data that are refused; nothing where they are fine."""
    try:
        section.model_validate(data)
    except ValidationError as error:
        return str(mistake(error))
    return ""


def refusals(section: Any, whole: dict[str, Any], fields: Any, place: tuple[Any, ...]) -> list[str]:
    """What is said of each odd value in each field of the section at a place in an otherwise sound recipe."""
    found = []
    for name in fields:
        for odd in ODD:
            data = deepcopy(whole)
            inner = data
            for key in place:
                inner = inner[key]
            inner[name] = odd
            found.append(told(section, data))
    return list(filter(None, found))


@pytest.mark.parametrize("teacher", TEACHERS, ids=lambda teacher: teacher["kind"])
def test_no_word_of_the_library_reaches_the_user(teacher: dict[str, Any]) -> None:
    whole = yaml.safe_load(packaged_recipes()["demo"]) | {"teacher": teacher, "score": {}}
    found = refusals(Recipe, whole, type(Recipe.model_validate(whole).teacher).model_fields, ("teacher",))
    if teacher["kind"] == "ensemble":
        found += refusals(Recipe, whole, ("kind", "model", "weight", "dtype"), ("teacher", "members", 0))
        found += refusals(Recipe, whole, Recipe.model_fields, ())
        for name, field in Recipe.model_fields.items():
            if name in whole and hasattr(field.annotation, "model_fields"):
                found += refusals(Recipe, whole, field.annotation.model_fields, (name,))
    assert len(found) > 50
    for message in found:
        assert not any(theirs in message for theirs in THEIRS), message
        assert len(message) < 400
        message.encode()  # it can be printed


def test_neither_does_one_of_a_template() -> None:
    whole = {"name": "t", "source": "s", "pieces": ["{query} {passage}", "?"], "positive": "yes"}
    assert not told(Template, whole)
    found = refusals(Template, whole, Template.model_fields, ())
    assert len(found) > 50
    assert not [message for message in found if any(theirs in message for theirs in THEIRS)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.epochs=much", "must be a number, but is 'much'"),
        ("train.epochs=0", "must be above 0, but is 0"),
        ("seed=4294967296", "must be below 4294967296, but is 4294967296"),
        ("train.warmup=1", "must be below 1, but is 1"),
        ("train.batch_size=1.5", "must be a whole number, but is 1.5"),
        ("train.bounded_scores=perhaps", "must be true or false, but is 'perhaps'"),
        ("train.mode=rows", "must be 'groups' or 'triplets', but is 'rows'"),
        ("train.calibrate=sometimes", "must be 'auto' or 'none', or a number, but is 'sometimes'"),
        ("train.loss={margin_mse: -1}", "must be above 0, but is -1"),
        ("train.epohcs=2", "no setting 'epohcs': did you mean 'epochs'?"),
        ("data.skip_bad_lines=null", "must be true or false, but is null"),
        ("data=x", "must be a mapping, but is 'x'"),
        ("evaluate.metrics=[]", "must be a list that is not empty, but is a list"),
        ("evaluate.metrics=AP", "must be a list, but is 'AP'"),
        ("evaluate.metrics=[AP, 3]", "must be a text, but is 3"),
        ("evaluate.metrics=[AP@0]", "AP@0"),
        ("name=a/b", "must be letters, digits, dots, dashes and underscores"),
        ("teacher.model=https://host", "a server's URL: use --kind http"),
        ("teacher.kind=causl", "'embedder', 'http', 'ensemble', but is 'causl'"),
        ("data.train.deeper=1", "there is no place data.train.deeper in the recipe"),
        ("train.epochs=[", "'[' is not a YAML value"),
    ],
)  # fmt: skip
def test_a_change_is_named_and_no_line_of_the_file(change: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        parse_recipe(packaged_recipes()["my-domain"], "r.yaml", ("seed=1", change, "output=o"))
    assert str(error.value).startswith(f"--set {change}: ")
    assert said in str(error.value)


def test_a_number_of_any_size_can_be_told() -> None:
    with pytest.raises(UserError, match=r"^r.yaml:1: name: must be a text, but is too large a number$"):
        parse_recipe(f"name: 0x{'f' * 9999}\n", "r.yaml")


def test_a_mistake_of_the_file_beside_a_change_keeps_its_line() -> None:
    text = "name: a\ndata: {train: t}\nteacher: {kind: causal, model: m}\nstudent: {model: s}\ntrain: {epochs: much}\n"
    for change in ("train.warmup=0", "teacher.model=x"):
        with pytest.raises(UserError, match=r"^r.yaml:5: train.epochs: must be a number"):
            parse_recipe(text, "r.yaml", (change,))


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("embedder", {"api": "vllm"}, "--api: not for --kind embedder, only for http"),
        ("cross-encoder", {"model": "m"}, "--served-model: not for --kind cross-encoder, only for http"),
        ("http", {"template": "t"}, "--template: not for --kind http, only for causal, likelihood"),
        ("http", {"scores": "s"}, "--served-scores: must be 'logits' or 'probabilities', but is 's'"),
        ("causal", {}, "--teacher: a server's URL: use --kind http (in a recipe"),
    ],
)
def test_options_are_named_as_they_are_typed(kind: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        teacher_spec(kind, "http://host", **settings)
    assert str(error.value).startswith(said)


def test_a_servers_model_is_not_its_url() -> None:
    spec = teacher_spec("http", "http://host", model="m@1")
    assert (spec.url, spec.model) == ("http://host", "m@1")
