"""What people ask of the tables, as views: standard SQL that PostgreSQL, MySQL, MariaDB and SQL Server all take.

``{name}`` stands for a table or a view above, qualified and quoted by the dialect. Shares are fractions: 0.85 is 85 %.
A window's newest row is the one of its last entry: after its processor began anew, revisions begin at 0 again.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple


class View(NamedTuple):
    """One view."""

    name: str
    doc: str
    select: str
    whole: str = ""
    """The table whose columns it has, all of them: a new one of the table is to be one of the view's."""


VIEWS: Final[Sequence[View]] = (
    View(
        "sample",
        "Every sample by the name of its tag; number is NULL for text, bytes and null.",
        """
        SELECT t.name AS tag, h.time, h.nanos, h.quality,
               COALESCE(h.double_value, h.bigint_value, h.numeric_value,
                        CASE WHEN h.bool_value = {true} THEN 1 WHEN h.bool_value = {false} THEN 0 END) AS number,
               h.double_value, h.bigint_value, h.numeric_value, h.bool_value, h.text_value, h.bytes_value,
               h.received, h.status, h.server_time, h.entry, h.place
        FROM {history} h JOIN {tag} t ON t.id = h.tag_id
        """,
    ),
    View(
        "current_sample",
        "The newest sample of each tag by its name.",
        """
        SELECT t.name AS tag, h.time, h.nanos, h.quality,
               COALESCE(h.double_value, h.bigint_value, h.numeric_value,
                        CASE WHEN h.bool_value = {true} THEN 1 WHEN h.bool_value = {false} THEN 0 END) AS number,
               h.double_value, h.bigint_value, h.numeric_value, h.bool_value, h.text_value, h.bytes_value,
               h.received, h.status, h.server_time
        FROM {latest} h JOIN {tag} t ON t.id = h.tag_id
        """,
    ),
    View(
        "kpi_latest",
        "Each window as it is known now: its last revision.",
        """
        SELECT w.* FROM {kpi_window} w
        WHERE NOT EXISTS (SELECT 1 FROM {kpi_window} n
                          WHERE n.machine = w.machine AND n.period = w.period AND n.starts = w.starts
                            AND (n.entry > w.entry OR (n.entry = w.entry AND n.revision > w.revision)))
        """,
        whole="kpi_window",
    ),
    View(
        "production",
        "Units of each machine and hour.",
        """
        SELECT machine, level, starts, ends, production_day, shift_name, good, scrap, good + scrap AS produced,
               production_seconds, ideal_seconds, oee
        FROM {kpi_latest} WHERE period = 'hour'
        """,
    ),
    View(
        "quality",
        "Good units, scrap and quality of each machine for each hour, shift and day.",
        """
        SELECT machine, level, period, starts, ends, production_day, shift_name, good, scrap, good + scrap AS produced,
               quality, scrap_rate
        FROM {kpi_latest}
        """,
    ),
    View(
        "scrap",
        "Scrap by reason and category for each hour, shift and day, with its share of all scrap and of all units.",
        """
        SELECT w.machine, w.level, w.period, w.starts, w.ends, w.production_day, w.shift_name, s.category, s.reason,
               s.units, s.units / NULLIF(w.scrap, 0) AS share_of_scrap,
               s.units / NULLIF(w.good + w.scrap, 0) AS share_of_units
        FROM {kpi_latest} w
        JOIN {kpi_scrap} s ON s.machine = w.machine AND s.period = w.period AND s.starts = w.starts
                          AND s.revision = w.revision
        """,
    ),
    View(
        "scrap_trend",
        "The scrap rate of each machine day by day, beside that of the day before.",
        """
        SELECT machine, level, production_day, good, scrap, scrap_rate,
               LAG(scrap_rate) OVER (PARTITION BY machine ORDER BY starts) AS scrap_rate_before,
               scrap_rate - LAG(scrap_rate) OVER (PARTITION BY machine ORDER BY starts) AS change_of_rate
        FROM {kpi_latest} WHERE period = 'day'
        """,
    ),
    View(
        "machine_state",
        "How long each machine was in which state, for each hour, shift and day.",
        """
        SELECT machine, level, period, starts, ends, production_day, shift_name, production_seconds, setup_seconds,
               blocked_seconds, minor_stop_seconds, unplanned_stop_seconds, planned_stop_seconds,
               not_scheduled_seconds, unknown_seconds
        FROM {kpi_latest}
        """,
    ),
    View(
        "downtime",
        "Incidents and the time that they took, for each hour, shift and day; mean times in seconds.",
        """
        SELECT machine, level, period, starts, ends, production_day, shift_name, incidents, minor_stops,
               unplanned_stop_seconds AS error_seconds, minor_stop_seconds, error_rate, mtbf, mttr
        FROM {kpi_latest}
        """,
    ),
    View(
        "downtime_reason",
        "Stops by reason and category for each hour, shift and day: what a Pareto chart is made of.",
        """
        SELECT w.machine, w.level, w.period, w.starts, w.ends, w.production_day, w.shift_name, l.category, l.reason,
               l.stops, l.seconds
        FROM {kpi_latest} w
        JOIN {kpi_loss} l ON l.machine = w.machine AND l.period = w.period AND l.starts = w.starts
                         AND l.revision = w.revision
        """,
    ),
    View(
        "downtime_event",
        "Each stop part by part, with reason and category; without those that were withdrawn.",
        """
        SELECT s.machine, s.starts, s.ends, s.kind, s.state, r.part, r.part_starts, r.category, r.reason, r.seconds
        FROM {stop_event} s LEFT JOIN {stop_reason} r ON r.machine = s.machine AND r.starts = s.starts
        WHERE s.withdrawn = {false}
        """,
    ),
    View(
        "product",
        "Units and figures by product for each hour, shift and day.",
        """
        SELECT w.machine, w.level, w.period, w.starts, w.ends, w.production_day, w.shift_name, s.name AS product,
               s.oee, s.availability, s.performance, s.quality, s.good, s.scrap, s.ideal_seconds, s.production_seconds
        FROM {kpi_latest} w
        JOIN {kpi_share} s ON s.machine = w.machine AND s.period = w.period AND s.starts = w.starts
                          AND s.revision = w.revision
        WHERE s.kind = 'product'
        """,
    ),
    View(
        "production_order",
        "Each order that was made: how many of how many, when, against when it was due.",
        """
        SELECT machine, order_id, product, starts, ends, planned_quantity, good, scrap,
               good - planned_quantity AS beyond_plan, due, oee, availability, performance, quality
        FROM {production_run} WHERE kind = 'order' AND withdrawn = {false}
        """,
    ),
    View(
        "cycle_time",
        "Single cycles summed up for each hour, shift and day, in seconds.",
        """
        SELECT w.machine, w.level, w.period, w.starts, w.ends, w.production_day, w.shift_name, c.cycles, c.mean,
               c.shortest, c.median, c.p95, c.longest, c.lost, c.gained, c.interrupted, c.several
        FROM {kpi_latest} w
        JOIN {kpi_cycle_time} c ON c.machine = w.machine AND c.period = w.period AND c.starts = w.starts
                               AND c.revision = w.revision
        """,
    ),
    View(
        "health",
        "The health score (0 to 100) of each machine and what it is made of, for each hour, shift and day.",
        """
        SELECT machine, level, period, starts, ends, production_day, shift_name, health, oee, scrap_rate, error_rate,
               coverage
        FROM {kpi_latest}
        """,
    ),
)
