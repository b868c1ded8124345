"""The merging law: formulas, fits with their uncertainty, and what they recommend.

Formulas, fitting, deciding, writing YAML and drawing stay apart. May import evaluation and below.
"""
