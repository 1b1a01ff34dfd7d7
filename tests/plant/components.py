"""Component types for the plant file's tests: what a connector's config model may hold."""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from shopfloor.plant import (
    Duration,
    HistorianConfig,
    ProcessorConfig,
    Secret,
    SinkConfig,
    SourceConfig,
    Strict,
    TagName,
)
from shopfloor.samples import Batch, Sample, TagInfo
from shopfloor.seams import Processor, Sink, Source


class Security(Strict):
    """How the connection is secured."""

    mode: Literal["none", "sign", "sign_and_encrypt"] = Field(default="none", description="What is done.")
    certificate: Path | None = Field(default=None, description="Its file.")
    trusted: list[Path] = Field(default=[], description="Whom it trusts.")


class PlcTag(Strict):
    """One value of the PLC."""

    tag: TagName = Field(description="Its name here.")
    node: str = Field(description="Its name there.")
    unit: str = Field(default="", description="Its unit.")


class PlcConfig(SourceConfig):
    """A PLC whose tags the plant file lists."""

    type: Literal["plc"]
    endpoint: Annotated[str, Field(pattern=r"^plc://\S+$")] = Field(description="Where it is, `plc://host:port`.")
    user: str | None = Field(default=None, description="Who we are.")
    password: Secret | None = Field(default=None, description="The user's password.")
    rack: int = Field(default=0, ge=0, le=7, description="Its rack.")
    every: Duration = Field(default=10**9, gt=0, description="How often it is read.")
    security: Security = Field(default=Security(), description="How the connection is secured.")
    tags: list[PlcTag] = Field(min_length=1, description="What is read.")

    def build(self) -> Source:
        return _Nothing()

    def declared(self) -> Sequence[TagInfo]:
        return [TagInfo(t.tag, t.node, unit=t.unit) for t in self.tags]


class TopicConfig(SourceConfig):
    """A source that only knows its tags when they come."""

    type: Literal["topic"]
    topic: str = Field(description="What it listens to.")

    def build(self) -> Source:
        return _Nothing()


class RenameConfig(ProcessorConfig):
    """Gives a tag another name."""

    type: Literal["rename"]
    given: str = Field(alias="from", description="The tag, or a pattern.")
    made: TagName = Field(alias="to", description="The new name.")

    def build(self) -> Processor:
        return _Same()

    def inputs(self) -> Sequence[str]:
        return [self.given]

    def outputs(self) -> Sequence[TagInfo]:
        return [TagInfo(self.made)]


class TableConfig(SinkConfig):
    """A table of a database."""

    type: Literal["table"]
    dsn: Secret = Field(description="Where it is.")
    batch: int = Field(default=1000, ge=1, description="Rows at once.")

    def build(self) -> Sink:
        return _Hole()


class StoreConfig(HistorianConfig):
    """A file."""

    type: Literal["store"]
    path: Path = Field(default=Path("data/store.db"), description="Its file.")

    def build(self) -> Sink:
        return _Hole()


NOT_A_MODEL = 5


class _Nothing(Source):
    async def batches(self) -> AsyncGenerator[Batch]:
        return
        yield  # makes this an asynchronous generator


class _Same(Processor):
    def process(self, batch: Batch) -> list[Sample]:
        return list(batch)


class _Hole(Sink):
    async def write(self, offset: int, batch: Batch) -> None:
        pass
