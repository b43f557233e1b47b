"""A prompt is what its template says, character by character and joint by joint; an unsound template is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from distilrank.errors import UserError
from distilrank.records import Group
from distilrank.teachers.causal import CausalTeacher
from distilrank.teachers.likelihood import LikelihoodTeacher
from distilrank.teachers.prompts import (
    Prompts,
    Template,
    instruction_text,
    instructions,
    load_template,
    packaged_templates,
    prompts,
)

QUERY, PASSAGE, INSTRUCTION = "how to open a window", "turn the handle {slowly}", "Find the answer"
NOTHING = np.empty(0, np.int32)
ANY = st.text(st.characters(codec="utf-8"), max_size=30)


def characters(texts: list[str]) -> list[np.ndarray]:
    """A tokenizer whose tokens are characters, so that a prompt can be read off its ids."""
    return [np.array([ord(letter) for letter in text], np.int32) for text in texts]


def read(sequence: np.ndarray) -> str:
    return "".join(map(chr, sequence.tolist()))


def asked(template: Template, groups: list[Group], most: int = 10_000, instruction: str = INSTRUCTION) -> Prompts:
    return prompts(template, groups, characters, NOTHING, most, instruction)


def rendered(template: Template) -> str:
    (sequence,) = asked(template, [tiny.group(QUERY, PASSAGE)]).sequences
    return read(sequence)


# ---- the packaged templates


QWEN3 = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
    "<Instruct>: Find the answer\n"
    "<Query>: how to open a window\n"
    "<Document>: turn the handle {slowly}<|im_end|>\n"
)
QWEN3_END = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
RENDERED = {
    "qwen3-reranker": QWEN3 + QWEN3_END,
    "qwen3-reranker-seed": QWEN3 + "<|im_end|>\n" + QWEN3_END,
    "mxbai-rerank-v2": (
        "<|im_start|>system\n"
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
        "query: how to open a window\n"
        "document: turn the handle {slowly}\n"
        "You are a search relevance expert who evaluates how well documents match search queries. "
        "For each query-document pair, carefully analyze the semantic relationship between them, then provide your "
        "binary relevance judgment (0 for not relevant, 1 for relevant).\n"
        "Relevance:<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "bge-reranker-v2-gemma": (
        "A: how to open a window\n"
        "B: turn the handle {slowly}\n"
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing "
        "a prediction of either 'Yes' or 'No'."
    ),
    "yes-no": (
        "Find the answer. Answer with yes when the passage does this for the query, and with no when it does not.\n\n"
        "Query: how to open a window\n"
        "Passage: turn the handle {slowly}\n"
        "Answer:"
    ),
    "chatml-question": (
        "<|im_start|>user\nWrite a question that this passage answers.\n\n"
        "turn the handle {slowly}<|im_end|>\n"
        "<|im_start|>assistant\nhow to open a window"
    ),
    "chatml-docstring": (
        "<|im_start|>user\nWrite the docstring of this Python function in one sentence.\n\n"
        "turn the handle {slowly}<|im_end|>\n"
        '<|im_start|>assistant\n"""how to open a window'
    ),
    "plain-question": "Passage: turn the handle {slowly}\nA question that this passage answers: how to open a window",
}
ANSWERS = {
    "qwen3-reranker": ("yes", "no"),
    "qwen3-reranker-seed": ("yes", "no"),
    "mxbai-rerank-v2": ("1", "0"),
    "bge-reranker-v2-gemma": ("Yes", None),
    "yes-no": (" yes", " no"),
}


def test_every_packaged_template_is_known_here() -> None:
    assert set(packaged_templates()) == set(RENDERED)


@pytest.mark.parametrize("name", RENDERED)
def test_a_packaged_template_is_rendered_to_the_letter(name: str) -> None:
    assert rendered(packaged_templates()[name]) == RENDERED[name]


