"""The cosine of query and passage, as sentence-transformers computes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import tiny
from distilrank.errors import UserError
from distilrank.teachers.embedder import EmbedderTeacher

GROUPS = tiny.groups(4, 5, most_words=60)


def teacher(folder: Path, **changes: object) -> EmbedderTeacher:
    return EmbedderTeacher(folder, **{"dtype": "float32", "device": "cpu", "max_length": 32} | changes)


def cosines(folder: Path, query: str, passages: list[str], most: int) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = most
    asked, said = model.encode_query([query]), model.encode_document(passages)
    return (said @ asked[0]) / (np.linalg.norm(said, axis=1) * np.linalg.norm(asked))


@pytest.mark.parametrize("most", [8, 512])
def test_scores_equal_sentence_transformers_cosines(embedder: Path, most: int) -> None:
    for group, values in zip(GROUPS, teacher(embedder, max_length=most).score(GROUPS), strict=True):
        expected = cosines(embedder, group.query, [passage.text for passage in group.passages], most)
        np.testing.assert_allclose(values, expected, atol=1e-5)
        assert values.dtype == np.float32


def test_a_query_prompt_is_put_before_queries_only(embedder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(embedder, tmp_path / "prompted")
    file = folder / "config_sentence_transformers.json"
    prompts = {"prompts": {"query": "how why ", "document": ""}, "default_prompt_name": None}
    file.write_text(json.dumps(json.loads(file.read_text()) | prompts))
    prompted, plain = teacher(folder), teacher(embedder)
    by_hand = plain.score([tiny.group("how why open", "stone")])
    np.testing.assert_allclose(prompted.score([tiny.group("open", "stone")]), by_hand, atol=1e-6)
    assert prompted.identity.digest != plain.identity.digest


def test_bfloat16_products_tie_hardly_any_cosines(embedder: Path) -> None:
    scores = np.concatenate(teacher(embedder, dtype="bfloat16").score(tiny.groups(20, 10)))
    assert len(np.unique(scores)) > 0.9 * len(scores)


def test_a_cosine_is_bounded_by_nature(embedder: Path) -> None:
    identity = teacher(embedder).identity
    assert (identity.kind, identity.score, identity.bounded) == ("embedder", "cosine", True)


def test_a_query_is_refused_rather_than_cut(embedder: Path) -> None:
    with pytest.raises(UserError, match=r"the query 'open open.*more than max_length 8"):
        teacher(embedder, max_length=8).score([tiny.group("open " * 20, "stone")])


def test_no_groups_have_no_scores(embedder: Path) -> None:
    assert teacher(embedder).score([]) == []


def test_a_folder_without_an_embedder_is_the_users_to_mend(embedder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(embedder, tmp_path / "broken")
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="broken"):
        teacher(folder).score(GROUPS)


def test_what_is_prepared_is_scored_when_it_is_asked_for(embedder: Path) -> None:
    asked = teacher(embedder)
    told: list[int] = []
    answer = asked.prepare(GROUPS)
    for prepared, scored in zip(answer(told.append), asked.score(GROUPS), strict=True):
        np.testing.assert_array_equal(prepared, scored)
    assert sum(told) == 20


def test_released_weights_are_loaded_again_when_the_teacher_is_asked_again(embedder: Path) -> None:
    asked = teacher(embedder)
    before = asked.score(GROUPS[:1])[0]
    asked.release()
    assert "model" not in vars(asked)
    np.testing.assert_array_equal(asked.score(GROUPS[:1])[0], before)
