"""A recipe says what it means: unknown keys and wrong types are refused with file, line and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.errors import UserError
from distilrank.recipe import (
    CausalSpec,
    EnsembleSpec,
    Recipe,
    TeacherSpec,
    TrainSpec,
    load_recipe,
    packaged_recipes,
    parse_recipe,
    sampled,
    teacher_spec,
)
from distilrank.settings import from_options

LINES = """\
name: tiny
data:
  train: train.jsonl
teacher:
  kind: causal
  model: teacher
student:
  model: student
train:
  learning_rate: 1e-5
evaluate:
  metrics: [AP, RR@10]
""".splitlines()
ENSEMBLE = """\
name: tiny
data: {train: train.jsonl}
teacher:
  kind: ensemble
  members:
    - kind: likelihood
      model: a
    - kind: embedder
      model: b
student: {model: student}
""".splitlines()


def parsed(lines: list[str], changes: tuple[str, ...] = ()) -> Recipe:
    return parse_recipe("\n".join(lines), "r.yaml", changes)


def refusal(lines: list[str], changes: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as error:
        parsed(lines, changes)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_numbers_without_a_point_are_numbers() -> None:
    assert parsed(LINES).train.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("lines", "place", "added", "wanted"),
    [
        (LINES, 0, "nam: x", "r.yaml:1: no setting 'nam': did you mean 'name'?"),
        (LINES, 12, "sed: 1", "r.yaml:13: no setting 'sed': did you mean 'seed'?"),
        (LINES, 3, "  tran: x", "r.yaml:4: data: no setting 'tran': did you mean 'train'?"),
        (LINES, 6, "  templat: x", "r.yaml:7: teacher: no setting 'templat': did you mean 'template'?"),
        (LINES, 6, "  members: []", "r.yaml:7: teacher: no setting 'members': known: "),
        (LINES, 10, "  learning_rat: 1", "r.yaml:11: train: no setting 'learning_rat': did you mean 'learning_rate'?"),
        (LINES, 10, "  zzz: 1", "r.yaml:11: train: no setting 'zzz': known: accumulation, "),
        (ENSEMBLE, 4, "  normalise: query", "r.yaml:5: teacher: no setting 'normalise': did you mean 'normalize'?"),
        (ENSEMBLE, 9, "      wieght: 1", "r.yaml:10: teacher.members.1: no setting 'wieght': did you mean 'weight'?"),
        (LINES, 12, "1: x", "r.yaml:13: no setting 1"),
        (LINES, 12, "null: x", "r.yaml:13: no setting None"),
        (LINES, 12, "2020-01-01: x", "r.yaml:13: no setting "),
        (LINES, 12, "it's: x", "r.yaml:13: no setting "),
        (LINES, 3, "  1: x", "r.yaml:4: data: no setting 1"),
    ],
)
def test_an_unknown_key_is_refused_on_its_line(lines: list[str], place: int, added: str, wanted: str) -> None:
    assert refusal([*lines[:place], added, *lines[place:]]).startswith(wanted)


@pytest.mark.parametrize(
    ("line", "text", "wanted"),
    [
        (1, "name: [a]", "r.yaml:1: name: "),
        (1, "name: a b/c", "r.yaml:1: name: "),
        (3, "  train: 3", "r.yaml:3: data.train: "),
        (3, "  train: null", "r.yaml:2: data: give either train (groups) or corpus"),
        (5, "  kind: causl", "r.yaml:"),
        (5, '  kind: "two\\nlines"', "r.yaml:"),
        (5, "  dtype: float32", "r.yaml:4: teacher"),
        (6, "  max_length: 20", "r.yaml:4: teacher.model: must be given"),
        (6, "  model: {a: b}", "r.yaml:6: teacher.model: "),
        (6, "  model: m\n  engine: fast", "r.yaml:7: teacher.engine: "),
        (6, "  model: m\n  dtype: float16", "r.yaml:7: teacher.dtype"),
        (6, "  model: m\n  keep_layers: -1", "r.yaml:7: teacher.keep_layers: "),
        (5, "  kind: embedder\n  engine: plain", "r.yaml:6: teacher: no setting 'engine'"),
        (5, "  kind: cross-encoder\n  dtype: float8", "r.yaml:6: teacher.dtype: "),
        (5, "  kind: cross-encoder\n  keep_layers: 1", "r.yaml:6: teacher: no setting 'keep_layers'"),
        (5, "  kind: likelihood\n  engine: vllm", "r.yaml:6: teacher.engine: "),
        (12, "  metrics: [AP]\nscore: {part_pairs: 0}", "r.yaml:13: score.part_pairs: "),
        (10, "  learning_rate: fast", "r.yaml:10: train.learning_rate: "),
        (10, "  learning_rate: -1", "r.yaml:10: train.learning_rate: "),
        (10, "  warmup: 1", "r.yaml:10: train.warmup: "),
        (10, "  epochs: .nan", "r.yaml:10: train.epochs: "),
        (10, "  epochs: .inf", "r.yaml:10: train.epochs: "),
        (10, "  calibrate: sometimes", "r.yaml:10: train.calibrate: "),
        (10, "  calibrate: -1", "r.yaml:10: train.calibrate: "),
        (10, "  queries_per_step: 1.5", "r.yaml:10: train.queries_per_step: "),
        (12, "  metrics: []", "r.yaml:12: evaluate.metrics: "),
        (12, "  metrics: [AP, 3]", "r.yaml:12: evaluate.metrics.1: "),
        (12, "  metrics: [AP, nonsense]", "r.yaml:12: evaluate.metrics"),
        (12, "  metrics: [AP@0]", "r.yaml:12: evaluate.metrics"),
        (1, "seed: -1\nname: tiny", "r.yaml:1: seed"),
    ],
)
def test_a_wrong_value_is_refused_on_its_line(line: int, text: str, wanted: str) -> None:
    assert refusal([*LINES[: line - 1], text, *LINES[line:]]).startswith(wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "r.yaml:1: a recipe is a mapping"),
        ("- a", "r.yaml:1: a recipe is a mapping"),
        ("just text", "r.yaml:1: a recipe is a mapping"),
        ("name: a\ndata:\n\t- b", "r.yaml:3: not YAML"),
        ("name: [a", "r.yaml:1: not YAML"),
        ("name: *a", "r.yaml:1: not YAML: found undefined alias"),
        ("a: 1\n---\nb: 2", "r.yaml:2: not YAML"),
        ("seed: 2024-13-45", "r.yaml:1: not YAML"),
        ("a\0b", "r.yaml:1: not YAML"),
        ("[" * 3000, "r.yaml:1: not YAML"),
        ("seed: !!int ''", "r.yaml:1: not YAML"),
        ("seed: !!float ''", "r.yaml:1: not YAML"),
        ("seed: !!bool maybe", "r.yaml:1: not YAML"),
        ("seed: !!timestamp never", "r.yaml:1: not YAML"),
        ("seed: !!python/object:os.system x", "r.yaml:1: not YAML"),
    ],
)
def test_what_is_not_a_recipe_is_refused(text: str, wanted: str) -> None:
    assert refusal([text]).startswith(wanted)


def test_a_language_model_may_be_float8_and_its_engine_is_packed_unless_said() -> None:
    teacher = parsed(LINES, ("teacher.dtype=float8", "teacher.keep_layers=0")).teacher
    assert isinstance(teacher, CausalSpec)
    assert (teacher.dtype, teacher.keep_layers, teacher.engine) == ("float8", 0, "packed")
    assert parsed(LINES, ("teacher.engine=plain",)).teacher.engine == "plain"  # type: ignore[union-attr]
    assert parsed(ENSEMBLE).teacher.members[0].engine == "packed"  # type: ignore[union-attr]


def test_a_killed_run_loses_so_many_pairs_at_most() -> None:
    assert parsed(LINES).score.part_pairs == 16_384


def test_a_section_that_is_left_out_is_named() -> None:
    assert refusal(LINES[:6] + LINES[8:]) == "r.yaml:1: student: must be given"


def test_rows_and_training_must_be_of_one_form() -> None:
    assert "mine.format is triplets but train.mode is groups" in refusal([*LINES, "mine: {format: triplets}"])


# ---- changes from the command line


def test_set_changes_what_the_file_says_and_what_it_does_not() -> None:
    changed = parsed(
        LINES, ("train.learning_rate=3e-5", "data.test=t.jsonl", "mine.top_k=3", "seed=7", "evaluate.metrics=[AP]")
    )
    assert (changed.train.learning_rate, changed.data.test, changed.mine.top_k, changed.seed) == (3e-5, "t.jsonl", 3, 7)
    assert changed.evaluate.metrics == ("AP",)


def test_set_reaches_the_members_of_an_ensemble() -> None:
    changed = parsed(ENSEMBLE, ("teacher.members.1.weight=0.25",))
    assert isinstance(changed.teacher, EnsembleSpec)
    assert [member.weight for member in changed.teacher.members] == [1.0, 0.25]


def test_a_later_change_wins_and_none_is_a_value() -> None:
    assert parsed(LINES, ("data.test=a", "data.test=b")).data.test == "b"
    assert parsed(LINES, ("data.test=a", "data.test=null")).data.test is None


@pytest.mark.parametrize(
    "change",
    [
        "train.epochs", "=3", "train.epochs=[", "train.epochs=2024-13-45", "train.epochs=!!int ''", "data.train.deeper=1",
        "evaluate.metrics.9=AP", "evaluate.metrics.x=AP", "evaluate.metrics.x.y=1", "evaluate.metrics.-7=AP",
        "train.epohcs=2", "train.epochs=much", "teacher.members.0.weight=1", "train..x=1",
    ],
)  # fmt: skip
def test_a_change_that_cannot_be_made_is_refused(change: str) -> None:
    refusal(LINES, (change,))


# ---- files, packaged recipes, and what is made of them


@pytest.mark.parametrize("name", ["demo", "stackoverflow", "my-domain"])
def test_packaged_recipes_are_valid_and_named_after_their_file(name: str) -> None:
    assert name in packaged_recipes()
    assert load_recipe(name).name == name


@pytest.mark.parametrize("kind", ["likelihood", "cross-encoder", "embedder", "http", "ensemble"])
def test_the_recipe_for_ones_own_text_says_what_goes_away_with_the_kind(kind: str) -> None:
    text = packaged_recipes()["my-domain"]
    (line,) = [line for line in text.splitlines() if line.startswith("  #   ") and kind in line.split("    ")[0]]
    data = yaml.safe_load(text)
    teacher = data["teacher"] | {"kind": kind}
    fields = {spec.model_fields["kind"].default: set(spec.model_fields) for spec in TeacherSpec.__args__[0].__args__}[kind]
    gone = set(teacher) - fields
    assert all(name in line for name in gone) or "all of them" in line
    own = {"http": {"url": "http://h"}, "ensemble": {"members": [{"kind": "embedder", "model": "m"}]}}.get(kind, {})
    left = {name: value for name, value in teacher.items() if name in fields}
    assert set(own) <= {name for name in ("url", "members") if f"{name}:" in line}
    Recipe.model_validate(data | {"teacher": left | own})


def test_the_reference_recipe_has_the_references_numbers() -> None:
    recipe = load_recipe("stackoverflow")
    assert isinstance(recipe.teacher, CausalSpec)
    assert recipe.teacher.model.endswith("Qwen/Qwen3-Reranker-8B")
    assert recipe.student.model.endswith("BAAI/bge-reranker-v2-m3")
    mine, train = recipe.mine, recipe.train
    assert (mine.strategy, mine.top_k, mine.num_negatives, mine.format) == ("adjacent", 8, 4, "triplets")
    assert (train.mode, train.batch_size, train.accumulation, train.epochs) == ("triplets", 16, 32, 1)
    assert (train.learning_rate, train.warmup, train.calibrate) == (2e-5, 0.05, "none")


def test_a_file_goes_before_a_packaged_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("\n".join(LINES))
    assert load_recipe("demo").name == "tiny"


@pytest.mark.parametrize(
    ("name", "what"), [("stackoverfow", "did you mean 'stackoverflow'"), ("x" * 300, "x"), (".", "no such file")]
)
def test_a_recipe_that_is_not_there_is_refused(name: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        load_recipe(name)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    (path := tmp_path / "r.yaml").write_text("\n".join(["# é", *LINES]), encoding=encoding)
    with pytest.raises(UserError, match=f"{path}: not UTF-8 text"):
        load_recipe(path)


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    (path := tmp_path / "r.yaml").write_text("\n".join(LINES), encoding="utf-8-sig")
    assert load_recipe(path) == parsed(LINES)


@settings(max_examples=40)
@given(
    name=st.sampled_from(["demo", "stackoverflow", "my-domain"]),
    epochs=st.floats(0.1, 9),
    calibrate=st.sampled_from(["auto", "none"]) | st.floats(0.1, 9),
    instruction=st.text(st.characters(codec="utf-8"), max_size=20),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_written_recipe_is_the_recipe(
    name: str, epochs: float, calibrate: str | float, instruction: str, seed: int
) -> None:
    data = yaml.safe_load(packaged_recipes()[name])
    data["train"] |= {"epochs": epochs, "calibrate": calibrate}
    data["seed"], data["data"]["train"] = seed, f"x{instruction}"
    recipe = Recipe.model_validate(data)
    assert parse_recipe(recipe.to_yaml(), "r.yaml") == recipe


def test_a_sample_is_small_and_apart_but_shares_the_scores() -> None:
    recipe = parsed(LINES, ("output=out/run", "data.train_queries=50"))
    trial = sampled(recipe, 20)
    assert (trial.data.train_queries, trial.data.test_queries) == (20, 20)
    assert sampled(recipe, 80).data.train_queries == 50
    assert trial.folder != recipe.folder
    assert trial.store == recipe.store == Path("out/scores")
    assert trial.train == recipe.train
    with pytest.raises(UserError, match="at least 2"):
        sampled(recipe, 1)


def test_folders_follow_from_the_name_unless_they_are_given() -> None:
    assert (parsed(LINES).folder, parsed(LINES).store) == (Path("runs/tiny"), Path("runs/scores"))
    assert parsed(LINES, ("score.store=kept",)).store == Path("kept")


def test_options_are_checked_like_a_recipe() -> None:
    assert teacher_spec("causal", "m", instruction="i").instruction == "i"
    assert from_options(TrainSpec, epochs=2, calibrate="3.5").calibrate == 3.5
    for broken, what in (
        (lambda: teacher_spec("causl", "m"), "--kind causl: did you mean 'causal'"),
        (lambda: teacher_spec("embedder", "m", instruction="i"), "instruction"),
        (lambda: teacher_spec("causal", "m", max_length=3), "--max-length"),
        (lambda: from_options(TrainSpec, learning_rate=-1), "--learning-rate"),
        (lambda: from_options(TrainSpec, mode="rows"), "--mode"),
    ):
        with pytest.raises(UserError, match=what):
            broken()


@pytest.mark.parametrize(("preset", "epochs"), [("fast", 0.5), ("balanced", 1.0), ("best", 4.0)])
def test_a_preset_says_how_long_where_epochs_do_not(preset: str, epochs: float) -> None:
    assert from_options(TrainSpec, preset=preset).epochs == epochs
    assert from_options(TrainSpec, preset=preset, epochs=3).epochs == 3
    assert TrainSpec().epochs == TrainSpec(preset="balanced").epochs


def test_triplets_have_the_published_settings_by_themselves() -> None:
    published = from_options(TrainSpec, mode="triplets", calibrate="none")
    assert (published.loss, published.epochs, published.learning_rate, published.warmup) == ("margin_mse", 1, 2e-5, 0.05)
    with pytest.raises(UserError, match="preset is for mode groups"):
        from_options(TrainSpec, mode="triplets", preset="best")
