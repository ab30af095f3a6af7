"""Filters by ground truth, by agreement and by a judge."""
