"""Settings of the losses that compare a student with the inside of its teacher."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Section, one_error

TERMS = ("hidden", "attention", "relation")  # the keys of an arm, and names in logs

Pair = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]
Layers = Annotated[
    Literal["auto", "even", "last"] | Annotated[list[Pair], Field(min_length=1)],
    one_error(
        "must be auto, even, last, or pairs of a student's and a teacher's layer, such as [[3, 7]]"
    ),
]


class Hidden(Section):
    """Make the hidden states after a layer like the teacher's."""

    weight: float = Field(1.0, gt=0, examples=[3.0])
    """Weight of the distance, beside the cross-entropy and the divergence."""
    layers: Layers = Field("auto", examples=[[[0, 0], [3, 7]]])
    """auto: each layer with the one that it was cut from, else even. even: evenly spaced layers.
    last: the last ones. Or pairs of [student's layer, teacher's layer], counted from 0."""
    distance: Literal["cosine", "mse"] = Field("cosine", examples=["mse"])
    """1 - cosine, or the squared difference over the square of the teacher's state."""


class Attention(Section):
    """Make the attention of a layer like the teacher's."""

    weight: float = Field(1.0, gt=0, examples=[3.0])
    """Weight of the difference, in nats, beside the cross-entropy and the divergence."""
    layers: Layers = Field("last", examples=["auto"])
    """Pairs of layers, as in `hidden.layers`."""
    kind: Literal["relations", "maps"] = Field("relations", examples=["maps"])
    """Relations of queries, keys and values, or attention maps, which need slow (eager)
    attention."""


class Relation(Section):
    """Make distances and angles between the rows of a batch like the teacher's."""

    weight: float = Field(1.0, gt=0, examples=[3.0])
    """Weight of the difference, beside the cross-entropy and the divergence."""
