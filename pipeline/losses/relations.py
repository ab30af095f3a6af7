"""Relations that a student takes over from its teacher: among tokens of a row, or among rows.

Unlike hidden states, relations have no width: student and teacher may differ in it.

Dimension names: B rows, T tokens of a row that have a loss, N tokens of all rows, W width of a
projection, A heads, H hidden.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from pipeline.losses.lm_head import sum_dtype

HEAD_WIDTH = 32  # least width of a relation head; MiniLMv2 takes 12 to 64
ANGLE_WEIGHT = 2.0  # of angles against distances, as in Park et al. 2019
SMALLEST = 1e-12


def projection_loss(
    student: Tensor, teacher: Tensor, weights: Tensor, counts: Sequence[int]
) -> Tensor:
    """Return how much the relations of queries, of keys or of values differ, summed over tokens.

    The relation of a token is the softmax of its scaled dot products with all tokens of its row,
    of one relation head. The difference is KL(teacher || student) in nats, a mean over the heads.
    Source: MiniLMv2, Wang et al. 2021.

    Args:
        student, teacher: (N, W) outputs of the projection, whose widths may differ.
        weights: (N,) weights of the tokens.
        counts: tokens of each row, N in all.
    """
    heads = relation_heads(student.shape[1], teacher.shape[1])
    sides = (_relations(side, heads, counts) for side in (student, teacher.detach()))
    factors = weights.to(sum_dtype(student)).split(list(counts))
    total = student.new_zeros((), dtype=sum_dtype(student))
    for learned, true, factor in zip(*sides, factors, strict=True):
        total = total + (_kl(true, learned) * factor).sum()
    return total


def map_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return how much attention maps differ: KL(teacher || student) in nats, summed over tokens.

    The KL is a mean over the heads. If the sides have different numbers of heads, the mean of each
    side's maps is compared. Source: Zagoruyko and Komodakis 2017, with the KL of MiniLM.

    Args:
        student, teacher: a map (A, T, T) for each row: attention from its tokens to its tokens. The
            probability that goes to other positions is left out, and the rest sums to 1.
        weights: (N,) weights of the tokens of all rows.
    """
    dtype = sum_dtype(student[0])
    factors = weights.to(dtype).split([one.shape[1] for one in student])
    total = student[0].new_zeros((), dtype=dtype)
    for learned, true, factor in zip(student, teacher, factors, strict=True):
        if len(learned) != len(true):
            learned, true = learned.mean(0, keepdim=True), true.mean(0, keepdim=True)
        total = (
            total + (_kl(_log_map(true.detach(), dtype), _log_map(learned, dtype)) * factor).sum()
        )
    return total


def instance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how much the distances and the angles between rows differ. It is 0 for one row.

    Distances are over their mean; ANGLE_WEIGHT weighs angles, which need three rows. Both
    differences are Huber losses, means over pairs and over triplets. Source: Park et al. 2019,
    Relational Knowledge Distillation.

    Args:
        student, teacher: one state for each row, (B, H). Their widths may differ.
    """
    dtype = sum_dtype(student)
    student, teacher = student.to(dtype), teacher.detach().to(dtype)
    rows = len(student)
    if rows < 2:
        return student.sum() * 0.0
    others = ~torch.eye(rows, dtype=torch.bool, device=student.device)  # (B, B)
    loss = smooth_l1_loss(_distances(student, others)[others], _distances(teacher, others)[others])
    if rows > 2:
        # [j, i, k]: the angle at j between i and k, which all differ
        triplets = others[:, :, None] & others[:, None, :] & others
        loss = loss + ANGLE_WEIGHT * smooth_l1_loss(
            _angles(student)[triplets], _angles(teacher)[triplets]
        )
    return loss


def row_means(states: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the mean of the (N, H) states of each row that has a token, (B, H)."""
    rows = states.to(sum_dtype(states)).split(list(counts))
    return torch.stack([row.mean(dim=0) for row in rows if len(row)])


def relation_heads(student: int, teacher: int) -> int:
    """Return the largest number of heads that divides both widths and leaves HEAD_WIDTH or more."""
    common = math.gcd(student, teacher)
    most = max(min(student, teacher) // HEAD_WIDTH, 1)
    return max(heads for heads in range(1, most + 1) if common % heads == 0)


def _relations(states: Tensor, heads: int, counts: Sequence[int]) -> list[Tensor]:
    """Return the log-probabilities (A, T, T) of each row's relations."""
    rows = states.to(sum_dtype(states)).split(list(counts))
    relations = []
    for row in rows:
        split = row.unflatten(1, (heads, -1)).transpose(0, 1)  # (A, T, W / A)
        products = split @ split.mT / math.sqrt(split.shape[2])
        relations.append(products.log_softmax(dim=2))
    return relations


def _log_map(probabilities: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logarithm of a map, whose rows then sum to 1; -inf where there is no attention."""
    logs = probabilities.to(dtype).clamp(min=SMALLEST).log()
    logs = logs.masked_fill(probabilities == 0.0, -torch.inf)
    return logs - logs.logsumexp(dim=2, keepdim=True).clamp(min=math.log(SMALLEST))


def _kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Return KL(teacher || student) of log-probabilities (A, T, T) as a mean over heads, (T,)."""
    empty = teacher == -torch.inf
    teacher, student = teacher.masked_fill(empty, 0.0), student.masked_fill(empty, 0.0)
    student = student.clamp(min=math.log(SMALLEST))
    return torch.where(empty, 0.0, teacher.exp() * (teacher - student)).sum(dim=2).mean(dim=0)


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    """Return the distances (B, B) between rows (B, H), over the mean of `others`."""
    square = (rows[:, None] - rows[None]).square().sum(dim=2)
    distances = square.clamp(min=SMALLEST).sqrt()
    return distances / distances[others].mean()


def _angles(rows: Tensor) -> Tensor:
    """Return the cosines (B, B, B) of the angles at row j between rows i and k, as [j, i, k]."""
    directions = rows[None] - rows[:, None]  # (B, B, H), from j to i
    lengths = directions.square().sum(dim=2, keepdim=True).clamp(min=SMALLEST)
    directions = directions * lengths.rsqrt()
    return directions @ directions.mT
