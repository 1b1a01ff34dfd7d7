"""How a plant file says how to reach an HTTP server: the fields that every HTTP connector has."""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from shopfloor.plant.components import Form, Secret, Strict, check_identity
from shopfloor.plant.units import DURATION_UNITS, Duration

_SECOND: Final = DURATION_UNITS["s"]
HeaderName = Annotated[str, Form(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", "the name of an HTTP header, like X-Plant")]
"""A token of RFC 9110."""
Text = Annotated[str, StringConstraints(min_length=1)]


def web_address(text: str) -> str:
    """The text, when it is an address of HTTP without user and password in it; else ValueError."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    else:
        if parts.username is not None or parts.password is not None:
            raise ValueError("user name and password do not belong into the address; use the options for them")
    if not good or any(character.isspace() for character in text):
        raise ValueError("is no address of a server; write https://host/path, or http://host:8086")
    return text


WebAddress = Annotated[str, AfterValidator(web_address)]


def _header_value(text: str) -> str:
    """The text, when it can be a header's value (RFC 9110, 5.5); the error never shows it."""
    if not re.fullmatch(r"[\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?|", text):
        raise PydanticCustomError(
            "header",
            "is no value of a header: only letters, digits and signs of ASCII may be in it, and no space or line break "
            "at its ends (is there one at the end of the secret's file?)",
        )
    return text


def _header_secret(secret: SecretStr) -> SecretStr:
    _header_value(secret.get_secret_value())
    return secret


def _one_line(secret: SecretStr) -> SecretStr:
    """The secret, when it has no control characters, which RFC 7617 forbids; the error never shows it."""
    if re.search(r"[\x00-\x1f\x7f]", secret.get_secret_value()):
        raise PydanticCustomError(
            "secret",
            "has a line break or another control character in it; take it out (is it at the end of the secret's file?)",
        )
    return secret


HeaderValue = Annotated[str, AfterValidator(_header_value)]
HeaderSecret = Annotated[Secret, AfterValidator(_header_secret)]
"""A secret that stands in a header as it is."""
PlainSecret = Annotated[Secret, AfterValidator(_one_line)]
"""A password: any characters of one line."""


class Basic(Strict):
    """`type: basic`: user name and password in each request (RFC 7617)."""

    type: Literal["basic"] = Field(description="`basic`.")
    username: Text = Field(description="User name.")
    password: PlainSecret = Field(description="Password, as `${VAR}`.")


class Bearer(Strict):
    """`type: bearer`: a token in each request (RFC 6750)."""

    type: Literal["bearer"] = Field(description="`bearer`.")
    token: HeaderSecret = Field(description="The token, as `${VAR}`.")


class ApiKey(Strict):
    """`type: api_key`: a key in a header of its own."""

    type: Literal["api_key"] = Field(description="`api_key`.")
    header: HeaderName = Field(default="X-API-Key", description="The header that carries the key.")
    key: HeaderSecret = Field(description="The key, as `${VAR}`.")


class OAuth2(Strict):
    """`type: oauth2`: a token that is fetched with our own credentials and renewed in time (RFC 6749, 4.4)."""

    type: Literal["oauth2"] = Field(description="`oauth2`.")
    token_url: WebAddress = Field(description="Where tokens are given.")
    client_id: Text = Field(description="Our id there.")
    client_secret: PlainSecret = Field(description="Our secret there, as `${VAR}`.")
    scope: Text | None = Field(default=None, description="What the token is to allow.")
    audience: Text | None = Field(default=None, description="For whom it is meant, where the server asks for it.")
    send_as: Literal["basic", "form"] = Field(
        default="basic", description="How id and secret are sent: as HTTP basic authentication, or in the form."
    )


Authentication = Annotated[Basic | Bearer | ApiKey | OAuth2, Field(discriminator="type")]


class HttpConnection(Strict):
    """How to reach a server: inherit it beside SinkConfig; `url` is the address."""

    url: str = Field(description="The server's address.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed the server's certificate; by default the system's own.",
    )
    certificate_file: Path | None = Field(
        default=None, description="PEM file of our certificate with its chain, for servers that ask for one."
    )
    key_file: Path | None = Field(default=None, description="PEM file of the key that belongs to our certificate.")
    key_password: Secret | None = Field(default=None, description="Password of the key file, as `${VAR}`.")
    proxy: WebAddress | None = Field(
        default=None, description="A proxy on the way, `http://host:3128`; the environment's settings are not used."
    )
    timeout: Duration = Field(
        default=10 * _SECOND, ge=_SECOND // 10, description="How long connecting and each request may take."
    )

    @model_validator(mode="after")
    def _files_fit(self) -> "HttpConnection":
        given = [name for name in ("ca_file", "certificate_file", "key_file") if getattr(self, name) is not None]
        if given and not self.addresses_with_tls():
            raise ValueError(f"`{given[0]}` needs TLS; write the address as https://…")
        check_identity(self.certificate_file, self.key_file, self.key_password)
        return self

    def addresses_with_tls(self) -> bool:
        """Whether one of the addresses is reached by TLS."""
        auth: Any = getattr(self, "auth", None)
        return any(address.startswith("https:") for address in (self.url, getattr(auth, "token_url", "")))
