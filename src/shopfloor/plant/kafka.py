"""How a plant file says where a Kafka cluster is, and what its topics shall be: what every Kafka connector has."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from shopfloor.plant.components import Secret, Strict, check_identity
from shopfloor.plant.http import WebAddress
from shopfloor.plant.units import DURATION_UNITS, Duration

_SECOND: Final = DURATION_UNITS["s"]
_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s/:@,\[\]?#]+)(:(\d{1,5}))?")
_HIGHEST_PORT: Final = 65_535
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is None or (match[3] is not None and not 0 < int(match[3]) <= _HIGHEST_PORT):
        raise ValueError(f"{text!r} is no address of a broker; write host:9092")
    return text if match[3] is not None else f"{text}:9092"


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def topic_name(text: str) -> str:
    """The text, when it can be the name of a topic; else ValueError."""
    if not _TOPIC.fullmatch(text) or text in (".", ".."):
        raise ValueError(f"{text!r} is no topic; it has letters, digits, `.`, `_` and `-`, at most 249 of them")
    return text


class KafkaConnection(Strict):
    """How to reach a cluster: inherit it beside SinkConfig or SourceConfig."""

    servers: Annotated[
        list[Annotated[str, AfterValidator(_address)]],
        BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
    ] = Field(
        min_length=1,
        description="Brokers to begin with, `host:9092`, one or several; the cluster names the others.",
    )  # fmt: skip
    client_id: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")] = Field(
        default="shopfloor", description="How the brokers' logs and quotas know this client."
    )
    tls: bool = Field(
        default=False,
        description="Whether to connect by TLS; the brokers' certificates and names are then always verified.",
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed the brokers' certificates; by default the system's own.",
    )
    certificate_file: Path | None = Field(
        default=None, description="PEM file of our certificate with its chain, for brokers that ask for one."
    )
    key_file: Path | None = Field(default=None, description="PEM file of the key that belongs to our certificate.")
    key_password: Secret | None = Field(default=None, description="Password of the key file, as `${VAR}`.")
    username: Annotated[str, StringConstraints(min_length=1)] | None = Field(default=None, description="User name.")
    password: Secret | None = Field(default=None, description="Password, as `${VAR}`.")
    mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        default="SCRAM-SHA-512",
        description="How the password is shown to the broker. `PLAIN` sends it as it is; use it with `tls` only.",
    )
    timeout: Duration = Field(
        default=10 * _SECOND, ge=_SECOND // 10, le=300 * _SECOND,
        description="How long connecting may take, and how long the brokers may confirm nothing.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _secure(self) -> "KafkaConnection":
        files = ("ca_file", "certificate_file", "key_file", "key_password")
        given = [name for name in files if getattr(self, name) is not None]
        if given and not self.tls:
            raise ValueError(f"`{given[0]}` needs `tls: true`")
        check_identity(self.certificate_file, self.key_file, self.key_password)
        if (self.password is None) != (self.username is None):
            raise ValueError("`username` and `password` belong together; give both")
        return self


class SchemaRegistry(Strict):
    """A schema registry with Confluent's REST interface: Confluent's own, Karapace, Apicurio (`…/apis/ccompat/v7`)."""

    url: Annotated[list[WebAddress], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])] = Field(
        min_length=1,
        description="Its address, `https://registry.example:8081`; several of one registry are tried in turn.",
    )
    username: Annotated[str, StringConstraints(min_length=1, pattern=r"^[^:]*$")] | None = Field(
        default=None, description="User name."
    )
    password: Secret | None = Field(default=None, description="Password, as `${VAR}`.")
    token: Secret | None = Field(default=None, description="A bearer token in place of a user, as `${VAR}`.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed the registry's certificate; by default the system's own.",
    )
    certificate_file: Path | None = Field(
        default=None, description="PEM file of our certificate with its chain, for registries that ask for one."
    )
    key_file: Path | None = Field(default=None, description="PEM file of the key that belongs to our certificate.")
    key_password: Secret | None = Field(default=None, description="Password of the key file, as `${VAR}`.")
    timeout: Duration = Field(
        default=10 * _SECOND, ge=_SECOND // 10, le=300 * _SECOND, description="How long an answer may take."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "SchemaRegistry":
        given = [name for name in ("ca_file", "certificate_file", "key_file") if getattr(self, name) is not None]
        if given and not any(url.startswith("https:") for url in self.url):
            raise ValueError(f"`{given[0]}` needs TLS; write the address as https://…")
        check_identity(self.certificate_file, self.key_file, self.key_password)
        if (self.password is None) != (self.username is None):
            raise ValueError("`username` and `password` belong together; give both")
        if self.token is not None and self.username is not None:
            raise ValueError("give either `token` or `username` and `password`")
        return self


class KafkaTopicSettings(Strict):
    """What `shopfloor kafka-topics` makes of a topic that is not there yet, and compares those with that are."""

    partitions: int = Field(
        default=6, ge=1, le=10_000,
        description="How many partitions: as many consumers of a group can share the work.",
    )  # fmt: skip
    replication: int | None = Field(
        default=None, ge=1, le=100,
        description="On how many brokers each partition is kept; by default what the cluster says.",
    )  # fmt: skip
    retention: Duration | None = Field(
        default=None, ge=DURATION_UNITS["ms"],
        description="How long the brokers keep messages; by default what the cluster says.",
    )  # fmt: skip
    compact: bool = Field(
        default=False, description="Whether only the newest message of each key is kept for good (log compaction)."
    )
    config: dict[str, str] = Field(
        default={}, description='Further settings of the topic by Kafka\'s own names: `{max.message.bytes: "4000000"}`.'
    )

    @model_validator(mode="after")
    def _once(self) -> "KafkaTopicSettings":
        ours = {"retention.ms": self.retention is not None, "cleanup.policy": self.compact}
        twice = next((name for name, given in ours.items() if given and name in self.config), None)
        if twice is not None:
            key = "retention" if twice == "retention.ms" else "compact"
            raise ValueError(f"`{key}` and `config` both say {twice}; take one out")
        return self

    @property
    def settings(self) -> dict[str, str]:
        """The topic's settings by Kafka's names."""
        own: dict[str, str] = {}
        if self.retention is not None:
            own["retention.ms"] = str(self.retention // DURATION_UNITS["ms"])
        if self.compact:
            own["cleanup.policy"] = "compact" if self.retention is None else "compact,delete"
        return own | self.config
