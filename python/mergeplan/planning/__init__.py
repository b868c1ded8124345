"""From a config and headers to a plan: one job for each output tensor, every option resolved.

`plan` is data; `planner` chooses between our jobs and mergekit's. May import config and below.
"""
