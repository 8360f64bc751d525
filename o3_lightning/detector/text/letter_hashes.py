"""Keyed hashes of words and of any run of letters in a text, many at once.

A polynomial over the letters, modulo 2^64, gives the hash of every substring from one pass; a keyed BLAKE2b
of it is what is stored, so that the stored number cannot be inverted letter by letter. Whoever holds the key
can still test whether a guessed name is stored.
Shape letters: N letters.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.uint64]
Codes = NDArray[np.uint32]
ASCII = 128
MIX = np.uint64(0x9E3779B97F4A7C15)
MODULUS = 1 << 64


def letter_codes(text: str) -> Codes:
    """Returns the code points of a text, uint32 [N]."""
    return np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32)


class LetterHashes:
    """The hash functions of one salt.

    Args:
        salt: up to 32 bytes.
    """

    def __init__(self, salt: bytes) -> None:
        self.salt = salt
        stream = b"".join(blake2b(bytes([n]), key=salt).digest() for n in range(ASCII * 8 // 64 + 1))
        numbers = np.frombuffer(stream, dtype=np.uint64)
        self.letters = numbers[:ASCII]
        self.base = int(numbers[ASCII]) | 1
        self.wildcard = int(numbers[ASCII + 1])

    def values(self, codes: Codes) -> Integers:
        """Returns the value of each letter [N]."""
        low = self.letters[np.minimum(codes, ASCII - 1)]
        return (
            low if not len(codes) or codes.max() < ASCII else np.where(codes < ASCII, low, codes * MIX ^ low)
        )

    def hash_text(self, text: str) -> int:
        """Returns the polynomial hash of a word; "*" stands for any letter."""
        total = 0
        for char, value in zip(text, self.values(letter_codes(text)).tolist(), strict=True):
            total = (total * self.base + (self.wildcard if char == "*" else value)) % MODULUS
        return total

    def seal(self, number: int) -> int:
        """Returns the number that is stored for a polynomial hash, an int64 above 0."""
        digest = blake2b(number.to_bytes(8, "big"), key=self.salt, digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1 | 1


class LetterStream:
    """The hash of every run of letters in a text.

    Args:
        hashes: of a salt.
        codes: code points of the letters [N].
    """

    def __init__(self, hashes: LetterHashes, codes: Codes) -> None:
        count = len(codes) + 1
        self.powers = powers(hashes.base, count)
        self.wildcard = np.uint64(hashes.wildcard)
        scaled = hashes.values(codes) * powers(pow(hashes.base, -1, MODULUS), count)[:-1]
        self.sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(scaled, dtype=np.uint64)])

    def runs(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Integers:
        """Returns the hashes of the runs [start, end); an empty run hashes to 0."""
        found: Integers = (self.sums[ends] - self.sums[starts]) * self.powers[np.maximum(ends - 1, 0)]
        return found

    def without(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64], at: NDArray[np.int64]
    ) -> tuple[Integers, Integers]:
        """Returns the hashes of runs with one letter left out, and with it replaced by the wildcard."""
        head, tail, after = self.runs(starts, at), self.runs(at + 1, ends), self.powers[ends - at - 1]
        return head * after + tail, (head * self.powers[1] + self.wildcard) * after + tail


def powers(base: int, count: int) -> Integers:
    """Returns base^0 to base^(count - 1) modulo 2^64."""
    factors = np.full(count, base % MODULUS, dtype=np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)
