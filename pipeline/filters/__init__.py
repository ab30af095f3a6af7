"""Filters: each judges all samples that are left and says of some why they are turned down.

They run in the order of `build.ORDER`; a sample is turned down by the first that objects, and later ones do not see it. What a filter has
to know of a sample by itself is a `Measure`, found once and kept; its `judge` holds thresholds and whatever looks at many samples together.
"""
