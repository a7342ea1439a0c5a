"""Messages of an exact packed length."""

from msgpack import packb


def of_length(n):
    """A truthy value that packs to exactly `n` bytes: a str up to the widest str16, or 1, or one of these in arrays.

    A longer str stays in an array, because a sender cannot widen the header of a bare str32.
    """
    if n == 1:
        return 1
    if n > 3 + 0xFFFF:
        return [str_of_length(n - 1) or of_length(n - 1)]
    return str_of_length(n) or [of_length(n - 1)]


def str_of_length(n):
    """The str that packs to exactly `n` bytes, or "" where there is none: at 1, 33, 258, 65539 and 65540."""
    for header in (1, 2, 3, 5):
        text = "x" * (n - header)
        if len(packb(text)) == n:
            return text
    return ""
