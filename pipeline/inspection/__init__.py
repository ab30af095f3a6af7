"""Look at a run without changing it; `verify` alone can repair."""
