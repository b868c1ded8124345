"""Methods that look at whole vectors of their inputs; see `rust/core/src/execute/group`.

One file for each method, of the same name. `inputs` is what they share of a job, `sums` and `order`
what they find out about a whole tensor, `vectors` about each of its rows or columns. `methods`
finds a job's. May import its parent's `program` and below.
"""
