"""The whole path on a small pool that comes with the package, in `pool/`.

Beside the cli: it imports what a user's script would.
"""
