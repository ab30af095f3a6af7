"""Students: the model they start from, their layers and vocabulary, LoRA adapters."""
