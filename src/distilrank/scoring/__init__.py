"""Scoring: what a teacher said, kept by content, and paid for once.

`ScoreStore` keeps scores; `score` drives a teacher over what is missing. `processes` and `ray` do the same with many.
"""

from distilrank.scoring.aside import Aside
from distilrank.scoring.score import pairs_of, refuse_output, score, scored_pairs
from distilrank.scoring.store import ScoreStore

__all__ = ["Aside", "ScoreStore", "pairs_of", "refuse_output", "score", "scored_pairs"]
