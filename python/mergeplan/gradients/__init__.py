"""Gradients of a merge's losses along the experts' weights: measured by one backward pass.

`pieces` finds a merge's tensors in the gradients of a model's parameters, `backward` runs a model
over texts and hands each gradient to `merging.slopes` as soon as it is there, and `memory` decides
how many of them are kept meanwhile.
"""
