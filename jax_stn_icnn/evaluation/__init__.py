"""Evaluation: confusion counts, F1, boundary scores, reports on a split, drawings."""
