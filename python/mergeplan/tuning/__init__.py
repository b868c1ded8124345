"""Weights of a merge, tuned by gradients: one for each expert, or one for each of its layers.

`groups` says which tensors share a weight and `recipe` writes such weights as mergekit's YAML;
`split` parts the documents, `aim` is what is made small, `curvature` and `step` say where to go
next; `points` has what is measured, by `measuring` here or by `cluster` on Ray, and `folder` keeps
it; `search` is the loop, `tune` the way from a pool to a result, which `result` tells.
"""
