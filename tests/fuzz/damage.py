"""Families of damage to the bytes of a file: each a function of the bytes and of a random generator."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes]
MOST = 1 << 20  # bytes; inputs do not grow beyond


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flipped_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flipped_in_header(data: bytes, rng: random.Random) -> bytes:
    return flipped_bits(data[:256], rng) + data[256:]


def other_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    start, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 64))
    changed[start : start + length] = rng.randbytes(length)
    return bytes(changed)


def random_behind_magic(data: bytes, rng: random.Random) -> bytes:
    kept = rng.choice((4, 8, 16, 64, 128))
    return data[:kept] + rng.randbytes(rng.choice((0, 16, 200, 2000)))


def removed(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 4, 16, 256)) :]


def repeated(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data) + 1), rng.choice((1, 16, 256))
    return (data[:start] + data[start : start + length] * rng.choice((2, 8, 64)) + data[start:])[:MOST]


NUMBERS = (0, 1, 0x7F, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


def lying_number(data: bytes, rng: random.Random) -> bytes:
    """A length, an offset or a count that says something else, in either order of bytes."""
    width = rng.choice((2, 4, 8))
    if len(data) < width:
        return data
    start = rng.randrange(min(len(data) - width, rng.choice((64, 512, MOST))) + 1)
    value = rng.choice(NUMBERS) & ((1 << 8 * width) - 1)
    return data[:start] + value.to_bytes(width, rng.choice(("little", "big"))) + data[start + width :]


DIGITS = re.compile(rb"\d+")
TEXTS = (
    b"0",
    b"-1",
    b"1000000000000",
    b"9" * 400,
    b"1e999",
    b"NaN",
    b"null",
    b'"x"',
    b"[" * 200,
    b"{}",
    b"true",
)


def lying_text(data: bytes, rng: random.Random) -> bytes:
    """A number in a header of text that says something else."""
    found = list(DIGITS.finditer(data[: rng.choice((200, 2000, MOST))]))
    if not found:
        return other_bytes(data, rng)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(TEXTS) + data[match.end() :]


FAMILIES: dict[str, Damage] = {
    family.__name__: family
    for family in (
        *(truncated, flipped_bits, flipped_in_header, other_bytes, random_behind_magic),
        *(removed, repeated, lying_number, lying_text),
    )
}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Damage of one to three families."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(list(FAMILIES.values()))(data, rng)
    return data
