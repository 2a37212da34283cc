"""Huffman codes of a stream of small numbers, canonical: a table of how many codes have which length is enough."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from bitarray import bitarray
from bitarray.util import canonical_decode, canonical_huffman

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Symbols = NDArray[np.uint8]


def encode(symbols: Symbols) -> tuple[bytes, bitarray]:
    """The code's table and the coded stream, of numbers 0 to 255.

    The table: the largest length L (one byte), how many codes there are of lengths 1 to L (two bytes each, little
    endian), the numbers in the order of their codes (one byte each). A single number has a code of one bit; a stream
    of none an empty table.
    """
    coded = bitarray(endian="big")
    if not len(symbols):
        return b"\0", coded
    found, counts = np.unique(symbols, return_counts=True)
    code, lengths, order = canonical_huffman(dict(zip(found.tolist(), counts.tolist())))
    coded.encode(code, symbols.tolist())
    return bytes([len(lengths) - 1]) + np.array(lengths[1:], "<u2").tobytes() + bytes(order), coded


def decode(table: bytes, coded: bytes, count: int) -> Symbols:
    """The `count` numbers of a stream; bits that follow them do not matter. Raises ValueError where it ends early."""
    if not count:
        return np.zeros(0, np.uint8)
    longest = table[0]
    lengths = [0, *np.frombuffer(table, "<u2", longest, 1).tolist()]
    bits = bitarray(endian="big")
    bits.frombytes(coded)
    read = canonical_decode(bits, lengths, list(table[1 + 2 * longest :]))
    found = np.fromiter(islice(read, count), np.uint8)
    if len(found) != count:
        raise ValueError(f"a stream of {count} numbers ends after {len(found)}")
    return found
