"""Filters that select rows by difficulty, balance, diversity and budget."""
