"""A schema registry by Confluent's own client: its settings, and what its errors mean to the pipeline.

Every call blocks; the pipeline retries, so the client itself does not. It is loaded when one is made, not before.
"""

import json
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from pydantic import SecretStr

from shopfloor.protocols import http
from shopfloor.samples import Misconfigured, Unavailable

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError

MAGIC: Final = b"\0"
"""What a payload begins with in Confluent's wire format: the schema's id follows, 4 bytes, the first the highest."""
PREFIX: Final = 5
"""Bytes before the payload itself."""
_INCOMPATIBLE: Final = 409
_UNPROCESSABLE: Final = 422
_NO_SUBJECT: Final = 40401
_NO_SCHEMA: Final = 40403
_READ_ONLY: Final = 42205


class Registry(Protocol):
    """The fields of a config model that say how to reach a registry."""

    @property
    def url(self) -> Sequence[str]: ...  # noqa: D102  # the models' fields document each
    @property
    def username(self) -> str | None: ...  # noqa: D102
    @property
    def password(self) -> SecretStr | None: ...  # noqa: D102
    @property
    def token(self) -> SecretStr | None: ...  # noqa: D102
    @property
    def ca_file(self) -> Path | None: ...  # noqa: D102
    @property
    def certificate_file(self) -> Path | None: ...  # noqa: D102
    @property
    def key_file(self) -> Path | None: ...  # noqa: D102
    @property
    def key_password(self) -> SecretStr | None: ...  # noqa: D102
    @property
    def timeout(self) -> int: ...  # noqa: D102


def connect(settings: Registry) -> "SchemaRegistryClient":
    """A client of a registry that is there and lets us in. Raises Unavailable, Misconfigured."""
    from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415  # loaded where it is needed

    try:
        client = SchemaRegistryClient(_conf(settings))
    except (OSError, ValueError) as error:
        raise Misconfigured(f"the settings of `schema_registry` cannot be used: {error}") from error
    try:
        types: Any = client.get_schema_types()
    except Exception as error:
        client.close()
        raise meaning(error, settings) from error
    if not isinstance(types, list):
        client.close()
        raise _no_registry(settings, "it answers otherwise")
    return client


def _conf(settings: Registry) -> dict[str, Any]:
    found: dict[str, Any] = {"url": ",".join(settings.url), "timeout": settings.timeout / 1e9, "max.retries": 0}
    if any(url.startswith("https:") for url in settings.url):
        system = ssl.get_default_verify_paths()
        found["ssl.ca.location"] = str(settings.ca_file or system.cafile or system.capath)
    if settings.certificate_file is not None:
        found |= {
            "ssl.certificate.location": str(settings.certificate_file),
            "ssl.key.location": str(settings.key_file),
        }
    if settings.key_password is not None:
        found["ssl.key.password"] = settings.key_password.get_secret_value()
    if settings.username is not None and settings.password is not None:
        found["basic.auth.user.info"] = f"{settings.username}:{settings.password.get_secret_value()}"
    if settings.token is not None:
        found |= {
            "bearer.auth.credentials.source": "STATIC_TOKEN",
            "bearer.auth.token": settings.token.get_secret_value(),
            "bearer.auth.logical.cluster": "",  # Confluent's cloud alone knows it; the client wants it named
        }
    return found


def meaning(error: Exception, settings: Registry, subject: str = "") -> Exception:
    """What an error of the client means: Unavailable or Misconfigured; itself when it is none of the registry's.

    ``subject``: what was asked for.
    """
    from confluent_kafka.schema_registry import SchemaRegistryError  # noqa: PLC0415  # loaded where it is needed

    if isinstance(error, SchemaRegistryError):
        return _said(error, settings, subject)
    if isinstance(error, json.JSONDecodeError):
        return _no_registry(settings, "it answers with no JSON")
    if isinstance(error, OSError) or type(error).__module__.startswith("httpx"):
        return http.meaning(f"the schema registry {_shown(settings)}", error)
    return error


def _said(error: "SchemaRegistryError", settings: Registry, subject: str) -> Exception:
    where = _shown(settings)
    status = error.http_status_code
    sentence = http.sentence(str(error.error_message).encode())
    if status in (http.UNAUTHORIZED, http.FORBIDDEN):
        return Misconfigured(
            f"the schema registry {where} does not let us{' use subject ' + subject if subject else ' in'}: {sentence} "
            f"({status}); correct `username` and `password` or `token`, or its access list"
        )
    if status in http.LATER:
        return Unavailable(f"the schema registry {where} does not answer now: {sentence} ({status})")
    wrong = _refused(error, f"our schema of subject {subject}" if subject else "it", sentence)
    if wrong is None:
        return _no_registry(settings, f"{sentence} ({status})")
    return Misconfigured(f"the schema registry {where} {wrong}")


def _refused(error: "SchemaRegistryError", what: str, sentence: str) -> str | None:
    """What the registry does not do, and what to change; None: it says nothing that a registry would."""
    if error.http_status_code == _INCOMPATIBLE:
        return (
            f"refuses {what}, since what it has there is not compatible: {sentence}; choose another `topic` or "
            "`subjects`, delete the old versions there, or set the subject's compatibility to NONE"
        )
    if error.error_code in (_NO_SUBJECT, _NO_SCHEMA):
        return (
            f"does not have {what}: {sentence}; register it there (it is on the page of the sink), or set "
            "`auto_register: true`"
        )
    if error.error_code == _READ_ONLY:
        return f"takes no schemas now: {sentence}; change its mode"
    if error.http_status_code == _UNPROCESSABLE:
        return f"refuses {what}: {sentence}; does it know this `format`?"
    return None


def _no_registry(settings: Registry, why: str) -> Misconfigured:
    return Misconfigured(
        f"{_shown(settings)} is no schema registry with Confluent's interface: {why}; correct `url` (Apicurio's ends "
        "in /apis/ccompat/v7)"
    )


def _shown(settings: Registry) -> str:
    return ", ".join(http.shown(url) for url in settings.url)
