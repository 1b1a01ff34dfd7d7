"""The checksum of a row of the dictionary of names."""

from zlib import crc32


def name_checksum(number: int, name: str) -> int:
    """CRC-32 over id and name."""
    return crc32(name.encode(), number)
