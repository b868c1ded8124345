"""Methods that look at whole vectors of their inputs; see `rust/core/src/execute/group`.

One file for each method, of the same name. `group` is what they share of a job, `sums` and `order`
what they find out about a whole tensor, `vectors` about each of its rows or columns.
"""
