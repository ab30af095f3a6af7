"""Filters: each looks at the samples that earlier filters kept, and rejects some with a reason.

They run in the order of `build.ORDER`; the first filter that rejects a sample decides its reason.
What a filter must know of one sample by itself is a `Measure`, computed once and cached. Its
`judge` holds the thresholds, and whatever compares samples with one another.
"""
