"""Mining: from scored pairs to what is taught.

`mine` is the room's one verb: the reference's rule (`adjacent`) or every pair (`all_pairs`), as triplets or as groups.
"""

from distilrank.mining.triplets import STRATEGIES, MiningSettings, mine, mine_groups, ranked_queries

__all__ = ["STRATEGIES", "MiningSettings", "mine", "mine_groups", "ranked_queries"]
