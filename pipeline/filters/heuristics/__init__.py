"""Filters on the form of one reply."""
