"""Mining: from scored pairs to what is taught.

`mine` is the one verb here: the reference's rule (`adjacent`), every pair (`all_pairs`), or every pair of a draw
(`quantile`, `random`), as triplets or as groups.
"""

from distilrank.mining.triplets import STRATEGIES, MiningSettings, mine, mine_groups, ranked_queries

__all__ = ["STRATEGIES", "MiningSettings", "mine", "mine_groups", "ranked_queries"]
