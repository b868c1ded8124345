"""A LoRA adapter out of a fine-tuned model and its base.

`factors` is the algebra of one matrix, `layers` says which tensors are factorised, `file` writes
the adapter, and `extract` streams the model through them.
"""
