"""Merges that mergekit plans and our core executes: tokenizers, modules, packed weights.

mergekit is a package of its own (`pip install 'mergeplan[mergekit]'`), and takes seconds to import:
only `planner` loads it, which `process` calls. mergekit decides what belongs together and which
value every option takes; each of its tasks then becomes a job of the core. What the core cannot do,
mergekit's own executor computes, tensor by tensor (`executor`).

Nothing here lets mergekit read a weight, download a model or merge an adapter: its loaders are
replaced by ours (`models`), which know every checkpoint that mergeplan can open.

May import planning's `plan` and `lowering`, what they need, and below.
"""
