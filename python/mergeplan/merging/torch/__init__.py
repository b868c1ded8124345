"""Merging by torch, in little device memory: on a GPU, or on a CPU with the same code.

The plan, the files that are read and written, the journal and the manifest are those of the Rust
core; here is another way to compute a tensor, for those jobs that the device can take.

1. `device`: which devices there are, and how much of their memory may be used.
2. `loading`: pieces of a tensor's inputs, from the files through pinned memory (`host`) to the
   device, by a thread and on a stream of their own.
3. `sweeps`: going over those pieces again and again; what fits stays on the device.
4. `program`: what a method is here; `programs` finds a job's, in `linear`, `deltas` and `group`.
   `philox` draws the masks, in one kernel where `philox_fused` runs.
5. `storing`: finished pieces, back through pinned memory into the files, by a thread of its own.
6. `engine`: `worker`s, each in a `place`, and what happens when a device fails; `task` is what they
   do.
7. `device_runner` merges into files so, `into_memory` into loaded models.

Nothing here decides what comes out. Pieces, limits, workers and devices change no byte of it; the
core computes what is too small to be worth the way or too large for the limit, every job whose
inputs are not all finite, and all of them once no device is left.

May import `runner` of merging, what it needs, and below; torch at the top, so import it late.
"""
