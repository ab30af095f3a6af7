"""Healing: distil a cut student from its own model before the cut."""
