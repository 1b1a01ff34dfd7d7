"""Certificate files: what is wrong with them, and the TLS settings that they make."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from shopfloor.samples import Misconfigured


class TlsFiles(Protocol):
    """The fields of a config model that name certificates, all PEM."""

    @property
    def ca_file(self) -> Path | None: ...  # noqa: D102  # the models' fields document each
    @property
    def certificate_file(self) -> Path | None: ...  # noqa: D102
    @property
    def key_file(self) -> Path | None: ...  # noqa: D102
    @property
    def key_password(self) -> SecretStr | None: ...  # noqa: D102


def file_problems(settings: TlsFiles) -> Iterator[tuple[str, str]]:
    """What is wrong with the files that the settings name: (field, text). Reads them, touches no network."""
    for name in ("ca_file", "certificate_file", "key_file"):
        path: Path | None = getattr(settings, name)
        if path is not None and not path.is_file():
            yield name, f"there is no file {path}; give the path of a PEM file, relative to the plant file"
            return
    try:
        tls_context(settings)
    except Misconfigured as error:
        yield "ca_file" if settings.certificate_file is None else "certificate_file", str(error)


def tls_context(settings: TlsFiles) -> ssl.SSLContext:
    """The TLS settings; reads the files. Raises Misconfigured for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise Misconfigured(f"{settings.ca_file} is no PEM file of certificates: {error}") from error
    if settings.certificate_file is not None and settings.key_file is not None:
        password = "" if settings.key_password is None else settings.key_password.get_secret_value()
        try:
            context.load_cert_chain(settings.certificate_file, settings.key_file, password)
        except (OSError, ValueError) as error:
            raise Misconfigured(
                f"{settings.certificate_file} and {settings.key_file} are no pair of certificate and key "
                f"(PEM, with the right key_password): {error}"
            ) from error
    return context
