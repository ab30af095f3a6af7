"""The stages, each a module; they meet only in files."""
