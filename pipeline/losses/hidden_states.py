"""Distances between the hidden states of a student and of its teacher, token by token.

Dimension names: P pairs of layers, N tokens that have a loss, H hidden.
"""

from collections.abc import Callable

from torch import Tensor

from pipeline.losses.lm_head import sum_dtype

SMALLEST = 1e-12  # squared norm of a state below which it counts as this, so that 0 has a gradient


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - cos of the angle between (..., H) states, from 0 to 2.

    It ignores the length of the states, on which a final norm does not depend. Source: the cosine
    loss of DistilBERT, Sanh et al. 2019.
    """
    lengths = _square(student) * _square(teacher)
    return 1.0 - (student * teacher).sum(dim=-1) * lengths.rsqrt()


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of (..., H) states over the teacher's mean square.

    It is 1 for a student whose states are 0. The teacher's norm divides both sides: with each side
    divided by its own, the distance would be twice that of `cosine`. Source: FitNets, Romero et al.
    2015, normalised because the norm of a state grows by orders of magnitude over the layers.
    """
    return _square(student - teacher, smallest=0.0) / _square(teacher)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "mse": mse}


def hidden_state_loss(
    student: Tensor, teacher: Tensor, weights: Tensor, distance: str = "cosine"
) -> Tensor:
    """Return the distance of the states, summed over tokens and averaged over pairs of layers.

    Args:
        student, teacher: states of the same tokens, (N, H) or (P, N, H). No gradient reaches the
            teacher's.
        weights: (N,) weights of the tokens.
        distance: a name in DISTANCES.
    """
    dtype = sum_dtype(student)
    per_token = DISTANCES[distance](student.to(dtype), teacher.detach().to(dtype))  # (..., N)
    per_pair = (per_token * weights.to(dtype)).sum(dim=-1)
    return per_pair.mean()


def _square(states: Tensor, smallest: float = SMALLEST) -> Tensor:
    return states.square().sum(dim=-1).clamp(min=smallest)
