"""The plant as written down: config models, and a loader whose errors name file, line and remedy."""

from shopfloor.plant.components import (
    ComponentConfig,
    Kind,
    Name,
    ProcessorConfig,
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
from shopfloor.plant.loader import PlantError, Problem, load, parse
from shopfloor.plant.model import Allow, Commands, HistorianConfig, JournalConfig, Machine, Plant, Shift, Site
from shopfloor.plant.units import Duration, Size, format_duration, format_size, parse_duration, parse_size

__all__ = [
    "Allow",
    "Commands",
    "ComponentConfig",
    "Duration",
    "HistorianConfig",
    "JournalConfig",
    "Kind",
    "Machine",
    "Name",
    "Plant",
    "PlantError",
    "Problem",
    "ProcessorConfig",
    "Secret",
    "Shift",
    "SinkConfig",
    "Site",
    "Size",
    "SourceConfig",
    "Strict",
    "TagName",
    "config_class",
    "format_duration",
    "format_size",
    "load",
    "parse",
    "parse_duration",
    "parse_size",
    "passes",
    "tag_pattern",
    "types",
]
