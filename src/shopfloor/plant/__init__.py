"""The plant as written down: config models, and a loader whose errors name file, line and remedy."""

from shopfloor.plant.components import (
    ByMessage,
    ComponentConfig,
    Form,
    Kind,
    Name,
    ProcessorConfig,
    Role,
    Secret,
    SinkConfig,
    SourceConfig,
    Strict,
    TagName,
    config_class,
    passes,
    tag_pattern,
    types,
)
from shopfloor.plant.line import Line, LinePolicy, Targets
from shopfloor.plant.loader import load, parse
from shopfloor.plant.machine import Machine, Reason
from shopfloor.plant.model import (
    Allow,
    Commands,
    ConsoleConfig,
    HistorianConfig,
    JournalConfig,
    Plant,
    Site,
)
from shopfloor.plant.reader import PlantError, Problem
from shopfloor.plant.schema import schema
from shopfloor.plant.shifts import CalendarException, OneShift, Shift
from shopfloor.plant.units import Duration, Size, format_duration, format_size, parse_duration, parse_size

__all__ = [
    "Allow",
    "ByMessage",
    "CalendarException",
    "Commands",
    "ComponentConfig",
    "ConsoleConfig",
    "Duration",
    "Form",
    "HistorianConfig",
    "JournalConfig",
    "Kind",
    "Line",
    "LinePolicy",
    "Machine",
    "Name",
    "OneShift",
    "Plant",
    "PlantError",
    "Problem",
    "ProcessorConfig",
    "Reason",
    "Role",
    "Secret",
    "Shift",
    "SinkConfig",
    "Site",
    "Size",
    "SourceConfig",
    "Strict",
    "TagName",
    "Targets",
    "config_class",
    "format_duration",
    "format_size",
    "load",
    "parse",
    "parse_duration",
    "parse_size",
    "passes",
    "schema",
    "tag_pattern",
    "types",
]
