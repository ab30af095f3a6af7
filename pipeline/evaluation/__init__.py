"""Compute figures from the answers to held-out examples: scores, differences, the gate."""
