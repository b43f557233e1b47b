"""A recipe as stages, and what joins the rooms: the one place that knows them all."""

from distilrank.pipeline.plan import RecipePlan
from distilrank.pipeline.run import plan_recipe, run_recipe

__all__ = ["RecipePlan", "plan_recipe", "run_recipe"]
