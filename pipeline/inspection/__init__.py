"""Look at a run without changing it; only `verify --repair` writes."""
