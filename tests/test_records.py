"""Files of ours are read and written whole, a row at a time, and whatever is wrong in them is said with file and line."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.errors import UserError
from distilrank.records import (
    Group,
    GroupFile,
    Passage,
    ScoredPair,
    TrainingGroup,
    Triplet,
    holds_triplets,
    read_groups,
    read_scored,
    read_training_groups,
    read_triplets,
    write_groups,
    write_scored,
    write_training_groups,
    write_triplets,
)
from distilrank.rows import BadLines

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
ODD = ["🙂👩‍👩‍👧", "two\nlines\r\n", "如何安装\u3000软件", "\u2028\x85\x00", "\ufeffmark", ' "quoted\\" ', "e\u0301"]

texts = st.sampled_from(ODD) | st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
numbers = st.floats(allow_nan=False, allow_infinity=False)
grades = st.none() | st.integers(0, 2**63 - 1)
passages = st.builds(Passage, texts, id=st.none() | texts, label=grades, source=st.none() | texts, rank=grades)
groups = st.builds(Group, texts, texts, st.lists(passages, min_size=1, max_size=4).map(tuple))
scored = st.builds(ScoredPair, texts, texts, numbers)
triplets = st.builds(Triplet, texts, texts, texts, numbers)


@st.composite
def training_groups(draw: st.DrawFn) -> TrainingGroup:
    of_query = draw(st.lists(st.tuples(texts, numbers), min_size=2, max_size=4))
    place = st.integers(0, len(of_query) - 1)
    pairs = draw(st.none() | st.lists(st.tuples(place, place), min_size=1, max_size=3).map(tuple))
    return TrainingGroup(draw(texts), *zip(*of_query, strict=True), pairs)


FORMS: dict[str, tuple[Callable[..., int], Callable[..., Iterator[Any]], st.SearchStrategy[Any]]] = {
    "groups": (write_groups, read_groups, groups),
    "scored": (write_scored, read_scored, scored),
    "triplets": (write_triplets, read_triplets, triplets),
    "training": (write_training_groups, read_training_groups, training_groups()),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


def written(path: Path, content: str | bytes) -> Path:
    content = content.encode() if isinstance(content, str) else content
    if path.suffix == ".gz":
        content = gzip.compress(content)
    if path.suffix == ".zst":
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


def pair_line(number: int) -> str:
    return json.dumps({"query": f"q{number}", "passage": "p", "score": number}) + "\n"


# ---- what is written is read again


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20)
@given(data=st.data())
def test_every_form_survives_a_round_trip(folder: Path, form: str, suffix: str, data: st.DataObject) -> None:
    write, read, rows = FORMS[form]
    content = data.draw(st.lists(rows, min_size=1, max_size=4))
    path = folder / f"{form}{suffix}"
    assert write(path, content) == len(content)
    assert list(read(path)) == content


@given(content=st.lists(scored, min_size=1, max_size=4))
def test_written_pairs_are_plain_json_lines_to_anyone_else(folder: Path, content: list[ScoredPair]) -> None:
    write_scored(folder / "pairs.jsonl.gz", content)
    with gzip.open(folder / "pairs.jsonl.gz", "rb") as stream:
        rows = [json.loads(line) for line in stream]
    assert rows == [{"query": pair.query, "passage": pair.passage, "score": pair.score} for pair in content]


def test_none_is_left_out_of_json_and_present_in_parquet(tmp_path: Path) -> None:
    group = Group("1", "q", (Passage("a"), Passage("b", label=0)))
    write_groups(tmp_path / "g.jsonl", [group])
    write_groups(tmp_path / "g.parquet", [group])
    line = json.loads((tmp_path / "g.jsonl").read_text())
    assert line == {"query_id": "1", "query": "q", "passages": [{"text": "a"}, {"text": "b", "label": 0}]}
    assert pq.read_table(tmp_path / "g.parquet").column_names == ["query_id", "query", "passages"]


def test_positives_come_first_and_carry_the_labels(tmp_path: Path) -> None:
    path = written(tmp_path / "set.jsonl", '{"query": "q", "negative": ["n"], "positive": ["a", "b"]}\n')
    assert list(read_groups(path)) == [
        Group("0", "q", (Passage("a", label=1), Passage("b", label=1), Passage("n", label=0)))
    ]


def test_query_ids_are_texts_and_default_to_the_row_number(tmp_path: Path) -> None:
    rows = ['{"query": "q", "passages": ["a"]}', '{"query_id": 7, "query": "q", "passages": [{"text": "a", "id": 3}]}']
    first, second = read_groups(written(tmp_path / "set.jsonl", "\n".join([*rows])))
    assert (first.query_id, second.query_id, second.passages[0].id) == ("0", "7", "3")


def test_a_group_file_is_iterable_again(tmp_path: Path) -> None:
    file = GroupFile(written(tmp_path / "set.jsonl", '{"query": "q", "passages": ["a"]}\nbroken\n'), BadLines())
    assert list(file) == list(file)
    assert len(file.skip.reasons) == 1  # type: ignore[union-attr]


def test_an_unfinished_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = written(tmp_path / "pairs.jsonl", pair_line(1))

    def breaks() -> Iterator[ScoredPair]:
        yield ScoredPair("new", "p", 1.0)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_scored(path, breaks())
    assert path.read_text() == pair_line(1)
    assert list(tmp_path.iterdir()) == [path]


# ---- a row at a time


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_first_rows_arrive_before_the_last_are_read(tmp_path: Path, suffix: str) -> None:
    path, count = tmp_path / f"pairs{suffix}", 40_000
    if suffix == ".parquet":
        scores = [*range(count), None]
        pq.write_table(pa.table({"query": ["q"] * (count + 1), "passage": ["p"] * (count + 1), "score": scores}), path)
    else:
        written(path, "".join(map(pair_line, range(count))) + '{"query": "q", "passage": "p"}\n')
    rows = read_scored(path)
    assert next(rows).score == 0
    with pytest.raises(UserError, match=rf"{path}:{count + 1}: lacks \"score\""):
        list(rows)


def test_writing_takes_rows_as_they_come(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        sizes, words = [], random.Random(0)

        def rows(suffix: str = suffix, sizes: list[int] = sizes, words: random.Random = words) -> Iterator[ScoredPair]:
            for number in range(40_000):
                if number % 10_000 == 9_999:
                    sizes.append(sum(file.stat().st_size for file in tmp_path.glob(f".pairs{suffix}*")))
                yield ScoredPair(f"query {number}", str(words.random()), 0.1)

        assert write_scored(tmp_path / f"pairs{suffix}", rows()) == 40_000
        assert sizes[-1] > sizes[0] > 0


# ---- what is wrong is said


BAD_PAIRS = [
    ('{"query": "q", "passage": "p"}', 'lacks "score"'),
    ('{"query": "q", "score": 1}', 'lacks "passage"'),
    ('{"query": 3, "passage": "p", "score": 1}', "query is a number, not a text"),
    ('{"query": null, "passage": "p", "score": 1}', "query is null, not a text"),
    ('{"query": "q", "passage": ["p"], "score": 1}', "passage is a list, not a text"),
    ('{"query": "q", "passage": " \\n", "score": 1}', "passage is an empty text"),
    ('{"query": "q", "passage": "p", "score": "1"}', "score is a text, not a number"),
    ('{"query": "q", "passage": "p", "score": true}', "score is a truth value, not a number"),
    ('{"query": "q", "passage": "p", "score": NaN}', "not a finite number"),
    ('{"query": "q", "passage": "p", "score": -Infinity}', "not a finite number"),
    ('{"query": "q", "passage": "p", "score": 1e999}', "not a finite number"),
    (f'{{"query": "q", "passage": "p", "score": 1{"0" * 400}}}', "not a finite number"),
    (f'{{"query": "q", "passage": "p", "score": 1{"0" * 5000}}}', "not a JSON object"),
    ('{"query": "\\ud800", "passage": "p", "score": 1}', "half of a surrogate pair"),
    ('{"query": "q", "passage"', "not a JSON object (column 25)"),
    ("[" * 100_000, "not a JSON object"),
    ("query,passage,score", "not a JSON object (column 1)"),
    ('["q", "p", 1]', "a line must be a JSON object, this is a list"),
    ("null", "a line must be a JSON object, this is null"),
    (b'{"query": "caf\xe9", "passage": "p", "score": 1}', "not UTF-8 text (byte 15)"),
]
BAD_GROUPS = [
    ('{"query": "q"}', 'lacks "passages"'),
    ('{"query": "q", "positive": ["a"]}', 'lacks "negative"'),
    ('{"query": "q", "positive": ["a"], "negative": "b"}', '"negative" is a text, not a list'),
    ('{"query": "q", "positive": ["a", "b"], "negative": ["b"]}', 'a passage is both positive and negative: "b"'),
    (
        '{"query": "q", "passages": [{"text": "b", "label": 2}, {"text": "b", "label": 0}]}',
        'a passage is both positive and negative: "b"',
    ),
    ('{"query": "q", "positive": [], "negative": []}', "the query has no passages"),
    ('{"query": "q", "positive": ["a", ""], "negative": []}', "positive[1] is an empty text"),
    ('{"query": "q", "passages": []}', "the query has no passages"),
    ('{"query": "q", "passages": {"text": "a"}}', '"passages" is an object, not a list'),
    ('{"query": "q", "passages": ["a", 2]}', "passages[1] is a number, not a text or an object"),
    ('{"query": "q", "passages": [{"id": "1"}]}', 'passages[0] lacks "text"'),
    ('{"query": "q", "passages": [{"text": null}]}', "passages[0].text is null, not a text"),
    ('{"query": "q", "passages": [{"text": "a", "label": 0.5}]}', "passages[0].label is 0.5, not a whole number"),
    ('{"query": "q", "passages": [{"text": "a", "label": true}]}', "passages[0].label is true, not a whole number"),
    ('{"query": "q", "passages": [{"text": "a", "rank": -1}]}', "passages[0].rank is -1, not a whole number"),
    ('{"query": "q", "passages": [{"text": "a", "source": 1}]}', "passages[0].source is a number, not a text"),
    ('{"query": "q", "passages": ["a"], "query_id": [1]}', "query_id is a list, not a text"),
]
BAD_TRIPLETS = [
    ('{"query": "q", "positive": "a", "negative": "b"}', 'lacks "score"'),
    ('{"query": "q", "positive": ["a"], "negative": "b", "score": 1}', "positive is a list, not a text"),
]
BAD_TRAINING = [
    ('{"query": "q", "passages": ["a", "b"], "scores": [1]}', "2 passages but 1 scores"),
    ('{"query": "q", "passages": ["a"], "scores": [1]}', "a training group needs at least two passages"),
    ('{"query": "q", "passages": ["a", "b"], "scores": [1, null]}', "scores[1] is null, not a number"),
    (
        '{"query": "q", "passages": ["a", "b"], "scores": [1, 2], "pairs": [[0, 2]]}',
        "pairs must be a list of [i, j] below 2",
    ),
    ('{"query": "q", "passages": ["a", "b"], "scores": [1, 2], "pairs": [[0, true]]}', "pairs must be a list"),
    ('{"query": "q", "passages": ["a", "b"], "scores": [1, 2], "pairs": []}', "pairs must be a list"),
    ('{"query": "q", "passages": ["a", "b"], "scores": [1, 2], "pairs": 3}', "pairs must be a list"),
]
GOOD = {
    read_scored: '{"query": "q", "passage": "p", "score": 1}',
    read_groups: '{"query": "q", "passages": ["a"]}',
    read_triplets: '{"query": "q", "positive": "a", "negative": "b", "score": 1}',
    read_training_groups: '{"query": "q", "passages": ["a", "b"], "scores": [1, 2]}',
}
BAD = [
    pytest.param(read, line, what, id=f"{read.__name__}-{number}")
    for read, lines in zip(GOOD, (BAD_PAIRS, BAD_GROUPS, BAD_TRIPLETS, BAD_TRAINING), strict=True)
    for number, (line, what) in enumerate(lines)
]


@pytest.mark.parametrize(("read", "line", "what"), BAD)
def test_a_malformed_row_stops_with_file_and_line(tmp_path: Path, read: Any, line: str | bytes, what: str) -> None:
    line = line.encode() if isinstance(line, str) else line
    good = GOOD[read].encode()
    path = written(tmp_path / "rows.jsonl.gz", b"\n".join([good, b"", line, good]))
    rows = read(path)
    next(rows)
    with pytest.raises(UserError) as error:
        next(rows)
    assert str(error.value).startswith(f"{path}:3: ")
    assert what in str(error.value)
    assert "\n" not in str(error.value)
    skip = BadLines()
    assert len(list(read(path, skip))) == 2
    assert list(skip.reasons) == [f"{path}:3"]


@given(good=st.lists(st.booleans(), min_size=1, max_size=12).filter(any))
def test_skipped_lines_are_counted_and_the_others_kept(folder: Path, good: list[bool]) -> None:
    lines = [pair_line(number) if fine else "broken\n" for number, fine in enumerate(good)]
    path, skip = written(folder / "mixed.jsonl", "".join(lines)), BadLines()
    assert [pair.score for pair in read_scored(path, skip)] == [number for number, fine in enumerate(good) if fine]
    bad = [number for number, fine in enumerate(good, start=1) if not fine]
    assert list(skip.reasons) == [f"{path}:{number}" for number in bad]
    assert f"skipped {len(bad)} bad line{'s' * (len(bad) != 1)}" in skip.summary()


def test_a_file_without_a_good_line_is_refused_even_when_skipping(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no good line in it"):
        list(read_scored(written(tmp_path / "rows.jsonl", "broken\nbroken\n"), BadLines()))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    if suffix == ".jsonl":
        pytest.skip("plain lines cut between two lines are a whole file")
    write_scored(whole := tmp_path / f"whole{suffix}", [ScoredPair(f"q{n}", "p", n / 7) for n in range(20)])
    content, cut = whole.read_bytes(), tmp_path / f"cut{suffix}"
    for size in range(0, len(content), 11):
        cut.write_bytes(content[:size])
        with pytest.raises(UserError, match=str(cut)):
            list(read_scored(cut))


def test_a_cut_stream_is_named_as_cut_with_the_line_where_it_ends(tmp_path: Path) -> None:
    path = written(tmp_path / "pairs.jsonl.gz", "".join(map(pair_line, range(20_000))))
    path.write_bytes(path.read_bytes()[:-5000])
    read = []
    with pytest.raises(UserError, match="ends too early: it was cut off") as error:
        read.extend(read_scored(path))
    assert read
    assert str(error.value).startswith(f"{path}:{len(read) + 1}:")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_another_encoding_is_refused_on_its_first_bad_line(tmp_path: Path, encoding: str) -> None:
    line = '{"query": "é", "passage": "p", "score": 1}\n'
    path = written(tmp_path / "rows.jsonl", line.encode(encoding))
    with pytest.raises(UserError, match=f"{path}:1: not "):
        list(read_scored(path))


def test_a_byte_order_mark_blank_lines_and_windows_lines_are_fine(tmp_path: Path) -> None:
    path = written(
        tmp_path / "rows.jsonl", "\ufeff" + pair_line(1).replace("\n", "\r\n") + "\r\n  \n" + pair_line(2).strip()
    )
    assert [pair.score for pair in read_scored(path)] == [1, 2]


def test_two_gzip_streams_in_one_file_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(pair_line(1).encode()) + gzip.compress(pair_line(2).encode()))
    assert [pair.score for pair in read_scored(path)] == [1, 2]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file_a_folder_and_a_missing_file_are_refused(tmp_path: Path, suffix: str) -> None:
    (empty := tmp_path / f"empty{suffix}").write_bytes(b"")
    (folder := tmp_path / f"folder{suffix}").mkdir()
    for path, what in ((empty, "empty|not a whole"), (folder, "folder"), (tmp_path / f"absent{suffix}", "no such file")):
        with pytest.raises(UserError, match=what) as error:
            list(read_scored(path))
        assert str(path) in str(error.value)


def test_blank_lines_alone_are_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the file is empty"):
        list(read_scored(written(tmp_path / "rows.jsonl", "\n\n \n")))


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_a_plain_file_under_another_name_is_refused(tmp_path: Path, suffix: str) -> None:
    (path := tmp_path / f"rows{suffix}").write_text(pair_line(1))
    with pytest.raises(UserError, match=f"{path}:1: "):
        list(read_scored(path))


# ---- Parquet that others wrote


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"query": ["q", "r"], "passage": ["a", "b"], "score": [1.0, 2.0]} | columns), path)
    return path


def test_parquet_of_other_types_is_read_by_value(tmp_path: Path) -> None:
    columns = {"query": pa.array(["q", "r"]).dictionary_encode(), "passage": pa.array(["a", "b"], pa.large_string())}
    path = parquet(tmp_path / "pairs.parquet", **columns, score=pa.array([1, 2], pa.int8()))
    assert list(read_scored(path)) == [ScoredPair("q", "a", 1.0), ScoredPair("r", "b", 2.0)]


def test_a_null_in_parquet_is_a_missing_key_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pairs\.parquet:2: lacks \"passage\""):
        list(read_scored(parquet(tmp_path / "pairs.parquet", passage=["a", None])))


def test_broken_text_in_parquet_is_the_users_to_mend(tmp_path: Path) -> None:
    buffers = pa.array([b"fine", b"caf\xe9"]).buffers()
    path = parquet(tmp_path / "pairs.parquet", passage=pa.Array.from_buffers(pa.string(), 2, buffers))
    with pytest.raises(UserError, match=str(path)):
        list(read_scored(path))


def test_columns_of_others_are_not_looked_at(tmp_path: Path) -> None:
    path = parquet(tmp_path / "pairs.parquet", seen=pa.array([2**60, 0], pa.timestamp("ms")))
    assert len(list(read_scored(path))) == 2


# ---- which form a training file has


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_training_file_is_told_by_its_first_row(tmp_path: Path, suffix: str) -> None:
    write_triplets(tmp_path / f"t{suffix}", [Triplet("q", "a", "b", 1.0)])
    write_training_groups(tmp_path / f"g{suffix}", [TrainingGroup("q", ("a", "b"), (1.0, 0.0))])
    assert holds_triplets(tmp_path / f"t{suffix}")
    assert not holds_triplets(tmp_path / f"g{suffix}")


def test_a_training_file_of_neither_form_is_refused_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", "\n\n" + pair_line(1))
    with pytest.raises(UserError, match=f"{path}:3: neither a triplet"):
        holds_triplets(path)


# ---- real sets


def test_every_real_set_is_read_as_plain_json_reads_it(real_data: Path) -> None:
    files = [path for path in sorted(real_data.glob("*/*.jsonl")) if path.name != "bodies.jsonl"]
    assert files
    for path in files:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        wanted = [(row["query"], [(t, 1) for t in row["positive"]] + [(t, 0) for t in row["negative"]]) for row in rows]
        skip = BadLines()
        found = [(group.query, [(p.text, p.label) for p in group.passages]) for group in read_groups(path, skip)]
        assert found == [row for row in wanted if row[1] and all(text.strip() for text, _ in row[1])]
        assert len(skip.reasons) == len(wanted) - len(found)
