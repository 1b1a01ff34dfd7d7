"""Certificates of OPC UA: Shopfloor's own, and which server certificates it trusts.

A folder holds them: ``own.der`` and ``own.pem`` (certificate and key, made when they are first needed and
never replaced by itself), ``trusted/`` (certificates and authorities that a person put there) and
``first-seen/`` (the certificate that a server showed at the first contact, where no trust list is given).
Nothing here weakens security by itself: what does not fit is Misconfigured, with what to do.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shopfloor.samples import Misconfigured

VALID: Final = timedelta(days=3652)
"""Of a generated certificate: ten years, because a person must trust it again on every server when it ends."""
_BITS: Final = 2048
_GENERATING: Final = Lock()
"""Sources of one plant begin at the same time and share the pair."""
_MOST_REFUSED: Final = 100
"""Certificates of refused clients that are kept: anybody can send new ones for ever."""
_SUFFIXES: Final = (".der", ".pem", ".crt", ".cer")


@dataclass(frozen=True)
class Identity:
    """Who Shopfloor is to a server."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    application_uri: str
    """As the certificate says it: a server refuses a client whose session says otherwise."""


def thumbprint(certificate: x509.Certificate) -> str:
    """The SHA-1 thumbprint, as servers' trust lists show it."""
    return certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303  # OPC 10000-6 names certificates by SHA-1


def subject(certificate: x509.Certificate) -> str:
    """The common name, or the whole subject where there is none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def application_uri(certificate: x509.Certificate) -> str | None:
    """The application URI that the certificate was made for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    return found[0] if found else None


def identity(folder: Path, certificate: Path | None = None, key: Path | None = None) -> Identity:
    """The certificate and key in these files (relative to ``folder``), or Shopfloor's own, made if missing.

    Raises Misconfigured when a file is missing, unreadable, not valid now or does not fit the other.
    """
    if certificate is None or key is None:
        certificate, key = folder / "own.der", folder / "own.pem"
        with _GENERATING:
            if not certificate.exists() and not key.exists():
                generate(certificate, key)
    certificate, key = folder / certificate, folder / key
    own, private = _certificates(certificate)[0], _key(key)
    if own.public_key() != private.public_key():
        raise Misconfigured(f"the key {key} does not belong to the certificate {certificate}; give the pair")
    now = datetime.now(UTC)
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        raise Misconfigured(
            f"the certificate {certificate} is valid from {own.not_valid_before_utc:%Y-%m-%d} to "
            f"{own.not_valid_after_utc:%Y-%m-%d} only; replace it (delete it and {key.name} to have a new pair made) "
            "and trust the new one on the server"
        )
    uri = application_uri(own)
    if uri is None:
        raise Misconfigured(
            f"the certificate {certificate} names no application URI; OPC UA needs one as URI in the subject "
            "alternative name"
        )
    return Identity(own, private, uri)


