"""Running stages in order: fingerprint, skip, resume, dry run. Nothing here knows what a stage does.

A stage is skipped when its fingerprint (settings, digests of its inputs, its version) stands in the run's manifest and
its outputs are whole. Every output appears under its name only when it is complete, so a killed run goes on by itself.
"""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distilrank.errors import UserError, did_you_mean
from distilrank.progress import say
from distilrank.shards import digest, refuse_foreign, remove_leftovers, write_text
from distilrank.versions import versions

LIBRARIES = ("distilrank", "torch", "transformers", "sentence-transformers", "datasets", "duckdb", "pyarrow")
RUN_FOLDERS = ("data", "train", "evaluation")


@dataclass(frozen=True)
class Stage:
    """One step of a run. `run` must leave every output whole."""

    name: str
    does: str
    settings: Mapping[str, Any]
    inputs: Sequence[Path]
    outputs: Sequence[Path]
    run: Callable[[], None]
    version: int = 1

    def digests(self) -> dict[Path, str]:
        """A digest of each input. Raises `UserError` when one is missing."""
        for path in self.inputs:
            if not path.exists():
                raise UserError(f"{path}: an input of the stage {self.name} is missing: run the stages before it")
        return {path: digest(path) for path in self.inputs}

    def fingerprint(self, digests: Mapping[Path, str]) -> str:
        """What decides the outputs: the same fingerprint means the same outputs."""
        content = [self.name, self.version, self.settings, list(digests.values())]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


class Plan(Protocol):
    """Stages by name; one is built only when its turn comes, since its inputs are made by those before it."""

    def names(self) -> Sequence[str]:
        """The stages in order."""

    def describe(self, name: str) -> str:
        """What a stage does, in a line."""

    def stage(self, name: str) -> Stage:
        """The stage, with its inputs at hand. Raises `UserError` when one of them cannot be had."""


def start_folder(folder: Path) -> None:
    """Make a run folder, or go on with one of ours. Raises `UserError` when the folder holds something else."""
    refuse_foreign(folder, "manifest.json")
    if not (folder / "manifest.json").exists():
        _write_manifest(folder, {"format": 1, "stages": {}})


def run_stages(plan: Plan, folder: Path, restart_from: str | None = None) -> None:
    """Run the stages that are not done; what was finished before stays. `restart_from` forgets that one and the rest."""
    for part in ("", *RUN_FOLDERS):
        remove_leftovers(folder / part)
    manifest = _read_manifest(folder)
    if restart_from:
        _forget(manifest, restart_from, plan.names())
        _write_manifest(folder, manifest)
    for number, name in enumerate(plan.names(), start=1):
        stage = plan.stage(name)
        heading = f"[{number}/{len(plan.names())}] {name}: {stage.does}"
        digests = stage.digests()
        fingerprint = stage.fingerprint(digests)
        if _is_done(manifest, stage, fingerprint, folder):
            say(f"{heading}: done before")
            continue
        say(heading)
        start = time.monotonic()
        stage.run()
        seconds = time.monotonic() - start
        manifest["stages"][name] = {
            "fingerprint": fingerprint,
            "settings": stage.settings,
            "inputs": {_relative(path, folder): found for path, found in digests.items()},
            "outputs": {_relative(path, folder): _sizes(path) for path in stage.outputs},
            "seconds": round(seconds, 2),
            "peak_mb": peak_mb(),
            "versions": versions(*LIBRARIES) | {"python": platform.python_version()},
        }
        _write_manifest(folder, manifest)
        say(f"  {seconds:.0f} s")


def plan_stages(plan: Plan, folder: Path, restart_from: str | None = None) -> list[tuple[str, str, str]]:
    """What `run_stages` would do: (stage, what it does, `done before` or `to do`)."""
    manifest = _read_manifest(folder)
    if restart_from:
        _forget(manifest, restart_from, plan.names())
    result = []
    done = True
    for name in plan.names():
        if done:
            try:
                stage = plan.stage(name)
                done = _is_done(manifest, stage, stage.fingerprint(stage.digests()), folder)
            except UserError:
                done = False  # an input is not here yet, so the stage cannot have run
        result.append((name, plan.describe(name), "done before" if done else "to do"))
    return result


def stage_times(folder: Path) -> list[dict[str, Any]]:
    """Seconds and peak memory of each finished stage, in order."""
    stages = _read_manifest(folder)["stages"]
    return [{"stage": name, "seconds": entry["seconds"], "peak_mb": entry["peak_mb"]} for name, entry in stages.items()]


def peak_mb() -> int:
    """The most memory this process has held so far, in megabytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(used / (1e6 if sys.platform == "darwin" else 1e3))


def _is_done(manifest: dict[str, Any], stage: Stage, fingerprint: str, folder: Path) -> bool:
    entry = manifest["stages"].get(stage.name)
    return (
        entry is not None
        and entry["fingerprint"] == fingerprint
        and all(path.exists() for path in stage.outputs)
        and entry["outputs"] == {_relative(path, folder): _sizes(path) for path in stage.outputs}
    )


def _forget(manifest: dict[str, Any], stage: str, names: Sequence[str]) -> None:
    if stage not in names:
        raise UserError(f"--from {stage}: no such stage: {did_you_mean(stage, names)}")
    for name in names[names.index(stage) :]:
        manifest["stages"].pop(name, None)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.exists():
        return {"format": 1, "stages": {}}
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not all({"fingerprint", "outputs", "seconds", "peak_mb"} <= set(entry) for entry in manifest["stages"].values()):
            raise KeyError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a manifest of ours: delete it to run every stage anew") from None
    return manifest


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1, default=str) + "\n")


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _sizes(path: Path) -> Any:
    if path.is_dir():
        # A model's card is written anew once there is evidence: it is not what makes the model whole.
        files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != "README.md")
        return {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
    return path.stat().st_size
