"""Train an arm: rows, batches, TRL's trainer, validation, several processes."""
