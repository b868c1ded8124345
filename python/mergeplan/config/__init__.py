"""mergekit's YAML, in and out: its methods, their options, and which value a tensor gets.

May import checkpoints and below; it opens none, but for telling an adapter from a model.
"""
