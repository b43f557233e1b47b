"""`make` says what it is about to do to the machine, and does nothing else than it says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not shutil.which("make"), reason="make is not here")
@pytest.mark.parametrize("target", ["demo", "test", "lint"])
def test_what_is_installed_where_is_said_first_and_only_when_it_is(tmp_path: Path, target: str) -> None:
    def planned(folder: Path) -> list[str]:
        command = ["make", "--dry-run", "--no-print-directory", target, f"VENV={folder}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    first, *rest = planned(tmp_path / "new")
    assert first.startswith(f'echo "installing distilrank and its libraries into {tmp_path / "new"}: ')
    assert sum("pip install" in line for line in rest) == 2
    (tmp_path / ".installed").touch()
    assert not [line for line in planned(tmp_path) if "install" in line.replace(str(tmp_path), "")]
