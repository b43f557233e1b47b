"""Data: what a user has becomes groups: sources, candidates, the cut that teacher and student share."""

from distilrank.data.bm25 import bm25_scores, words
from distilrank.data.cut import cut_to_student
from distilrank.data.sources import fetch, is_source, located

__all__ = ["bm25_scores", "cut_to_student", "fetch", "is_source", "located", "words"]
