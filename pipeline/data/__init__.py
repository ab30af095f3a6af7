"""From an example to a training row: seeds, prompts, replies, encoding."""
