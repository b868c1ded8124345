"""LoRA adapters: what their files and settings mean, and where it belongs in a base.

Nothing is imported here, so that a command loads only what it needs.
"""
