"""Filters by the teacher's confidence."""
