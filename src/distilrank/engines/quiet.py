"""Keeps the libraries' own bars and notices away: progress is told once, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within it transformers shows no bars and only errors, and sentence-transformers only errors."""
    from logging import ERROR, getLogger

    from transformers.utils import logging

    other = getLogger("sentence_transformers")
    level, bars, its_level = logging.get_verbosity(), logging.is_progress_bar_enabled(), other.level
    other.setLevel(ERROR)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        other.setLevel(its_level)
        if bars:
            logging.enable_progress_bar()
