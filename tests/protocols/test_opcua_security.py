"""Certificates: made once, never weakened, refused with what to do."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from shopfloor.protocols.opcua_security import Trust, application_uri, generate, identity, thumbprint
from shopfloor.samples import Misconfigured

URI = "urn:server"


def certificate(  # a certificate has that many parts
    folder: Path,
    name: str,
    *,
    uri: str | None = URI,
    days: tuple[int, int] = (-1, 10),
    hosts: tuple[str, ...] = ("plc",),
    issuer: tuple[x509.Certificate, rsa.RSAPrivateKey] | None = None,
    authority: bool = False,
) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """A certificate and its key, written as NAME.der and NAME.pem."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    if uri is not None:
        names.append(x509.UniformResourceIdentifier(uri))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    (folder / f"{name}.der").write_bytes(made.public_bytes(Encoding.DER))
    (folder / f"{name}.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made, key


def der(made: tuple[x509.Certificate, rsa.RSAPrivateKey]) -> bytes:
    return made[0].public_bytes(Encoding.DER)


class TestOwn:
    def test_it_is_made_once(self, tmp_path: Path) -> None:
        """The second start uses the same: a person has trusted it on the server."""
        folder = tmp_path / "new" / "pki"
        first, second = identity(folder), identity(folder)
        assert first.certificate == second.certificate
        assert first.application_uri == application_uri(first.certificate)
        assert first.application_uri.startswith("urn:")

    def test_sources_that_begin_together_share_it(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: identity(tmp_path / "pki"), range(4)))
        assert len({own.certificate for own in found}) == 1

    def test_its_key_is_for_its_owner_only(self, tmp_path: Path) -> None:
        generate(tmp_path / "own.der", tmp_path / "own.pem")
        assert (tmp_path / "own.pem").stat().st_mode & 0o077 == 0

    def test_a_pair_that_a_person_gives(self, tmp_path: Path) -> None:
        """In DER or PEM; the application URI is the certificate's."""
        made, _ = certificate(tmp_path, "mine", uri="urn:mine")
        (tmp_path / "mine.crt").write_bytes(made.public_bytes(Encoding.PEM))
        for name in ("mine.der", "mine.crt"):
            assert identity(tmp_path, Path(name), Path("mine.pem")).application_uri == "urn:mine"

    def test_what_cannot_be_used_is_said(self, tmp_path: Path) -> None:
        certificate(tmp_path, "one")
        certificate(tmp_path, "other")
        certificate(tmp_path, "old", days=(-10, -1))
        certificate(tmp_path, "nameless", uri=None)
        (tmp_path / "text.der").write_text("no certificate")
        curve = ec.generate_private_key(ec.SECP256R1())
        (tmp_path / "curve.pem").write_bytes(curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        for cert, key, said in (
            ("one.der", "other.pem", "does not belong"),
            ("one.der", "missing.pem", "there is no private key"),
            ("missing.der", "one.pem", "there is no certificate"),
            ("text.der", "one.pem", "no X.509 certificate"),
            ("one.der", "text.der", "no private key"),
            ("one.der", "curve.pem", "no RSA key"),
            ("old.der", "old.pem", "valid from"),
            ("nameless.der", "nameless.pem", "application URI"),
        ):
            with pytest.raises(Misconfigured, match=said):
                identity(tmp_path, Path(cert), Path(key))

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "pki").write_text("a file")
        with pytest.raises(Misconfigured, match="pki"):
            identity(tmp_path / "pki")


class TestFirstSeen:
    def test_the_first_is_kept_and_another_refused(self, tmp_path: Path) -> None:
        """Without a trust list the log says once that the server was not verified."""
        trust = Trust(None, tmp_path / "first-seen" / "plc.der")
        known, other = certificate(tmp_path, "known"), certificate(tmp_path, "other")
        said = trust.check(der(known), URI, "plc")
        assert said is not None
        assert thumbprint(known[0]) in said
        assert trust.check(der(known), URI, "plc") is None
        with pytest.raises(Misconfigured, match=r"delete .*plc\.der") as refused:
            trust.check(der(other), URI, "plc")
        assert thumbprint(other[0]) in str(refused.value)


class TestTrustList:
    def test_a_listed_certificate(self, tmp_path: Path) -> None:
        made = certificate(tmp_path, "server")
        listed = tmp_path / "trusted"
        listed.mkdir()
        trust = Trust([listed], tmp_path / "unused")
        with pytest.raises(Misconfigured, match=r"not trusted.*trusted"):
            trust.check(der(made), URI, "plc")
        (listed / "server.der").write_bytes(der(made))
        assert trust.check(der(made), URI, "any name") is None
        assert not (tmp_path / "unused").exists()

    def test_one_that_an_authority_signed(self, tmp_path: Path) -> None:
        """The authority must be one, must be valid, and the certificate must be for the host."""
        authority = certificate(tmp_path, "authority", authority=True)
        trust = Trust([tmp_path / "authority.der"], tmp_path / "unused")
        good = certificate(tmp_path, "good", issuer=authority)
        assert trust.check(der(good), URI, "PLC") is None
        with pytest.raises(Misconfigured, match="plc, not for other"):
            trust.check(der(good), URI, "other")
        with pytest.raises(Misconfigured, match="made for"):
            trust.check(der(good), "urn:somebody", "plc")
        stranger = certificate(tmp_path, "stranger")
        with pytest.raises(Misconfigured, match="not trusted"):
            trust.check(der(stranger), URI, "plc")
        plain = certificate(tmp_path, "plain")
        signed = certificate(tmp_path, "signed", issuer=plain)
        with pytest.raises(Misconfigured, match="not trusted"):
            Trust([tmp_path / "plain.der"], tmp_path / "unused").check(der(signed), URI, "plc")

    def test_one_that_is_not_valid_now(self, tmp_path: Path) -> None:
        for name, days in (("old", (-10, -1)), ("young", (1, 10))):
            made = certificate(tmp_path, name, days=days)
            with pytest.raises(Misconfigured, match="clock"):
                Trust([tmp_path / f"{name}.der"], tmp_path / "unused").check(der(made), URI, "plc")

    def test_nonsense_instead_of_a_certificate(self, tmp_path: Path) -> None:
        with pytest.raises(Misconfigured, match="cannot be read"):
            Trust([], tmp_path / "unused").check(b"nonsense", URI, "plc")
        with pytest.raises(Misconfigured, match="there is no certificate"):
            Trust([tmp_path / "missing.der"], tmp_path / "unused").check(der(certificate(tmp_path, "any")), URI, "plc")
