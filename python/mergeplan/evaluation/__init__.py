"""Token cross-entropy of models on held-out text.

`documents` reads files, `encoding` turns documents into tokens of which some are scored, `windows`
cuts them for a model's context, `texts` prepares all of that once, `scoring` runs a model over it,
`scores` holds the sums by document and what can be said of them. `halves` cuts the documents of a
domain in two, `measured` reads what a run has scored, `resampling` draws its documents anew.

`measure` says what texts have in common with other measures: `scorer` runs a file of the user's,
and `own_documents` is what it is given; `harness` runs downstream tasks, `task_items` are theirs.

May import pool and below; torch and transformers only in what needs them.
"""
