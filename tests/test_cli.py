"""The command line: light to start, an example in every help, its exit codes, and a dry run that touches no network."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from distilrank import __version__, cli
from distilrank.errors import GateError, UserError


def named(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its whole name, the ones below a command among them."""
    for name, found in group.commands.items():
        yield f"{before}{name}", found
        if hasattr(found, "commands"):
            yield from named(found, f"{before}{name} ")


COMMANDS = dict(sorted(named(typer.main.get_command(cli.app))))
CONTRACT = {"demo", "init", "run", "fetch", "score", "mine", "train", "evaluate", "report"}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def test_the_commands_of_the_contract_are_there() -> None:
    assert set(COMMANDS) >= CONTRACT


def test_help_lists_the_commands_in_the_order_of_the_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    listed = re.findall(r"^│ ([a-z]+) ", capsys.readouterr().out, re.M)
    path = ["demo", "init", "run", "fetch", "candidates", "score", "mine", "train", "evaluate", "report", "compare"]
    assert [name for name in listed if name in path] == path
    assert set(listed) == {name.split()[0] for name in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_answers_with_an_example_of_its_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*command.split(), "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Example: distilrank {command}" in shown.replace("│ ", "").replace("`", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_is_cut_on_a_narrow_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run([*command.split(), "--help"]) == 0
    assert "…" not in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_is_a_command_line_that_parses(command: str) -> None:
    found = COMMANDS[command]
    (example,) = re.findall(r"Example: `distilrank (.+?)`", found.help)
    assert example.startswith(command)
    found.make_context(command, example.removeprefix(command).split(), resilient_parsing=False).close()


def test_help_and_version_load_nothing_heavy() -> None:
    program = """
import sys
from distilrank.cli import run
assert run(["--help"]) == 0 and run(["--version"]) == 0
heavy = {"torch", "transformers", "sentence_transformers", "datasets", "duckdb", "pyarrow", "numpy"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--engine", "fast"], "engine"),
        (["--dtype", "float16"], "dtype"),
        (["--keep-layers", "-1"], "--keep-layers"),
        (["--checks", "perhaps"], "--checks"),
        (["--template", "qwen-reranker"], "did you mean 'qwen3-reranker'"),
        (["--template", "none.yaml"], "none.yaml: not a template that can be read"),
        (["--kind", "embedder", "--engine", "plain"], "engine"),
        (["--kind", "cross-encoder", "--dtype", "float8"], "dtype"),
    ],
)
def test_an_option_that_a_teacher_does_not_have_is_refused(
    qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    (tmp_path / "groups.jsonl").write_text('{"query": "q", "positive": ["p"], "negative": ["n"]}\n')
    command = ["score", str(tmp_path / "groups.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--teacher", str(qwen)]
    assert cli.run([*command, *options]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert told in shown
    assert shown.count("\n") == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("raised", "code"), [(UserError("mend it"), 2), (GateError("no"), 3), (KeyboardInterrupt(), 130), (SystemExit(0), 0)]
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, code: int
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("distilrank.recipe.load_recipe", fail)
    assert cli.run(["run", "demo", "--dry-run"]) == code
    if isinstance(raised, UserError):
        assert capsys.readouterr().err == f"error: {raised}\n"
    if isinstance(raised, KeyboardInterrupt):
        assert "the same command goes on from there" in capsys.readouterr().err


def test_our_own_fault_exits_with_one() -> None:
    program = """
import distilrank.recipe, distilrank.cli
distilrank.recipe.load_recipe = lambda *_: 1 / 0
distilrank.cli.main(["run", "demo", "--dry-run"])
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(
    "arguments", [["mine"], ["nonsense"], ["mine", "a", "-o", "b", "--top-k", "many"], ["run", "--bogus"]]
)
def test_a_wrong_command_line_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["stackoverflow", "demo", "my-domain"])
def test_a_dry_run_of_a_packaged_recipe_touches_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILRANK_CACHE", str(tmp_path / "cache"))
    assert cli.run(["run", name, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^\[(\d)/6\] (\w+)", shown, re.M) == [
        (str(n), stage) for n, stage in enumerate(("data", "score", "mine", "train", "evaluate", "report"), start=1)
    ]
    assert cli.run(["run", name, "--dry-run", "--json", "--sample", "20"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["folder"].endswith("-sample")
    assert [stage["stage"] for stage in plan["stages"]] == ["data", "score", "mine", "train", "evaluate", "report"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("source", ["my-domain", "demo", "stackoverflow"])
def test_init_writes_a_commented_recipe_that_runs_dry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["init", "mine.yaml", "--from", source]) == 0
    assert "#" in Path("mine.yaml").read_text()
    assert cli.run(["run", "mine.yaml", "--dry-run"]) == 0
    capsys.readouterr()
    assert cli.run(["init", "mine.yaml"]) == 2
    assert "mine.yaml: exists already" in capsys.readouterr().err


def test_mine_answers_machines_on_standard_output_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"query": "q", "passage": str(n), "score": n} for n in range(4)]
    (tmp_path / "scored.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert cli.run(["mine", str(tmp_path / "scored.jsonl"), "-o", str(tmp_path / "t.jsonl"), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"triplets": 6}
    assert shown.err == ""


def test_skipped_lines_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.dumps({"query": "q", "passage": str(n), "score": n}) for n in range(4)]
    (path := tmp_path / "scored.jsonl").write_text("\n".join([rows[0], "broken", *rows[1:], "[]"]))
    assert cli.run(["mine", str(path), "-o", str(tmp_path / "t.jsonl"), "--skip-bad-lines"]) == 0
    told = capsys.readouterr().err
    assert f"skipped 2 bad lines: {path}:2: not a JSON object" in told
    assert f"{path}:6: " in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--seed", "-1"], "--seed: must be at least 0, but is -1"),
        (["--max-length", "3"], "--max-length: must be at least 16, but is 3"),
        (["--epochs", "0"], "--epochs: must be above 0, but is 0.0"),
        (["--calibrate", "sometimes"], "--calibrate: must be 'auto' or 'none', or a number, but is 'sometimes'"),
        (["--learning-rate", "-1"], "--learning-rate: must be 'auto', or above 0, but is '-1'"),
        (["--learning-rate", "fast"], "--learning-rate: must be 'auto', or a number, but is 'fast'"),
        (["--loss", "{margin_mse: -1}"], "--loss: must be above 0, but is -1"),
        (["--loss", "{margin_mse: 1"], "--loss {margin_mse: 1: write it as '{margin_mse: 1, kl: 0.3}'"),
    ],
)
def test_a_training_that_cannot_be_is_refused_at_once(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    (tmp_path / "t.jsonl").write_text('{"query": "q", "positive": "a", "negative": "b", "score": 2}\n')
    command = ["train", str(tmp_path / "t.jsonl"), "-o", str(tmp_path / "model"), "--student", str(bert)]
    assert cli.run([*command, *options]) == 2
    assert capsys.readouterr().err == f"error: {told}\n"


def test_a_training_takes_a_sum_of_losses_and_a_rate_that_may_be_auto(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "g.jsonl").write_text('{"query": "q", "passages": ["a", "b"], "scores": [2, -3]}\n')
    given = []

    def spy(data: Any, student: Any, output: Any, settings: Any, **more: Any) -> Any:
        given.append((settings.loss, settings.learning_rate))
        raise UserError("enough")

    monkeypatch.setattr("distilrank.students.train", spy)
    command = ["train", str(tmp_path / "g.jsonl"), "-o", str(tmp_path / "model"), "--student", str(bert)]
    assert cli.run([*command, "--loss", "{margin_mse: 1, kl: 0.3}", "--learning-rate", "auto"]) == 2
    assert cli.run([*command, "--loss", "kl", "--learning-rate", "1e-3"]) == 2
    assert given == [({"margin_mse": 1.0, "kl": 0.3}, "auto"), ("kl", 1e-3)]


@pytest.mark.parametrize(
    ("destination", "target"), [("new/", "new/set.jsonl"), ("there", "there/set.jsonl"), ("a/b.jsonl", "a/b.jsonl")]
)
def test_a_file_is_fetched_into_a_folder_or_under_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], destination: str, target: str
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "set.jsonl").write_text("x")
    assert cli.run(["fetch", str(tmp_path / "set.jsonl"), f"{tmp_path}/{destination}"]) == 0
    assert (tmp_path / target).read_text() == "x"
    assert capsys.readouterr().err.endswith(f" -> {tmp_path / target}\n")


def test_a_seed_of_the_demo_is_an_option_and_no_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["demo", "--seed", "-1"]) == 2
    assert "--set" not in capsys.readouterr().err
