"""Windows over texts that are longer than a model's context."""

from collections.abc import Iterator


def windows(n_tokens: int, max_length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Cut a text so that every token but the first is scored in exactly one window.

    Args:
        max_length: Most tokens in a window, at least 2.
        stride: Tokens by which windows overlap, from 1 to `max_length` - 1: each token is scored
            after at least so many others, where its text has them.

    Yields:
        (start, first, end): the window is [start, end), its tokens [first, end) are scored.

    >>> list(windows(10, max_length=5, stride=2))
    [(0, 1, 5), (3, 5, 8), (6, 8, 10)]
    """
    start, first = 0, 1
    while first < n_tokens:
        end = min(n_tokens, start + max_length)
        yield start, first, end
        first, start = end, end - stride
