"""schemathesis asks what the server's own OpenAPI allows, and what it does not, and compares the answers with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serving.servers import running, stand_in

OPERATIONS = [
    ("/rerank", "POST"), ("/v1/rerank", "POST"), ("/v2/rerank", "POST"), ("/score", "POST"),
    ("/health", "GET"), ("/info", "GET"), ("/metrics", "GET"),
]  # fmt: skip


@pytest.fixture(scope="module")
def described() -> Iterator[Any]:
    with running(stand_in()) as client:
        yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")


def test_every_operation_is_asked(described: Any) -> None:
    found = [operation.ok() for operation in described.get_all_operations()]
    assert {(each.path, each.method.upper()) for each in found} == set(OPERATIONS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_answers_are_what_the_schema_says(described: Any, path: str, method: str, mode: GenerationMode) -> None:
    if method == "GET" and mode is GenerationMode.NEGATIVE:
        pytest.skip("it takes nothing that could be wrong")
    operation, answered = described[path][method], 0

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        nonlocal answered
        # That two lists must be of one length is more than a schema can say.
        case.call_and_validate(excluded_checks=[positive_data_acceptance] if path == "/score" else [])
        answered += 1

    ask()
    assert answered
