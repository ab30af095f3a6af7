"""Reject samples that overlap with held-out examples."""
