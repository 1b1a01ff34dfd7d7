"""A production day's shifts as a table for spreadsheets."""

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

_FIGURES: Final = (
    "oee",
    "oee_low",
    "oee_high",
    "availability",
    "performance",
    "quality",
    "good",
    "scrap",
    "planned_seconds",
    "unplanned_stop_seconds",
    "minor_stops",
    "incidents",
    "mtbf",
    "mttr",
    "coverage",
)
HEADER: Final[tuple[str, ...]] = (
    "day",
    "machine",
    "title",
    "line",
    "window",
    "shift",
    "start",
    "end",
    "closed",
    *_FIGURES,
    "formula",
    "level",
)


def as_csv(reported: Iterable[Mapping[str, Any]]) -> str:
    """RFC 4180 with a header; times in UTC (ISO 8601), durations in seconds; empty where a figure has no meaning.

    Of machines and, behind them, of lines, areas and the site; ``level`` says which, and `line` or `title` its name.
    """
    text = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(text, HEADER, extrasaction="ignore")
    writer.writeheader()
    for one in reported:
        level = one.get("level", "machine")
        line = one["id"] if level == "line" else one.get("line")
        title = one["title"] or ("" if level == "machine" else one["id"])
        names = {"title": _harmless(title), "line": _harmless(line or ""), "level": level}
        for record in [*one["shifts"], *([] if one["day"] is None else [one["day"]])]:
            writer.writerow(
                {
                    **record,
                    **names,
                    "shift": _harmless(record["shift"]),
                    "start": _utc(record["start"]),
                    "end": _utc(record["end"]),
                    "closed": "no" if "until" in record else "yes",
                    "unplanned_stop_seconds": record["seconds"]["unplanned_stop"],
                }
            )
    return text.getvalue()


def _harmless(text: str) -> str:
    """A name that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text


def _utc(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
