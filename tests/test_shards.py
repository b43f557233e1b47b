"""Files and folders are whole or absent, and a digest knows names and contents."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from distilrank.errors import UserError
from distilrank.shards import digest, remove_leftovers, whole_file, whole_folder, write_text


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    with whole_file(tmp_path / "new/a.txt") as temporary:
        temporary.write_text("x")
        assert not (tmp_path / "new/a.txt").exists()
    assert [(path.name, path.read_text()) for path in (tmp_path / "new").iterdir()] == [("a.txt", "x")]


def test_a_folder_replaces_the_older_one_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with whole_folder(tmp_path / "folder", ours="old") as temporary:
            (temporary / name).write_text("x")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_folders_files_are_for_those_who_may_read_the_folder(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with whole_folder(tmp_path / "folder") as temporary:
            (temporary / "inner").mkdir()
            (temporary / "inner/weights").touch(0o600)  # as the library writes safetensors
    finally:
        os.umask(before)
    assert (tmp_path / "folder/inner/weights").stat().st_mode & 0o777 == mode


def test_a_folder_or_file_that_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "folder/theirs", "x")
    for name in ("folder", "folder/theirs"):
        with pytest.raises(UserError, match="not ours to replace"), whole_folder(tmp_path / name, ours="evaluation.json"):
            pass
    assert (tmp_path / "folder/theirs").read_text() == "x"


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_failure_leaves_what_was_there(tmp_path: Path, whole: Callable[[Path], AbstractContextManager[Path]]) -> None:
    kept = tmp_path / "kept"
    if whole is whole_file:
        write_text(kept, "x")

    def fail() -> None:
        with whole(kept) as temporary:
            (temporary if whole is whole_file else temporary / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.read_text() for path in tmp_path.iterdir()] == (["x"] if whole is whole_file else [])


def test_only_our_own_leftovers_are_removed(tmp_path: Path) -> None:
    for name in (".a.0123.tmp", "b.tmp", ".c"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".d.0123.tmp").mkdir()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c", "b.tmp"]


def test_a_digest_knows_names_and_contents_and_nothing_else(tmp_path: Path) -> None:
    found = {}
    for number, (name, content) in enumerate([("x", "1"), ("y", "1"), ("y", "2"), ("sub/y", "2"), ("y", "1")]):
        write_text(tmp_path / str(number) / name, content)
        found[number] = digest(tmp_path / str(number))
    assert len(set(found.values())) == 4
    assert found[1] == found[4]
