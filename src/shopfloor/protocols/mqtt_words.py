"""What is said when a broker cannot be used: what is wrong, and what a person can do about it."""

import errno
import os
import socket
import ssl
from typing import Final

_REASONS: Final = {
    0x01: "it does not speak this MQTT version",
    0x02: "it does not like the client_id",
    0x03: "it is not available",
    0x04: "user name or password is wrong",
    0x05: "not authorized",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "it does not speak this MQTT version",
    0x85: "it does not like the client_id",
    0x86: "user name or password is wrong",
    0x87: "not authorized",
    0x88: "it is not available",
    0x89: "it is busy",
    0x8A: "this client is banned",
    0x8B: "it is shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep alive timeout",
    0x8E: "another client connected with the same client_id",
    0x8F: "the topic filter is not allowed",
    0x90: "the topic is not allowed",
    0x93: "more messages in flight than it allows",
    0x95: "the packet is too large",
    0x96: "messages come too fast",
    0x97: "quota exceeded",
    0x98: "an administrator closed the connection",
    0x99: "it does not accept the payload's format",
    0x9A: "it does not retain messages",
    0x9B: "it does not support this QoS",
    0x9C: "another server is to be used",
    0x9D: "it has moved",
    0x9E: "it does not support shared subscriptions",
    0x9F: "too many connections",
    0xA2: "it does not support wildcards in subscriptions",
}
_VERSION: Final = "set another `version`"
_CLIENT_ID: Final = "set another `client_id`; up to 23 letters and digits are allowed everywhere"
_CREDENTIALS: Final = "correct `username` and `password`"
_RIGHTS: Final = "give `username` and `password`, or allow this user and `client_id` in the broker's access list"
_LOG: Final = "the broker's log says why"
_LATER: Final = "it is tried again; if it stays so, the broker's log says why"
_LIMIT: Final = "raise this limit at the broker"
_MOVED: Final = "enter the address of the other one as `servers`"
_REMEDIES: Final = {
    0x01: _VERSION, 0x02: _CLIENT_ID, 0x03: _LATER, 0x04: _CREDENTIALS, 0x05: _RIGHTS,
    0x81: _VERSION, 0x82: _VERSION, 0x84: _VERSION, 0x85: _CLIENT_ID, 0x86: _CREDENTIALS, 0x87: _RIGHTS,
    0x88: _LATER, 0x89: _LATER, 0x8B: _LATER,
    0x8A: "lift the ban at the broker, or set another `client_id`",
    0x8C: "let the broker take user name and password, nothing else can be given here",
    0x8D: "see whether the network is slow; a longer `keep_alive` bears more",
    0x8E: "give each of the two a `client_id` of its own",
    0x93: "set a smaller `in_flight`", 0x95: _LIMIT, 0x96: _LIMIT, 0x97: _LIMIT, 0x9F: _LIMIT,
    0x9C: _MOVED, 0x9D: _MOVED,
}  # fmt: skip
_SUBSCRIBING: Final = {
    0x9E: "take `$share/…` out of the topic",
    0xA2: "name each topic, without `+` and `#`",
    0x97: _LIMIT,
}
_EXPIRED: Final = (9, 10)
"""OpenSSL's X509_V_ERR: not yet valid, has expired."""
_OTHER_NAME: Final = (62, 64)
"""OpenSSL's X509_V_ERR: host name mismatch, IP address mismatch."""
TLS_ALERT: Final = 0x15
"""The first byte of what a TLS server says to somebody who does not speak TLS."""


def reason_text(code: int) -> str:
    """A reason code in words."""
    return _REASONS.get(code, f"reason code 0x{code:02x}")


def refusal_text(code: int) -> str:
    """Why a broker refuses or ends a connection, and what to do."""
    return f"{reason_text(code)}; {_REMEDIES.get(code, _LOG)}"


def forbidden(topic: str, code: int) -> str:
    """Why a subscription is refused, and what to do."""
    remedy = _SUBSCRIBING.get(code, "allow it in the broker's access list or change the topic")
    return f"the broker does not let us subscribe to {topic}: {reason_text(code)}; {remedy}"


def malformed(what: str) -> str:
    """What is said of a broker that breaks the protocol."""
    return (
        f"the broker sent a malformed {what}; see whether something other than a broker is at this address or "
        "between, and set another `version`"
    )


def no_broker(first: int) -> str:
    """What is said when the answer to CONNECT begins with this byte, which is not that of an MQTT broker."""
    if first == TLS_ALERT:
        return "it wants TLS at this port; write the address as mqtts://… or use the broker's port without TLS"
    return (
        f"it does not answer as an MQTT broker does (first byte 0x{first:02x}); see whether address and port are those "
        "of the broker"
    )


def unreachable(host: str, error: OSError, *, tls: bool) -> str:
    """Why no connection comes about, and what to do."""
    if isinstance(error, socket.gaierror):
        return f"the name {host} cannot be resolved ({error.strerror}); correct it in `servers`, or see to the DNS"
    text = error.strerror or str(error)
    # Where a name has several addresses asyncio gives their errors as one text.
    if error.errno == errno.ECONNREFUSED or os.strerror(errno.ECONNREFUSED) in text:
        return f"cannot be reached: {text}; see whether the broker runs and listens at this port"
    if error.errno == errno.ECONNRESET:
        if tls:
            return (
                f"{text} while TLS was agreed on; there may be no TLS at this port (write the address as mqtt://…), or "
                "it wants a certificate that it trusts: `certificate_file`, `key_file`"
            )
        return f"{text}; {closed_unanswered(tls=tls)}"
    return f"cannot be reached: {text}; see to the network, the address and the broker"


def silent(seconds: float) -> str:
    """What is said when nothing answered for this long while connecting."""
    return (
        f"no answer within {seconds:g} s; see whether address and port are right, no firewall is between, and whether "
        "the broker wants TLS there (mqtts://…)"
    )


def unacknowledged(seconds: float) -> str:
    """What is said when a broker that answers acknowledges nothing for this long."""
    return f"the broker acknowledged nothing for {seconds:g} s; {_LATER}"


def closed_unanswered(*, tls: bool) -> str:
    """What to do when the connection was closed instead of answered."""
    if tls:
        return "it may want a certificate that it trusts: `certificate_file`, `key_file`; else its log says why"
    return "it may want TLS (mqtts://…); else its log says why"


def untrusted(error: ssl.SSLCertVerificationError) -> str:
    """Why the certificate of a broker is not accepted, and what to do."""
    if error.verify_code in _OTHER_NAME:
        remedy = "write in `servers` the name that is in the certificate, or give it as `server_name`"
    elif error.verify_code in _EXPIRED:
        remedy = "renew it at the broker, and see whether the clock here is right"
    else:
        remedy = "give its authority as `ca_file`"
    return f"the broker's certificate is not accepted: {error.verify_message}; {remedy}"


def tls_refusal(error: BaseException) -> str:
    """Why TLS does not come about, and what to do."""
    if "ALERT" in str(error).upper():
        return f"the broker refuses our certificate or TLS version ({error}); give `certificate_file` and `key_file`"
    return f"no TLS at this port ({error}); write the address as mqtt://… or use the broker's TLS port"
