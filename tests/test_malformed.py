"""Whatever is wrong with what the user brings: exit code 2 and one line that names the file and, where it has one, the line.

Each input starts as a good one, with one thing in it broken; the good ones beside them exit with 0.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.cli import run
from distilrank.recipe import packaged_recipes

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
ROWS: dict[str, dict[str, Any]] = {
    "mine": {"query": "如何 install 🙂", "passage": "p", "score": -1.5},
    "train triplets": {"query": "q", "positive": "a", "negative": "b", "score": 1.5},
    "train groups": {"query": "q", "passages": ["a", "b"], "scores": [1, 0.5], "pairs": [[0, 1]]},
    "evaluate": {"query": "q", "passages": [{"text": "a", "label": 1}, {"text": "b", "label": 0}]},
    "evaluate set": {"query": "q", "positive": ["a"], "negative": ["b", "c"]},
}
NEEDED = {"evaluate": ["query", "passages"]} | {use: [k for k in row if k != "pairs"] for use, row in ROWS.items()}
WRONG = [None, True, 3, "", " \n", [], [3], [None], {}, {"a": 1}, [[]], [""], float("nan"), float("inf"), 10**400, "\ud800"]
NO_ROWS = [
    b"{",
    b'{"query": "q"',
    b"[]",
    b"3",
    b'"text"',
    b"null",
    b"NaN",
    b"\xff\xfe\x00",
    b'{"query": "caf\xe9"}',
    b"}",
    b"[" * 9999,
]


@dataclass
class Case:
    """A command line, what it is given, and what its message must name."""

    use: str
    name: str
    content: bytes
    line: int | None = None
    more: tuple[str, ...] = ()


def arguments(use: str, path: Path, folder: Path) -> list[str]:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    command = use.split()[0]
    output, model = str(folder / "output.jsonl"), str(folder / "model")
    return {
        "mine": ["mine", str(path), "-o", output],
        "train": ["train", str(path), "-o", output, "--student", model],
        "evaluate": ["evaluate", str(path), "-o", output, "--model", model],
        "report": ["report", str(path), "-o", output],
        "run": ["run", str(path), "--dry-run"],
    }[command]


def outcome(arguments: list[str]) -> tuple[int, str, str]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run(arguments)
    return code, out.getvalue(), err.getvalue()


def packed(name: str, content: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(content, mtime=0)
    return pa.compress(content, codec="zstd", asbytes=True) if name.endswith(".zst") else content


# ---- inputs with one thing wrong


@st.composite
def bad_lines(draw: st.DrawFn) -> Case:
    """A row among good ones that lacks a key, has a wrong value, or is no row."""
    use = draw(st.sampled_from(sorted(ROWS)))
    good = json.dumps(ROWS[use], ensure_ascii=False).encode()
    row = dict(ROWS[use])
    key = draw(st.sampled_from(NEEDED[use]))
    breaking = draw(st.sampled_from(["drop", "wrong", "cut", "no row", "deeper"]))
    if breaking == "drop":
        del row[key]
        bad = json.dumps(row).encode()
    elif breaking == "wrong":
        right = (int, float, bool) if key == "score" else ()
        wrong = [value for value in WRONG if not (isinstance(value, right) and value in (3,))]
        if use == "evaluate set":
            wrong = [value for value in wrong if value != [] or key == "query"]
        row[key] = draw(st.sampled_from(wrong))
        bad = json.dumps(row).encode()
    elif breaking == "deeper" and isinstance(row[key], list):
        row[key] = [*row[key], draw(st.sampled_from([None, 3.5, [], {}, "", True]))]
        bad = json.dumps(row).encode()
    elif breaking == "cut":
        bad = good[: draw(st.integers(1, len(good) - 1))]
    else:
        bad = draw(st.sampled_from(NO_ROWS))
    before, after = draw(st.integers(0, 3)), draw(st.integers(0, 2))
    lines = [good] * before + [b""] * draw(st.integers(0, 1)) + [bad]
    name = "rows" + draw(st.sampled_from(SUFFIXES))
    return Case(use, name, packed(name, b"\n".join(lines + [good] * after) + b"\n"), len(lines))


@st.composite
def bad_files(draw: st.DrawFn) -> Case:
    """A file that is cut off, of another encoding, of another kind than its name says, or empty."""
    use = draw(st.sampled_from(sorted(ROWS)))
    text = "".join(json.dumps(ROWS[use] | {"query": f"q{n} 如何"}, ensure_ascii=False) + "\n" for n in range(30))
    kind = draw(st.sampled_from(["cut", "encoding", "another", "empty", "noise"]))
    if kind == "cut":
        name = "rows" + draw(st.sampled_from([".jsonl.gz", ".jsonl.zst", ".parquet"]))
        whole = parquet(ROWS[use]) if name.endswith(".parquet") else packed(name, text.encode())
        content = whole[: draw(st.integers(0, len(whole) - 1))]
    elif kind == "encoding":
        name = "rows.jsonl"
        content = text.encode(draw(st.sampled_from(["utf-16", "utf-16-be", "utf-32", "gb18030", "utf-7"])))
        if content == text.encode() or b"+" in content[:40]:
            content = text.encode("utf-16")
    elif kind == "another":
        name = "rows" + draw(st.sampled_from([".jsonl.gz", ".jsonl.zst", ".parquet"]))
        content = text.encode()
    elif kind == "empty":
        name = "rows" + draw(st.sampled_from([*SUFFIXES, ".parquet"]))
        content = draw(st.sampled_from([b"", b"\n", b"\n \n\n"]))
        content = packed(name, content) if name.endswith(SUFFIXES) else content
    else:
        name = "rows" + draw(st.sampled_from([*SUFFIXES, ".parquet"]))
        content = b"\x00" + draw(st.binary(max_size=60))
    return Case(use, name, content)


def parquet(row: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row] * 5), sink)
    return sink.getvalue()


BROKEN_YAML = [
    "a: [",
    "\tx: 1",
    "a: *nobody",
    "a: 'open",
    "@: 1",
    "- a",
    "a: !!int ''",
    "a: !nothing x",
    "{",
    "a: 1: 2",
    "%",
    "? {}",
]


@st.composite
def bad_recipes(draw: st.DrawFn) -> Case:
    """A packaged recipe with an unknown key, a wrong type, a missing part, broken YAML or another encoding."""
    data = yaml.safe_load(packaged_recipes()[draw(st.sampled_from(["my-domain", "demo", "stackoverflow"]))])
    kind = draw(st.sampled_from(["unknown", "wrong", "lacks", "yaml", "encoding", "no mapping"]))
    sections: list[tuple[Any, Any]] = [(data, key) for key in data]
    sections += [(value, key) for value in data.values() if isinstance(value, dict) for key in value]
    sections += [(member, key) for member in data["teacher"].get("members", ()) for key in member]
    place, key = draw(st.sampled_from(sections))
    line = 0
    if kind == "unknown":
        place[draw(st.sampled_from(["zzz", "nam", "it's", "", "a\nb", 1, None, True, 1.5]))] = 1
    elif kind == "wrong":
        place[key] = draw(st.sampled_from([{"zzz": 1}, [[]], [{}]]))
    elif kind == "lacks":
        del data[draw(st.sampled_from(["name", "data", "teacher", "student"]))]
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    if kind == "yaml":
        lines = text.splitlines()
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(BROKEN_YAML)))
        text = "\n".join(lines)
    elif kind == "no mapping":
        text = draw(st.sampled_from(["", "text", "[1, 2]", "3", "null", "# only a comment", "---\n---\n"]))
    content = text.encode()
    if kind == "encoding":
        content = ("# 说明 é\n" + text).encode(draw(st.sampled_from(["utf-16", "utf-16-le", "utf-32", "gb18030"])))
    return Case("run", "recipe.yaml", content, line)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(case=bad_lines() | bad_files() | bad_recipes())
def test_two_hundred_malformed_inputs_exit_with_two_and_one_line(case: Case) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (path := folder / case.name).write_bytes(case.content)
        code, out, err = outcome(arguments(case.use, path, folder))
        assert code == 2, err
        assert out == ""
        assert err.startswith(f"error: {path}:")
        assert err.endswith("\n")
        assert len(err.rstrip("\n").split("\n")) == 1
        if case.line:
            assert err.startswith(f"error: {path}:{case.line}: ")
        assert not (folder / "output.jsonl").exists()


# ---- what is wrong beside a file's content


def test_a_folder_or_nothing_where_a_file_should_be(tmp_path: Path) -> None:
    for use in ("mine", "train", "evaluate", "run", "report"):
        for path in (tmp_path / "absent.jsonl", tmp_path):
            code, _, err = outcome(arguments(use, path, tmp_path))
            assert code == 2
            assert err.startswith(f"error: {path}")
            assert err.count("\n") == 1


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [json.dumps({"query": "q", "passage": str(n), "score": n}) for n in range(3)]
    (path := tmp_path / "scored.jsonl").write_text("\n".join(rows))
    return path


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--strategy", "adjacnt"], "adjacent"),
        (["--top-k", "0"], "top_k"),
        (["--num-negatives", "-1"], "num_negatives"),
        (["--format", "rows"], "--format rows"),
    ],
)
def test_an_option_out_of_range_is_named(pairs: Path, tmp_path: Path, options: list[str], what: str) -> None:
    code, _, err = outcome(["mine", str(pairs), "-o", str(tmp_path / "out.jsonl"), *options])
    assert code == 2
    assert what in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["mine", "init"])
@pytest.mark.parametrize("where", ["scored.jsonl/below", "folder"])
def test_an_output_that_cannot_be_written_is_the_users_to_mend(
    pairs: Path, tmp_path: Path, command: str, where: str
) -> None:
    (tmp_path / "folder").mkdir()
    output = str(tmp_path / where)
    code, _, err = outcome(["mine", str(pairs), "-o", output] if command == "mine" else ["init", output])
    assert code == 2
    assert where.split("/")[0] in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "evaluate", "score"])
def test_a_folder_that_is_no_model_is_named(tmp_path: Path, command: str) -> None:
    row = {"query": "q", "passages": ["a", "b"], "scores": [1, 0]} if command == "train" else ROWS["evaluate"]
    (path := tmp_path / "rows.jsonl").write_text("".join(json.dumps(row | {"query": f"q{n}"}) + "\n" for n in range(20)))
    (model := tmp_path / "model").mkdir()
    option = {"train": "--student", "evaluate": "--model", "score": "--teacher"}[command]
    for name in (str(model), str(tmp_path / "absent")):
        code, _, err = outcome([command, str(path), "-o", str(tmp_path / "out"), option, name])
        assert code == 2
        assert name in err
        assert err.count("error:") == 1


def test_a_manifest_of_another_kind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder := tmp_path / "runs/stackoverflow").mkdir(parents=True)
    (folder / "manifest.json").write_text("[]")
    code, _, err = outcome(["run", "stackoverflow", "--dry-run"])
    assert code == 2
    assert "manifest.json" in err


# ---- and good ones beside them


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".parquet"])
def test_good_pairs_of_every_kind_are_mined(tmp_path: Path, suffix: str) -> None:
    rows = [{"query": "如何\n🙂", "passage": str(n), "score": n} for n in range(5)]
    path = tmp_path / f"scored{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(packed(path.name, b"\xef\xbb\xbf" + "\r\n\n".join(map(json.dumps, rows)).encode()))
    code, _, err = outcome(["mine", str(path), "-o", str(tmp_path / "out.jsonl")])
    assert (code, err) == (0, f"10 triplets -> {tmp_path / 'out.jsonl'}\n")


def test_bad_lines_are_skipped_where_that_is_asked_for(tmp_path: Path) -> None:
    rows = [json.dumps({"query": "q", "passage": str(n), "score": n}).encode() for n in range(5)]
    lines = [NO_ROWS[0], *rows, *NO_ROWS]
    (path := tmp_path / "scored.jsonl").write_bytes(b"\n".join(lines))
    code, _, err = outcome(["mine", str(path), "-o", str(tmp_path / "out.jsonl"), "--skip-bad-lines"])
    assert code == 0
    assert f"skipped {len(NO_ROWS) + 1} bad lines: {path}:1: " in err


def test_training_skips_a_bad_first_line_where_that_is_asked_for(tmp_path: Path) -> None:
    row = json.dumps(ROWS["train groups"])
    (path := tmp_path / "groups.jsonl").write_text(f"broken\n{row}\n{row}\n")
    code, _, err = outcome([*arguments("train", path, tmp_path), "--skip-bad-lines"])
    assert code == 2
    assert f"error: {path}" not in err
    assert str(tmp_path / "model") in err


@pytest.mark.parametrize("name", ["my-domain", "demo", "stackoverflow"])
def test_good_recipes_run_dry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILRANK_CACHE", str(tmp_path / "cache"))
    (path := tmp_path / "recipe.yaml").write_text("\ufeff" + packaged_recipes()[name], encoding="utf-8")
    code, out, err = outcome(["run", str(path), "--dry-run"])
    assert (code, err) == (0, "")
    assert "[6/6] report" in out
