"""The set outside the demo's domain: each sentence has its own paragraph's rest among other paragraphs' rests."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilrank.demo import demo_changes, reference, reference_groups
from distilrank.errors import UserError
from distilrank.pipeline.systems import sets_outside
from distilrank.recipe import EvaluateSpec, load_recipe

pytestmark = pytest.mark.skipif(not reference.reference_file().exists(), reason="this Python has no reference text")


def test_a_sentence_has_one_rest_of_its_own_among_others() -> None:
    groups = reference_groups(60, 8)
    assert len({group.query for group in groups}) == 60
    rests = dict(reference._paragraphs())
    for group in groups:
        assert len({passage.text for passage in group.passages}) == 8
        assert [passage.text for passage in group.passages if passage.label] == [rests[group.query]]
    assert len({[p.label for p in group.passages].index(1) for group in groups}) == 8, "no place gives it away"
    assert reference_groups(60, 8) == groups


def test_the_reference_itself_holds_them_one_after_the_other() -> None:
    text = " ".join(reference.reference_file().read_text(encoding="utf-8").replace("\\n", " ").replace("\\'", "'").split())
    found = [f"{sentence} {rest[:40]}" in text.replace("' '", "") for sentence, rest in reference._paragraphs()]
    assert sum(found) > 0.5 * len(found)


def test_the_demo_measures_on_it_what_was_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = load_recipe("demo", demo_changes(5, "x")).evaluate.out_of_domain
    (found,) = sets_outside(EvaluateSpec(out_of_domain=(source,)), offline=True).items()
    assert (found[0], len(found[1])) == ("demo:reference", int(source.rpartition(":")[2]))
    with pytest.raises(UserError, match="write it as demo:reference:8:100"):
        sets_outside(EvaluateSpec(out_of_domain=("demo:reference",)), offline=True)
    monkeypatch.setattr("distilrank.demo.sizes.reference_file", lambda: Path("absent"))
    assert load_recipe("demo", demo_changes(5, "x")).evaluate.out_of_domain == ()


def test_a_python_without_it_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "reference_file", lambda: Path("absent"))
    reference._paragraphs.cache_clear()
    with pytest.raises(UserError, match="this Python came without"):
        reference_groups(5, 4)
