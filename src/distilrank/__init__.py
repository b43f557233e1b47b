"""distilrank: distil a large LLM reranker into a small cross-encoder, with evidence that it is better.

The rooms are `data`, `teachers`, `scoring`, `mining`, `students` and `evidence`; `pipeline` runs them in that order.
"""

__version__ = "0.1.0"
