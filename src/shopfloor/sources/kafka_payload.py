"""What the records of a Kafka topic mean: the payloads of MQTT, with the record's key for the tag's name."""

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shopfloor.plant.kafka import KafkaTopicSettings, topic_name
from shopfloor.samples import TagInfo
from shopfloor.sources.mqtt_columns import ShortWay, short_way
from shopfloor.sources.mqtt_payload import Meaning, Payload, Unreadable, template_fields

_REMEMBERED: Final = 100_000
"""Topics and keys whose meaning is remembered."""


def _pattern(text: str) -> str:
    topic_name(text.replace("*", "x"))
    return text


class KafkaTopic(Payload):
    """A topic to read, and what its records mean."""

    topic: Annotated[str, StringConstraints(min_length=1, max_length=249), AfterValidator(_pattern)] = Field(
        description="The topic; `*` stands for any run of characters: then every topic that matches is read, also one "
        "that is made later."
    )
    create: KafkaTopicSettings | None = Field(
        default=None, description="How `shopfloor kafka-topics` makes the topic; without it, as the cluster does."
    )

    @property
    def keyed(self) -> bool:
        """Whether the names of its tags have the record's key in them."""
        return any("key" in template_fields(template) for template in self.templates)

    @property
    def exact(self) -> bool:
        """Whether it is one topic."""
        return "*" not in self.topic

    @model_validator(mode="after")
    def _fits(self) -> "KafkaTopic":
        levels = len(self.topic.split("."))
        for template in self.templates:
            high = [field for field in template_fields(template) if field.isdigit() and int(field) > levels]
            if high and self.exact:
                raise ValueError(f"{template!r} names a level that {self.topic} does not have; {{1}} is the first")
        if self.create is not None and not self.exact:
            raise ValueError("a topic with `*` cannot be made; take `create` out, or name the topics one by one")
        return self

    def declared(self) -> list[TagInfo] | None:
        """Its tags, where the plant file alone tells them; else None."""
        return Meaning(self).declared(levels_of(self.topic)) if self.exact and not self.keyed else None


def levels_of(topic: str) -> str:
    """The topic's name as levels: what dots separate in Kafka, slashes do in tags."""
    return topic.replace(".", "/")


class Known(NamedTuple):
    """What is known of the records of a topic, or of a key in it."""

    meaning: Meaning
    short_way: ShortWay | None
    levels: str
    tags: Sequence[str]
    """For the short way."""


class Meanings:
    """What records mean, by their topic and, where it matters, their key; remembered."""

    def __init__(self, config: KafkaTopic) -> None:
        """Raises nothing: the configuration is valid."""
        self._config = config
        self._known: dict[tuple[str, bytes | None], Known] = {}

    @cached_property
    def _keyed(self) -> bool:
        return self._config.keyed

    def of(self, topic: str, key: bytes | None) -> Known:
        """What a record means; raises Unreadable when its key cannot be part of a tag's name."""
        place = (topic, key if self._keyed else None)
        found = self._known.get(place)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[place] = self._work_out(topic, key)
        return found

    def _work_out(self, topic: str, key: bytes | None) -> Known:
        config: Payload = self._config
        if self._keyed:
            config = _with_key(self._config, key)
        meaning, levels = Meaning(config), levels_of(topic)
        try:
            tags: Sequence[str] = meaning.tags(levels)
        except Unreadable:
            tags = ()
        return Known(meaning, short_way(config) if tags else None, levels, tags)


def _with_key(config: KafkaTopic, key: bytes | None) -> KafkaTopic:
    """The same with this key in the templates' places for it; raises Unreadable when it is none that fits."""
    if not key:
        raise Unreadable("it has no key, and the tag's name needs one")
    try:
        text = key.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"its key is no text: {error}") from error
    text = text.replace("{", "{{").replace("}", "}}")
    values = [
        value.model_copy(update={"tag": value.tag.replace("{key}", text)}) if value.tag else value
        for value in config.values
    ]
    return config.model_copy(update={"tag": config.template.replace("{key}", text), "values": values})
