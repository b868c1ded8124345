"""Merge methods of the user's own: Python functions on blocks, which the core streams.

1. `block`: what a function is given.
2. `declare`: `@mergeplan.method`, which makes a function a method that configs can name.
3. `loading`: the file that a user allows, and the entry point that a config names; nothing else is
   ever run.
4. `calls`: what the core calls, and what it gets back; what a function raises becomes a message.
5. `rules`: a method is tried on made-up values before the first of a merge.

The core cuts every tensor into the same blocks whatever the threads, chunks and devices, so that
the bytes of an output do not depend on them; see `rust/core/src/execute/group/custom.rs`.
"""

# However a process has come by a method, by a file or a package, `loading` sends it to others.
from mergeplan.custom import loading as loading