@pytest.mark.parametrize("name", RENDERED)
def test_a_packaged_template_has_its_files_name_its_answers_and_a_source(name: str) -> None:
    template = packaged_templates()[name]
    assert files("distilrank.teachers").joinpath(f"templates/{name}.yaml").is_file()
    assert (template.positive, template.negative) == ANSWERS.get(name, (None, None))
    assert template.source
    assert load_template(name, answers=name in ANSWERS) == template


@pytest.mark.parametrize("name", RENDERED)
def test_only_templates_for_any_model_and_gemmas_begin_as_the_tokenizer_does(name: str) -> None:
    assert packaged_templates()[name].start == (name in ("bge-reranker-v2-gemma", "yes-no", "plain-question"))


# ---- the published ways of mxbai-rerank and FlagEmbedding, by token ids


def mxbai_rerank(tokens: Callable[[str], list[int]], query: str, document: str) -> list[int]:
    """`MxbaiRerankV2.prepare_inputs` for one short pair: parts tokenised apart, the pair between the chat's two ends."""
    pair = tokens(f"query: {query}") + tokens("\n") + tokens(f"document: {document}")
    task = RENDERED["mxbai-rerank-v2"].partition("{slowly}\n")[2].partition("<|im_end|>")[0]
    before = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    return (
        tokens(f"{before}<|im_start|>user\n")
        + pair
        + tokens("\n")
        + tokens(task)
        + tokens("<|im_end|>\n<|im_start|>assistant\n")
    )


def flag_llm_reranker(tokens: Callable[[str], list[int]], query: str, passage: str) -> list[int]:
    """`BaseLLMReranker.compute_score_single_gpu` for one short pair: <bos>, query, passage, prompt, line feeds between."""
    prompt = RENDERED["bge-reranker-v2-gemma"].rpartition("\n")[2]
    query_and_passage = [*tokens(f"A: {query}"), *tokens("\n"), *tokens(f"B: {passage}")]
    return [0, *query_and_passage, *tokens("\n"), *tokens(prompt)]  # 0 is <|endoftext|>, our <bos>


