"""Scoring: what a teacher said, kept by content, and paid for once.

`ScoreStore` keeps scores; `score` drives a teacher over what is missing and returns everything.
"""

from distilrank.scoring.score import refuse_output, score, scored_pairs
from distilrank.scoring.store import ScoreStore

__all__ = ["ScoreStore", "refuse_output", "score", "scored_pairs"]
