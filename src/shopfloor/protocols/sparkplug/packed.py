"""Payloads that are compressed as a whole, a form older than Sparkplug 3.0 which its libraries still offer.

The payload inside is the ``body`` of one that the uuid ``SPBV1.0_COMPRESSED`` marks, by zlib or gzip; a metric may
say which, but their first bytes do so too.
"""

import zlib
from typing import Final

from shopfloor.protocols.sparkplug.decoding import decode
from shopfloor.protocols.sparkplug.limits import LARGEST_PAYLOAD, Malformed
from shopfloor.protocols.sparkplug.model import Payload

MARK: Final = "SPBV1.0_COMPRESSED"
_EITHER: Final = 32 + zlib.MAX_WBITS
"""zlib's own or gzip's header, whichever comes."""


def decode_packed(data: bytes, *, legacy_uint32_in_long: bool = False) -> Payload:
    """What a payload says, compressed or not; raises Malformed also for what cannot be unpacked."""
    payload = decode(data, legacy_uint32_in_long=legacy_uint32_in_long)
    if payload.uuid != MARK:
        return payload
    return decode(_unpacked(payload.body or b""), legacy_uint32_in_long=legacy_uint32_in_long)


def _unpacked(body: bytes) -> bytes:
    """The bytes inside; never more than a payload may have, whatever they would become."""
    unpacker = zlib.decompressobj(_EITHER)
    try:
        found = unpacker.decompress(body, LARGEST_PAYLOAD + 1)
    except zlib.error as error:
        raise Malformed(f"a compressed payload that cannot be unpacked: {error}") from error
    if not unpacker.eof:
        text = f"of more than {LARGEST_PAYLOAD} bytes" if len(found) > LARGEST_PAYLOAD else "without an end"
        raise Malformed(f"a compressed payload {text}")
    return found
