"""Certificates for tests: an authority of the test's own that signs servers and clients."""

from pathlib import Path
from typing import NamedTuple

import trustme


class Identity(NamedTuple):
    """A certificate (with its chain) and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority that lives in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        """Write the authority's certificate to ``ca.pem`` in ``folder``, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA()
        self.certificate = folder / "ca.pem"
        """What the other side has to trust."""
        self._authority.cert_pem.write_to_path(str(self.certificate))

    def issue(self, *names: str, common_name: str | None = None) -> Identity:
        """An identity for these host names, addresses or e-mail addresses."""
        issued = self._authority.issue_cert(*names, common_name=common_name)
        stem = (common_name or names[0]).replace("/", "_")
        identity = Identity(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        issued.private_key_pem.write_to_path(str(identity.key))
        identity.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return identity

    def server(self) -> Identity:
        """An identity for a server on this machine's loopback."""
        return self.issue("localhost", "127.0.0.1", "::1")

    def client(self, name: str) -> Identity:
        """An identity for a client that brokers know as ``name``."""
        return self.issue(f"{name}@shopfloor.test", common_name=name)
