"""Losses: pure functions of tensors. N unmasked tokens, K entries of a token, V vocabulary, H hidden."""
