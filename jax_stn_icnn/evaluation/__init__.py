"""Scores of a parser: confusion counts, F1, evaluation of a split, tables and pictures."""
