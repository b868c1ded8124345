"""Merges measured on this machine, beside mergekit and a plain copy.

Beside the cli: it runs mergeplan in processes of its own, and imports config and below.
"""
