"""Files that survive a crash: shards, journals, top-k frames, locks."""
