"""Random words, and what keys them."""

def philox4x32_10(counter: list[int], key: list[int]) -> list[int]:
    """One block of the generator behind random masks: four 32-bit words from a counter of four and
    a key of two."""

def stream_id(tensor: str, fingerprint: int) -> int:
    """Upper half of the generator's counter for a tensor of an expert with this fingerprint."""

def fingerprint(data: bytes) -> int:
    """What keys the random masks of a tensor with these stored bytes.

    A hash of all of them up to 1 MiB; above, of the first 1,024 of every 16,384 bytes and of the
    last 1,024. Tensors that agree there share a mask.
    """
