"""Filters that drop exact, near and semantic duplicates."""
