"""Files that are either whole or absent: written under a temporary name, fsynced, renamed.

Anything that was paid for is kept as append-only Parquet parts, one atomic rename each, so that many writers need no
lock and a reader sees whole parts only. A folder of parts may lie in an object store (`s3://`, `gs://`, `az://`: what
fsspec knows), where one put is as atomic as a rename.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from distilrank.errors import UserError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is fsynced and renamed to `path`, on failure removed."""
    path = Path(path)
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def whole_folder(path: str | Path, ours: str = "") -> Iterator[Path]:
    """The same for a folder: it appears under its name with everything in it, or not at all.

    An older folder is replaced only when it is empty or holds the file `ours`, which says that we made it.
    """
    path = Path(path)
    refuse_foreign(path, ours)
    temporary = _temporary(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        readable = temporary.stat().st_mode & 0o444
        for entry in temporary.rglob("*"):
            # safetensors are written for their owner alone, and a server that runs as another user could not read them.
            entry.chmod(entry.stat().st_mode | readable)
            _fsync(entry)
        _fsync(temporary)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        _fsync(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_foreign(path: str | Path, ours: str) -> None:
    """Raise `UserError` when a file, or a folder that we did not make, stands where a folder is to be written."""
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (ours and (path / ours).exists())):
        raise UserError(f"{path}: exists already and is not ours to replace: choose another name or delete it")


def refuse_unwritable(path: str | Path) -> None:
    """Raise `UserError` now where a file could not be written, and not after the work on what it is to hold."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder: name a file in it")
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None


def place(path: str | Path) -> Path:
    """A path, or for a URL (`s3://bucket/folder`) what behaves like one: universal_pathlib's, over fsspec.

    Raises `UserError` where the packages for that kind of URL are not installed.
    """
    if not isinstance(path, str) or "://" not in path:
        return Path(path) if isinstance(path, str) else path
    scheme = path.partition("://")[0]
    try:
        from upath import UPath

        found = UPath(path)
        return Path(found.path) if scheme in ("file", "local") else cast(Path, found)
    except ImportError as error:
        raise UserError(f"{path}: {scheme}:// needs more packages: pip install 'distilrank[objects]' ({error})") from None
    except ValueError as error:
        raise UserError(f"{path}: not a place that fsspec knows: {error}") from None


def write_text(path: str | Path, text: str) -> None:
    """Write a small text file whole."""
    if _remote(path := place(path)):
        _put(path, text.encode())
        return
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_part(folder: str | Path, table: pa.Table) -> Path:
    """Add one part to a folder of parts; its name is unique, so that writers never collide."""
    path = place(folder) / f"part-{uuid.uuid4().hex}.parquet"
    if _remote(path):
        content = io.BytesIO()
        pq.write_table(table, content, compression="zstd")
        _put(path, content.getvalue())
        return path
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def digest(path: str | Path, suffixes: Sequence[str] = ("",)) -> str:
    """32 hexadecimal digits that change with any byte of a file, or of the files of a folder with these endings."""
    path = Path(path)
    whole = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file.name.endswith(tuple(suffixes)):
            whole.update(f"{file.relative_to(path).as_posix()} {sha256(file)}\n".encode())
    return whole.hexdigest()[:32]


def sha256(file: Path) -> str:
    """The sha256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def parts(folder: str | Path) -> list[Path]:
    """The whole parts of a folder, in a stable order; temporary files are not among them."""
    folder = place(folder)
    with reached(folder, "read"):
        if _remote(folder):
            folder.fs.invalidate_cache()  # type: ignore[attr-defined]  # others write, too: no listing is kept
            if not folder.exists():
                return []
        return sorted(folder.glob("part-*.parquet"))


@contextmanager
def reached(path: Path, what: str) -> Iterator[None]:
    """What an object store refuses, in one line: each kind raises errors of its own. Of a path on disk nothing changes."""
    try:
        yield
    except (UserError, pa.ArrowException):  # told already, or of what is in a file
        raise
    except Exception as error:
        if not _remote(path):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path}: cannot be {what}: {lines[0][:300]}") from error


def remove_leftovers(folder: str | Path) -> None:
    """Delete what a killed process left half-written in a folder that no other process is writing to."""
    folder = place(folder)
    for entry in [] if _remote(folder) else folder.glob(".*.tmp"):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)


def _remote(path: Path) -> bool:
    return hasattr(path, "fs")


def _put(path: Path, content: bytes) -> None:
    """One put, after which the object is there whole, or not at all."""
    with reached(path, "written"):
        path.write_bytes(content)  # no folder is made before: there are none, and what would be made is a bucket


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
