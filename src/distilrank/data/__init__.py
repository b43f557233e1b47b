"""Data: what a user has becomes groups: sources, passages, queries, candidates, the cut that teacher and student share."""

from distilrank.data.bm25 import bm25_scores
from distilrank.data.cut import cut_to_student
from distilrank.data.sources import fetch, is_source, located
from distilrank.data.words import words

__all__ = ["bm25_scores", "cut_to_student", "fetch", "is_source", "located", "words"]
