"""Progress of downloads in our words, whoever downloads: huggingface_hub, ModelScope's client, or pip."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from distilrank.progress import transfer


@contextmanager
def hub_bars(title: str) -> Iterator[Any]:
    """A class for huggingface_hub's `tqdm_class` that tells how many bytes have come.

    It keeps several bars: some of files, one or two of bytes; the one that is furthest is told.
    """
    from huggingface_hub import utils

    base: Any = utils.tqdm  # type: ignore[attr-defined]
    furthest, lock = 0.0, Lock()
    with transfer(title) as told:

        class Bar(base):  # type: ignore[misc]
            def __init__(self, *arguments: Any, **options: Any) -> None:
                self.of_bytes = options.get("unit") == "B"
                super().__init__(*arguments, **options | {"disable": True})

            def update(self, n: float | None = 1) -> None:
                nonlocal furthest
                with lock:
                    self.n += n or 0
                    if self.of_bytes and self.n > furthest:
                        furthest = self.n
                        told(int(self.n), int(self.total) if self.total else None)

        yield Bar


@contextmanager
def modelscope_callbacks(title: str) -> Iterator[list[Any]]:
    """The same for `progress_callbacks` of ModelScope's client, which makes one a file."""
    from modelscope_hub._download import ProgressCallback

    done = total = 0
    lock = Lock()
    with transfer(title) as told:

        class Callback(ProgressCallback):
            def __init__(self, filename: str, file_size: int) -> None:
                nonlocal total
                super().__init__(filename, file_size)
                with lock:
                    total += max(0, file_size)

            def update(self, size: int) -> None:
                nonlocal done
                with lock:
                    done += size
                    told(done, total)

        yield [Callback]


def watched(command: Sequence[str], folder: Path, title: str) -> tuple[int, str]:
    """Run a command that downloads into a folder; returns its exit code and its standard error.

    What has come is seen by the sizes of its files, those under way among them.
    """
    with transfer(title) as told, TemporaryDirectory(dir=folder) as scratch:
        environment = os.environ | {"TMPDIR": scratch}
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, errors="replace"
        )
        try:
            while True:
                try:
                    _, errors = process.communicate(timeout=0.5)
                except subprocess.TimeoutExpired:
                    told(_size(folder), None)
                else:
                    return process.returncode, errors
        finally:
            process.kill()
            process.wait()


def _size(folder: Path) -> int:
    size = 0
    for file in folder.rglob("*"):
        try:
            size += file.stat().st_size
        except OSError:  # moved or deleted meanwhile
            continue
    return size
