"""Whether the plant runs: ``/health``, ``/ready`` and ``/metrics`` for Prometheus."""

from collections.abc import Iterator, Sequence
from typing import Final, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from shopfloor.console.view import VERSION, Json, Runtime
from shopfloor.journal import JournalState, LedgerRow
from shopfloor.pipeline.status import ComponentStatus, State

SERIES: Final = 500
"""Ledger sums that keep their own reason; reasons are words of other programs, and Prometheus pays for each."""
STATES: Final[tuple[State, ...]] = get_args(State)


def readiness(components: Sequence[ComponentStatus]) -> Json:
    """Which required components do not run, and why."""
    waiting = [
        {"name": status.name, "state": status.state, "reason": status.last_error if status.state != "paused" else ""}
        for status in components
        if status.required and status.state != "running"
    ]
    return {"ready": not waiting, "waiting": waiting}


async def metrics(runtime: Runtime, viewers: int, accept: str) -> tuple[bytes, str]:
    """The figures of now and their media type, in the format that ``accept`` prefers."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    figures = _Figures(
        runtime.components(), await runtime.ledger(), await runtime.journal_state(), len(runtime.live), viewers
    )
    registry.register(figures)
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Figures(Collector):
    """One scrape's figures; prometheus-client asks it for them."""

    def __init__(
        self,
        components: Sequence[ComponentStatus],
        ledger: Sequence[LedgerRow],
        journal: JournalState,
        tags: int,
        viewers: int,
    ) -> None:
        self._components = components
        self._ledger = ledger
        self._journal = journal
        self._tags = tags
        self._viewers = viewers

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield InfoMetricFamily("shopfloor_build", "Which Shopfloor this is", {"version": VERSION})
        yield from self._of_components()
        yield self._of_ledger()
        yield from self._of_journal()
        yield GaugeMetricFamily("shopfloor_live_tags", "Tags with a value", self._tags)
        yield GaugeMetricFamily("shopfloor_live_viewers", "Open live streams", self._viewers)

    def _of_components(self) -> Iterator[Metric]:
        labels = ("component", "kind", "type")
        samples = CounterMetricFamily(
            "shopfloor_component_samples", "Received (source) or delivered (others) since the start", labels=labels
        )
        restarts = CounterMetricFamily("shopfloor_component_restarts", "Restarts since the start", labels=labels)
        entries = GaugeMetricFamily("shopfloor_component_lag_entries", "Journal entries not taken yet", labels=labels)
        seconds = GaugeMetricFamily("shopfloor_component_lag_seconds", "Age of the oldest of them", labels=labels)
        state = GaugeMetricFamily(
            "shopfloor_component_state", "1 for the state that it is in, 0 for the others", labels=(*labels, "state")
        )
        for component in self._components:
            values = (component.name, component.kind, component.type)
            samples.add_metric(values, component.samples)
            restarts.add_metric(values, component.restarts)
            entries.add_metric(values, component.lag_entries)
            seconds.add_metric(values, component.lag_seconds)
            for name in STATES:
                state.add_metric((*values, name), name == component.state)
        yield from (samples, restarts, entries, seconds, state)

    def _of_ledger(self) -> Metric:
        labels = ("source", "reader", "outcome", "reason")
        sums: dict[tuple[str, str, str, str], int] = {}
        for row in self._ledger:
            key = (row.source, row.reader, row.outcome, row.reason)
            if key not in sums and len(sums) >= SERIES and row.reason:
                key = (row.source, row.reader, row.outcome, "other")
            sums[key] = sums.get(key, 0) + row.samples
        family = GaugeMetricFamily("shopfloor_ledger_samples", "The sums of the loss ledger", labels=labels)
        for labelled, total in sums.items():
            family.add_metric(labelled, total)
        return family

    def _of_journal(self) -> Iterator[Metric]:
        journal = self._journal
        yield GaugeMetricFamily("shopfloor_journal_bytes", "Bytes in use", journal.size)
        yield GaugeMetricFamily("shopfloor_journal_keep_bytes", "Bytes that it may use", journal.keep)
        yield GaugeMetricFamily("shopfloor_journal_entries", "Entries held", journal.entries)
        yield GaugeMetricFamily("shopfloor_journal_samples", "Samples held", journal.samples)
        yield GaugeMetricFamily("shopfloor_journal_full", "1 while sources are held back", journal.full)
        yield GaugeMetricFamily(
            "shopfloor_journal_oldest_timestamp_seconds", "Reception of the oldest entry", (journal.oldest or 0) / 1e9
        )
        yield CounterMetricFamily("shopfloor_journal_thinned_samples", "Measurements taken out", journal.thinned)
        yield CounterMetricFamily("shopfloor_journal_damaged_entries", "Damaged entries met", journal.damaged)
