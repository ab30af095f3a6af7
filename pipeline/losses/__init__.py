"""Losses as pure functions of tensors: N tokens with a loss, K entries, V vocabulary, H hidden."""
