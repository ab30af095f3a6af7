"""What the answers to held-out seeds say: each model's figures, what separates models, whether the student is good enough to ship."""

TEACHER, BASE = "teacher", "base"  # what is compared beside the arms; base is the untouched student


def trained(model: str) -> str:
    """Where in a run the weights of the untouched student or of an arm are."""
    return "train/init" if model == BASE else f"train/{model}"
