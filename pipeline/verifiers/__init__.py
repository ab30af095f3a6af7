"""Verifiers: each checks an answer against the ground truth, by the rules of one kind of task.

`label`, `exact` and `numeric` are string operations (scorers.py). `math`, `json` and `code` can
hang, use too much memory or crash, so they run in processes that are killed when they do. The
result of such an answer is *unknown*, never wrong.
"""
