"""Is the curation worth it, and would more data help: several students on parts of the rows."""
