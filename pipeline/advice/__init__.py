"""Advice on a run: what to expect of training, and what to try next."""