@pytest.fixture(scope="module")
def begins(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose tokenizer puts a token of its own before a text and one after it."""
    folder = shutil.copytree(qwen, tmp_path_factory.mktemp("begins") / "model")
    core = Tokenizer.from_file(str(folder / "tokenizer.json"))
    core.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|im_end|>", special_tokens=[("<|endoftext|>", 0), ("<|im_end|>", 2)]
    )
    core.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    ("name", "published"), [("mxbai-rerank-v2", mxbai_rerank), ("bge-reranker-v2-gemma", flag_llm_reranker)]
)
@pytest.mark.parametrize("query", [QUERY, "为什么", "a\n", "\n b"])
def test_the_ids_are_those_of_the_published_code(begins: Path, name: str, published: Any, query: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(begins)

    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    teacher = CausalTeacher(begins, template=name, device="cpu")
    passages = [PASSAGE, "\n\n lines\n", "🙂", "x"]
    found = teacher.prompts([tiny.group(query, *passages)])
    assert [ids.tolist() for ids in found.sequences] == [published(tokens, query, passage) for passage in passages]


# ---- how a prompt is put together


@pytest.mark.parametrize("name", RENDERED)
def test_pieces_are_tokenised_apart_and_joined_as_ids(name: str) -> None:
    known: list[str] = []

    def whole(texts: list[str]) -> list[np.ndarray]:
        """A tokenizer that makes one token of any text."""
        known.extend(text for text in texts if text not in known)
        return [np.array([known.index(text)] * bool(text), np.int32) for text in texts]

    template = packaged_templates()[name]
    (sequence,) = prompts(template, [tiny.group(QUERY, PASSAGE)], whole, NOTHING, 100, INSTRUCTION).sequences
    filled = [
        piece.replace("{instruction}", INSTRUCTION).replace("{query}", QUERY).replace("{passage}", PASSAGE)
        for piece in template.pieces
    ]
    assert [known[token] for token in sequence] == filled


def test_a_tokenizer_that_would_merge_across_a_joint_does_not(tmp_path: Path) -> None:
    folder = tiny.causal_folder(tmp_path, answers="yes\nno\nriverstone\n")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (merged,) = tokenizer("riverstone")["input_ids"]
    template = made(pieces=["{query}river", "stone{passage}", "\n"])

    def tokenise(texts: list[str]) -> list[np.ndarray]:
        return [np.array(ids, np.int32) for ids in tokenizer(texts)["input_ids"]]

    found = prompts(template, [tiny.group("how", "x")], tokenise, NOTHING, 100, "").sequences[0].tolist()
    apart = [token for text in ("howriver", "stonex", "\n") for token in tokenizer(text)["input_ids"]]
    assert found == apart
    assert merged not in found


@pytest.mark.parametrize("name", ["yes-no", "bge-reranker-v2-gemma"])
def test_the_tokenizers_own_beginning_stands_first_and_once(begins: Path, name: str) -> None:
    teacher = CausalTeacher(begins, template=name, device="cpu")
    for sequence in teacher.prompts([tiny.group("how", "stone", "river " * 9)]).sequences:
        assert sequence[0] == 0
        assert 0 not in sequence[1:]
        assert 2 not in sequence  # what it puts after a text is no part of a prompt


def test_a_likelihood_template_begins_as_the_tokenizer_does_too(begins: Path, qwen: Path) -> None:
    with_start, without = (
        LikelihoodTeacher(folder, template="plain-question", device="cpu").prompts([tiny.group("how", "stone")])
        for folder in (begins, qwen)
    )
    assert with_start.sequences[0].tolist() == [0, *without.sequences[0].tolist()]
    assert with_start.tails == without.tails


@pytest.mark.parametrize("name", ["qwen3-reranker", "mxbai-rerank-v2"])
def test_a_template_without_a_start_has_no_beginning_of_the_tokenizers(begins: Path, qwen: Path, name: str) -> None:
    one, other = (CausalTeacher(folder, template=name, device="cpu") for folder in (begins, qwen))
    group = tiny.group("how", "stone")
    assert one.prompts([group]).sequences[0].tolist() == other.prompts([group]).sequences[0].tolist()


def test_where_the_tokenizer_begins_with_nothing_a_start_adds_nothing(qwen: Path) -> None:
    teacher = CausalTeacher(qwen, template="bge-reranker-v2-gemma", device="cpu")
    (sequence,) = teacher.prompts([tiny.group("how", "stone")]).sequences
    assert teacher.decoder.tokenizer.decode(sequence).startswith("A: how\nB: stone\nGiven")


def test_the_start_takes_room_from_the_passage() -> None:
    template = made(pieces=["{query}", "{passage}", "."])
    start = np.array([ord("^")], np.int32)
    found = prompts(template, [tiny.group("q", "abc", "abcd")], characters, start, 6, "")
    assert [read(sequence) for sequence in found.sequences] == ["^qabc.", "^qabc."]
    assert found.cut.tolist() == [False, True]


@given(
    st.sampled_from(sorted(RENDERED)),
    st.lists(st.tuples(ANY.filter(bool), st.lists(ANY, min_size=1, max_size=4)), max_size=3),
    st.integers(0, 60),
    ANY,
)
def test_only_passages_are_cut_and_the_cut_ones_are_told(
    name: str, texts: list[tuple[str, list[str]]], more: int, instruction: str
) -> None:
    template = packaged_templates()[name]
    groups = [tiny.group(query, *passages) for query, passages in texts]
    # Lengths are counted in characters here, so that what has to be left of a passage is plain.
    around = [len("".join(template.pieces).format(query=q, passage="", instruction=instruction)) for q, _ in texts]
    most = min(around, default=0) + more
    if any(length >= most for length in around):
        with pytest.raises(UserError, match=f"max_length {most}"):
            asked(template, groups, most, instruction)
        return
    found = asked(template, groups, most, instruction)
    expected = [
        "".join(template.pieces).format(query=query, passage=passage[: most - length], instruction=instruction)
        for (query, passages), length in zip(texts, around, strict=True)
        for passage in passages
    ]
    assert [read(sequence) for sequence in found.sequences] == expected
    cut = [len(p) > most - length for (_, ps), length in zip(texts, around, strict=True) for p in ps]
    assert found.cut.tolist() == cut
    tails = [1 if template.positive else len(query) + 1 for query, passages in texts for _ in passages]
    assert found.tails == tails


def test_each_distinct_text_is_tokenised_once() -> None:
    seen: list[str] = []

    def counting(texts: list[str]) -> list[np.ndarray]:
        seen.extend(texts)
        return characters(texts)

    groups = [tiny.group(f"query {n}", "river", "stone", "river") for n in range(5)]
    prompts(packaged_templates()["chatml-question"], groups, counting, NOTHING, 1_000, "")
    assert len(seen) == len(set(seen))
    assert seen.count("river") == 1


def test_no_groups_make_no_prompts() -> None:
    found = asked(packaged_templates()["qwen3-reranker"], [])
    assert (found.sequences, found.tails, found.cut.tolist()) == ([], [], [])


# ---- a template of one's own


GOOD: dict[str, Any] = {
    "name": "mine",
    "source": "me",
    "positive": "yes",
    "negative": "no",
    "pieces": ["Task: {instruction}\nQuestion: {query}\n", "Text: {passage}", "\nRelevant: "],
}
LIKELY: dict[str, Any] = {"name": "mine", "source": "me", "pieces": ["Text: ", "{passage}", "\nQuestion: ", "{query}"]}


def made(**changes: Any) -> Template:
    return Template.model_validate(GOOD | changes)


def written(folder: Path, content: dict[str, Any]) -> str:
    (path := folder / "mine.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return str(path)


def full_logits(folder: Path, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(folder).eval()(torch.tensor([ids])).logits[0]


def test_a_template_file_scores_as_the_full_model_does_on_its_words(qwen: Path, tmp_path: Path) -> None:
    teacher = CausalTeacher(qwen, template=written(tmp_path, GOOD), instruction="Find it", dtype="float32", device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(qwen)
    texts = ("Task: Find it\nQuestion: how\n", "Text: a stone", "\nRelevant: ")
    logits = full_logits(qwen, [token for text in texts for token in tokenizer(text)["input_ids"]])[-1]
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    assert teacher.score([tiny.group("how", "a stone")])[0][0] == pytest.approx(float(logits[yes] - logits[no]), abs=1e-4)


def test_a_likelihood_template_file_scores_as_the_full_model_does_on_its_words(qwen: Path, tmp_path: Path) -> None:
    teacher = LikelihoodTeacher(qwen, template=written(tmp_path, LIKELY), dtype="float32", device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(qwen)
    before = [token for text in ("Text: ", "a stone", "\nQuestion: ") for token in tokenizer(text)["input_ids"]]
    query = tokenizer("how to open")["input_ids"]
    log_p = full_logits(qwen, before + query).log_softmax(-1)
    expected = np.mean([float(log_p[len(before) - 1 + i, token]) for i, token in enumerate(query)])
    assert teacher.score([tiny.group("how to open", "a stone")])[0][0] == pytest.approx(expected, abs=1e-4)


def test_doubled_braces_are_braces() -> None:
    assert rendered(made(pieces=['{{"query": "{query}"}}\n', "{passage}", "{{}}"])).endswith("{slowly}{}")


def test_the_instruction_may_stand_more_than_once_and_the_query_after_the_passage() -> None:
    template = made(pieces=["{instruction}: ", "{passage}", "\n{query}\n{instruction}?"])
    assert rendered(template) == f"{INSTRUCTION}: {PASSAGE}\n{QUERY}\n{INSTRUCTION}?"


Q, P = "{query}\n", "{passage}"
UNSOUND: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": (GOOD | {"peices": []}, "no setting 'peices': did you mean 'pieces'?"),
    "an unknown field": (GOOD | {"pieces": [Q, "{document}", "?"]}, "unknown field 'document' in a piece"),
    "a field without a name": (GOOD | {"pieces": [Q, "{} {passage}", "?"]}, "unknown field '' in a piece"),
    "a field's attribute": (GOOD | {"pieces": ["{query.__class__}", P, "?"]}, "unknown field 'query.__class__'"),
    "a conversion": (GOOD | {"pieces": ["{query!r}", P, "?"]}, "{query} must stand plain"),
    "a format": (GOOD | {"pieces": ["{query:>9}", P, "?"]}, "{query} must stand plain"),
    "a field in a format": (GOOD | {"pieces": ["{query:{x}}", P, "?"]}, "{query} must stand plain"),
    "an instruction in a likelihood": (LIKELY | {"pieces": ["{instruction}", P, "{query}"]}, "takes no {instruction}"),
    "no passage": (GOOD | {"pieces": [Q, "?"]}, "{passage} must stand in the pieces once"),
    "two passages": (GOOD | {"pieces": [Q, P, P, "?"]}, "{passage} must stand in the pieces once"),
    "no query": (GOOD | {"pieces": [P, "?"]}, "{query} must stand in the pieces once"),
    "a passage in the middle of its piece": (GOOD | {"pieces": [Q, "{passage}?", "\n"]}, "must end with it"),
    "nothing before the answer": (GOOD | {"pieces": [Q, P]}, "something must stand between {passage} and the answer"),
    "one piece": (GOOD | {"pieces": ["{query} {passage}"]}, "pieces: "),
    "no pieces": ({key: value for key, value in GOOD.items() if key != "pieces"}, "pieces: must be given"),
    "a piece that is no text": (GOOD | {"pieces": [Q, P, 3]}, "pieces.2: "),
    "an answer that YAML reads as true": (GOOD | {"positive": True}, "positive: "),
    "an empty answer": (GOOD | {"positive": ""}, "positive: "),
    "a negative answer alone": (GOOD | {"positive": None}, "a negative answer needs a positive one"),
    "an open brace": (GOOD | {"pieces": ["{", Q, P, "?"]}, "double a brace that is meant as itself"),
    "a closing brace": (GOOD | {"pieces": [Q, P, "}"]}, "double a brace that is meant as itself"),
    "a likelihood that does not end in the query": (LIKELY | {"pieces": [Q, P, "?"]}, "the last piece must be {query}"),
    "a likelihood with words around the query": (LIKELY | {"pieces": [P, "Q: {query}"]}, "the last piece must be {query}"),
}


@pytest.mark.parametrize("what", UNSOUND)
def test_an_unsound_template_is_refused_by_its_file(what: str, tmp_path: Path) -> None:
    content, wanted = UNSOUND[what]
    path = written(tmp_path, content)
    with pytest.raises(UserError) as error:
        load_template(path, answers=bool(content.get("positive")))
    assert str(error.value).startswith(f"{path}: ")
    assert wanted in str(error.value)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"name: [a", "not YAML"),
        (b"name: a\n\tb", "not YAML"),
        (b"name: !!int ''", "not YAML"),
        (b"name: 2024-13-45", "not YAML"),
        (b"[" * 3000, "not YAML"),
        (b"name: \xff", "not a template that can be read"),
        (b"", "mapping"),
        (b"- a\n- b", "mapping"),
        (b"just words", "mapping"),
    ],
)
def test_what_is_no_template_at_all_is_refused_by_its_file(tmp_path: Path, content: bytes, wanted: str) -> None:
    (path := tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(UserError, match=wanted) as error:
        load_template(str(path), answers=True)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["none.yaml", "none.yml", "folder.yaml"])
def test_a_template_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UserError, match="not a template that can be read") as error:
        load_template(str(tmp_path / name), answers=True)
    assert str(tmp_path / name) in str(error.value)


def test_a_packaged_template_of_the_other_kind_is_refused(qwen: Path) -> None:
    with pytest.raises(UserError, match="no causal template 'chatml-question': known: bge-reranker-v2-gemma, "):
        CausalTeacher(qwen, template="chatml-question")
    with pytest.raises(UserError, match="no likelihood template 'qwen3-reranker': known: chatml-docstring, "):
        LikelihoodTeacher(qwen, template="qwen3-reranker")


def test_a_template_file_of_the_other_kind_is_refused_by_its_file(qwen: Path, tmp_path: Path) -> None:
    path = written(tmp_path, LIKELY)
    with pytest.raises(UserError, match=f"{path}: a teacher of this kind needs a positive answer"):
        CausalTeacher(qwen, template=path)
    path = written(tmp_path, GOOD)
    with pytest.raises(UserError, match=f"{path}: a teacher of this kind needs no answers"):
        LikelihoodTeacher(qwen, template=path)


# ---- instructions


def test_a_name_stands_for_its_instruction_and_any_other_text_for_itself() -> None:
    assert instruction_text("code-search") == "Given a description of what code does, retrieve code that does it"
    assert instruction_text("Given what I say, find it") == "Given what I say, find it"


def test_instructions_are_single_lines_with_short_names() -> None:
    assert "web-search" in instructions()
    for name, text in instructions().items():
        assert name == "".join(name.lower().split())
        assert text.startswith("Given ")
        assert text == text.strip()
        assert "\n" not in text
        assert not text.endswith(".")  # templates go on after it


def test_a_named_instruction_reaches_the_prompt(qwen: Path) -> None:
    teacher = CausalTeacher(qwen, instruction="code-search", device="cpu")
    (sequence,) = teacher.prompts([tiny.group("how", "stone")]).sequences
    assert f"<Instruct>: {instructions()['code-search']}\n<Query>: how" in teacher.decoder.tokenizer.decode(sequence)


# ---- identity


@pytest.mark.parametrize("name", RENDERED)
def test_a_template_knows_whether_it_takes_an_instruction(name: str) -> None:
    assert packaged_templates()[name].takes_instruction == (INSTRUCTION in RENDERED[name])


def test_an_edited_word_is_another_template_of_the_same_name() -> None:
    edited = made(pieces=[GOOD["pieces"][0], GOOD["pieces"][1], "\nrelevant: "])
    assert edited.digest != made().digest
    assert edited.digest.startswith("mine-")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"positive": "no", "negative": "yes"},
        {"negative": None},
        {"start": True},
        {"pieces": ["Task: {instruction}\n", "Question: {query}\n", "Text: {passage}", "\nRelevant: "]},
    ],
)
def test_what_changes_a_prompt_or_how_it_is_joined_changes_the_digest(change: dict[str, Any]) -> None:
    assert made(**change).digest != made().digest


def test_where_the_words_come_from_is_no_part_of_what_they_mean(qwen: Path, tmp_path: Path) -> None:
    assert made(source="someone else").digest == made().digest
    digests = set()
    for source in ("me", "you"):
        path = written(tmp_path, GOOD | {"source": source})
        digests.add(CausalTeacher(qwen, template=path, device="cpu").identity.digest)
    assert len(digests) == 1


def test_an_edited_file_is_another_identity(qwen: Path, tmp_path: Path) -> None:
    before = CausalTeacher(qwen, template=written(tmp_path, GOOD), device="cpu").identity
    edited = GOOD | {"pieces": [piece.replace("Relevant", "Right") for piece in GOOD["pieces"]]}
    after = CausalTeacher(qwen, template=written(tmp_path, edited), device="cpu").identity
    assert before.template.startswith("mine-")
    assert before.digest != after.digest


def test_the_place_of_a_template_file_is_no_part_of_the_identity(qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    one, other = (
        CausalTeacher(qwen, template=written(folder, GOOD), device="cpu").identity
        for folder in (tmp_path, tmp_path / "there")
    )
    assert one == other
