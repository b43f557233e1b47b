"""Downloads tell how far they are, in our words and on standard error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distilrank import progress
from distilrank.data.transfers import hub_bars, modelscope_callbacks, watched


@pytest.fixture(autouse=True)
def _every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)


def test_of_the_hubs_bars_those_of_bytes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with hub_bars("org/name") as Bar:
        files, transfer, written = Bar(total=3), Bar(total=0, unit="B"), Bar(total=0, unit="B")
        transfer.total = written.total = 4_000_000
        transfer.update(1_000_000)
        written.update(1_000_000)
        files.update(1)
        written.update(2_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" MB, ")[0] for line in lines] == ["  org/name: 1 of 4", "  org/name: 3 of 4"]


def test_the_files_of_modelscope_are_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("modelscope_hub")
    with modelscope_callbacks("org/name") as (Callback,):
        one, other = Callback("a", 2_000_000), Callback("b", 6_000_000)
        one.update(2_000_000)
        other.update(3_000_000)
    assert "org/name: 5 of 8 MB" in capsys.readouterr().err.splitlines()[-1]


def test_a_command_is_watched_by_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = "import os, sys, time; open(os.environ['TMPDIR'] + '/part', 'wb').write(b'x' * 3_000_000); time.sleep(1.2); "
    code, told = watched([sys.executable, "-c", script + "sys.exit('no such wheel')"], tmp_path, "pypi:x==1")
    assert (code, told.strip()) == (1, "no such wheel")
    assert "pypi:x==1: 3 MB" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_tells_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with hub_bars("org/name") as Bar:
        Bar(total=0, unit="B").close()
    assert capsys.readouterr().err == ""
