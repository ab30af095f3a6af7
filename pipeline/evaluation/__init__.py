"""What the answers to held-out examples show: figures, differences between models, the gate."""
