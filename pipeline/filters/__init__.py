"""Filters: each looks at the samples that earlier filters kept, and rejects some with a reason.

Filters run in the order of `build.ORDER`. A filter has measures and a judge. A `Measure` computes a
value from one sample alone, such as its length; the values are cached. The judge compares the
values with thresholds or with one another, and decides which samples to reject.
"""