def generate(certificate: Path, key: Path) -> None:
    """Makes a key and a self-signed application instance certificate (OPC 10000-6, 6.2.2)."""
    host = socket.gethostname()
    private = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Shopfloor on {host}"[:64])])
    now = datetime.now(UTC)
    public = private.public_key()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # a server whose clock is a little behind must not refuse it
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:{host}:shopfloor"), x509.DNSName(host)]),
            critical=False,
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=True,
                key_encipherment=True,
                data_encipherment=True,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )
    try:
        _write(key, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        _write(certificate, made.public_bytes(Encoding.DER), 0o644)
    except OSError as error:
        raise Misconfigured(
            f"Shopfloor's certificate cannot be stored in {certificate.parent}: {error.strerror}; "
            "make the folder writable or set `pki` to one that is"
        ) from error


def _write(file: Path, content: bytes, mode: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:  # noqa: PTH123  # with a mode
        opened.write(content)


@dataclass(frozen=True)
class Trust:
    """Decides about server certificates."""

    listed: Sequence[Path] | None
    """Files and folders of trusted certificates and authorities; None: trust what is seen first."""
    seen: Path
    """Where the certificate seen first is kept."""

    def check(self, der: bytes, server_uri: str | None, host: str) -> str | None:
        """Raise Misconfigured unless this server certificate is to be trusted.

        Returns a sentence for the log when it was taken on trust now, else None.
        """
        try:
            shown = x509.load_der_x509_certificate(der)
        except ValueError as error:
            raise Misconfigured(f"the server's certificate cannot be read ({error}); renew it on the server") from error
        told = f"“{subject(shown)}” with thumbprint {thumbprint(shown)}"
        if self.listed is not None:
            trusted = [c for path in self.listed for c in _certificates(path)]
            if shown not in trusted:
                _signed(shown, trusted, host, told, self.listed)
            _valid(shown, told)
            _fits(shown, server_uri, told)
            return None
        if self.seen.exists():
            known = _certificates(self.seen)[0]
            if known != shown:
                raise Misconfigured(
                    f"the server shows another certificate ({told}) than at the first contact (thumbprint "
                    f"{thumbprint(known)}); if it was renewed on purpose, delete {self.seen}"
                )
            return None
        _write(self.seen, shown.public_bytes(Encoding.DER), 0o644)
        return (
            f"the server's certificate {told} was not verified, because no trust list is given; from now on only this "
            f"one is accepted (kept as {self.seen.name})"
        )


class Untrusted(Exception):
    """This client's certificate is not to be trusted; the text says why and what to do."""


@dataclass(frozen=True)
class ClientTrust:
    """Decides about the certificates of clients that connect to a server of ours."""

    listed: Sequence[Path]
    """Files and folders of trusted certificates and authorities; what is not there is taken for empty."""
    refused: Path
    """The folder where certificates that were refused are put, for a person to move them into a trusted one."""

    def check(self, der: bytes) -> x509.Certificate:
        """The certificate, when it is valid now and trusted. Raises Untrusted, Misconfigured for unreadable files."""
        try:
            shown = x509.load_der_x509_certificate(der)
        except ValueError as error:
            raise Untrusted(f"its certificate cannot be read: {error}") from error
        told = f"“{subject(shown)}” with thumbprint {thumbprint(shown)}"
        now = datetime.now(UTC)
        if not shown.not_valid_before_utc <= now <= shown.not_valid_after_utc:
            raise Untrusted(
                f"its certificate {told} is valid from {shown.not_valid_before_utc:%Y-%m-%d} to "
                f"{shown.not_valid_after_utc:%Y-%m-%d} only; renew it there, or set this machine's clock right"
            )
        trusted = [c for path in self.listed if path.exists() for c in _certificates(path)]
        if shown in trusted or any(_issued(shown, authority) for authority in trusted):
            return shown
        kept = self._keep(shown)
        where = f"move {kept}" if kept is not None else "copy it from there"
        raise Untrusted(f"its certificate {told} is not trusted; check it, then {where} to {self.listed[0]}")

    def _keep(self, shown: x509.Certificate) -> Path | None:
        """Where it was put; None when there are too many already or the disk refuses."""
        file = self.refused / f"{thumbprint(shown)}.der"
        try:
            if not file.exists():
                if self.refused.is_dir() and sum(1 for _ in self.refused.iterdir()) >= _MOST_REFUSED:
                    return None
                _write(file, shown.public_bytes(Encoding.DER), 0o644)
        except OSError:
            return None
        return file


def _issued(shown: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether this certificate is an authority's, valid now, that signed the other one."""
    try:
        shown.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    now = datetime.now(UTC)
    return _authority(authority) and authority.not_valid_before_utc <= now <= authority.not_valid_after_utc


def _valid(shown: x509.Certificate, told: str) -> None:
    now = datetime.now(UTC)
    if not shown.not_valid_before_utc <= now <= shown.not_valid_after_utc:
        raise Misconfigured(
            f"the server's certificate {told} is valid from {shown.not_valid_before_utc:%Y-%m-%d} to "
            f"{shown.not_valid_after_utc:%Y-%m-%d} only; renew it on the server, or set this machine's clock right"
        )


def _fits(shown: x509.Certificate, server_uri: str | None, told: str) -> None:
    uri = application_uri(shown)
    if server_uri and uri != server_uri:
        raise Misconfigured(
            f"the server calls itself {server_uri}, but its certificate {told} was made for {uri}; "
            "renew the certificate on the server"
        )


def _signed(
    shown: x509.Certificate, trusted: Sequence[x509.Certificate], host: str, told: str, listed: Sequence[Path]
) -> None:
    """Raise Misconfigured unless one of the trusted authorities signed the certificate for this host."""
    for authority in trusted:
        try:
            shown.verify_directly_issued_by(authority)
        except (InvalidSignature, ValueError, TypeError):
            continue
        if not _authority(authority):
            continue
        _valid(authority, f"authority “{subject(authority)}”")
        hosts = _hosts(shown)
        if hosts and host.lower() not in hosts:
            raise Misconfigured(
                f"the server's certificate {told} is for {', '.join(sorted(hosts))}, not for {host}; use one of these "
                "names in `endpoint`, or trust the certificate itself"
            )
        return
    where = ", ".join(str(path) for path in listed)
    raise Misconfigured(f"the server's certificate {told} is not trusted; check it and copy it to {where}")


def _authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {n.lower() for n in names.get_values_for_type(x509.DNSName)} | {
        str(a) for a in names.get_values_for_type(x509.IPAddress)
    }


def _certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a file, or of every certificate file in a folder. Raises Misconfigured."""
    try:
        if path.is_dir():
            files = sorted(f for f in path.iterdir() if f.suffix.lower() in _SUFFIXES)
            return [c for f in files for c in _certificates(f)]
        content = path.read_bytes()
        if b"-----BEGIN" in content:
            return x509.load_pem_x509_certificates(content)
        return [x509.load_der_x509_certificate(content)]
    except FileNotFoundError as error:
        raise Misconfigured(f"there is no certificate {path}; put it there or correct the plant file") from error
    except OSError as error:
        raise Misconfigured(f"the certificate {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Misconfigured(f"{path} is no X.509 certificate in DER or PEM form: {error}") from error


@lru_cache(16)
def _loaded(content: bytes) -> PrivateKeyTypes:
    """Each key is read once in a process: that checks it, which holds all threads for fifty milliseconds."""
    load = load_pem_private_key if b"-----BEGIN" in content else load_der_private_key
    return load(content, None)


def _key(path: Path) -> rsa.RSAPrivateKey:
    try:
        content = path.read_bytes()
        key = _loaded(content)
    except FileNotFoundError as error:
        raise Misconfigured(f"there is no private key {path}; put it there or correct the plant file") from error
    except OSError as error:
        raise Misconfigured(f"the private key {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise Misconfigured(f"{path} is no private key in DER or PEM form without a password: {error}") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Misconfigured(f"{path} is no RSA key; OPC UA's security policies need one")
    return key
