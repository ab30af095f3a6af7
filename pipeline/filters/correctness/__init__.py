"""Filters by ground truth, by agreement of answers, and by a judge model."""
