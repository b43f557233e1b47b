"""What all tests share: one hypothesis profile, tiny models made once a session, the real data where there are some."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("quick", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quick")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of human-labelled sets, from `DISTILRANK_DATA` (default ../shared/data); skips where it is absent."""
    folder = (ROOT / os.environ.get("DISTILRANK_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data sets at {folder}: set DISTILRANK_DATA")
    return folder


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause between requests, which nobody waits for."""
    from distilrank import web

    taken: list[float] = []
    monkeypatch.setattr(web, "pause", lambda stop, seconds: taken.append(seconds))
    return taken


def _tiny(name: str) -> Callable[[pytest.TempPathFactory], Path]:
    @pytest.fixture(scope="session", name=name)
    def make(tmp_path_factory: pytest.TempPathFactory) -> Path:
        import tiny  # transformers takes seconds to import, and most tests need no model

        build = {"qwen": tiny.causal_folder, "bert": tiny.bert_folder, "xlmr": tiny.xlmr_folder}
        build |= {"llama": lambda folder: tiny.causal_folder(folder, "Llama"), "embedder": tiny.embedder_folder}
        return build[name](tmp_path_factory.mktemp(name))

    return make


qwen, llama, bert, xlmr, embedder = map(_tiny, ("qwen", "llama", "bert", "xlmr", "embedder"))
"""Folders of tiny random models: two causal language models, two sequence classifiers, an embedder."""
