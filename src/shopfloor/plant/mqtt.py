"""How a plant file says where an MQTT broker is: the fields that every MQTT connector has."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from shopfloor.plant.components import Form, Secret, Strict, check_identity
from shopfloor.plant.units import DURATION_UNITS, Duration

_SECOND: Final = DURATION_UNITS["s"]
_LONGEST_KEEP_ALIVE: Final = 65_535 * _SECOND
"""The protocol counts it in 16 bits of seconds."""
_ADDRESS: Final = re.compile(r"mqtts?://(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]?#]+)(:(\d{1,5}))?/?")
_HIGHEST_PORT: Final = 65_535


def _address(text: str) -> str:
    if "@" in text:
        raise ValueError("user name and password do not belong into the address; use `username` and `password`")
    match = _ADDRESS.fullmatch(text)
    if match is None or (match[3] is not None and not 0 < int(match[3]) <= _HIGHEST_PORT):
        raise ValueError(f"{text!r} is no address of a broker; write mqtt://host:1883, or mqtts://host:8883 for TLS")
    return text


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class MqttConnection(Strict):
    """How to reach a broker: inherit it beside SinkConfig or SourceConfig."""

    servers: Annotated[
        list[Annotated[str, AfterValidator(_address)]],
        BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
    ] = Field(
        min_length=1,
        description="The broker's address, `mqtt://host:1883` or `mqtts://host:8883` for TLS; "
        "several are tried in order.",
    )  # fmt: skip
    version: Annotated[
        Literal["auto", "5", "3.1.1"],
        BeforeValidator(_as_text, json_schema_input_type=Literal["auto", "5", "3.1.1"] | int),
    ] = Field(default="auto", description="The MQTT version; `auto` tries 5 first, then 3.1.1.")
    client_id: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")] | None = Field(
        default=None, description="How the broker knows this client; by default a name made at each start."
    )
    username: Annotated[str, StringConstraints(min_length=1)] | None = Field(default=None, description="User name.")
    password: Secret | None = Field(default=None, description="Password, as `${VAR}`.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed the broker's certificate; by default the system's own.",
    )
    certificate_file: Path | None = Field(
        default=None, description="PEM file of our certificate with its chain, for brokers that ask for one."
    )
    key_file: Path | None = Field(default=None, description="PEM file of the key that belongs to our certificate.")
    key_password: Secret | None = Field(default=None, description="Password of the key file, as `${VAR}`.")
    server_name: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        default=None, description="The name in the broker's certificate where it differs from the address."
    )
    server_sha256: Annotated[str, Form(r"[0-9a-fA-F]{2}(:?[0-9a-fA-F]{2}){31}", "a SHA-256, 64 hexadecimal digits")] | (
        None
    ) = Field(
        default=None,
        description="The SHA-256 fingerprint of the one certificate the broker may have, beside all other checks.",
    )
    keep_alive: Duration = Field(
        default=30 * _SECOND, ge=_SECOND, le=_LONGEST_KEEP_ALIVE,
        description="A connection on which the broker is silent for this long is lost.",
    )  # fmt: skip
    timeout: Duration = Field(
        default=10 * _SECOND, ge=_SECOND // 10,
        description="How long connecting may take, and how long the broker may acknowledge nothing.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _consistent(self) -> "MqttConnection":
        tls = [text.startswith("mqtts:") for text in self.servers]
        files = ("ca_file", "certificate_file", "key_file", "key_password", "server_name", "server_sha256")
        given = [name for name in files if getattr(self, name) is not None]
        if given and not any(tls):
            raise ValueError(f"`{given[0]}` needs TLS; write the address as mqtts://…")
        check_identity(self.certificate_file, self.key_file, self.key_password)
        if self.password is not None and self.username is None:
            raise ValueError("`password` needs `username`")
        return self
