"""What the command line prints: tables in plain text, the same figures as JSON."""

import asyncio
import platform
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from shopfloor.bench import Result
from shopfloor.importing import Imported
from shopfloor.journal import Balance, LedgerRow, SqliteJournal, balances
from shopfloor.kpi.figures import percent
from shopfloor.pipeline import ComponentStatus
from shopfloor.pipeline.probe import probe as probed
from shopfloor.plant import Plant
from shopfloor.replaying import Replayed
from shopfloor.samples import Misconfigured

_OUTCOMES: Final = ("delivered", "filtered", "deduplicated", "rejected", "dropped", "waiting")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], right: Container[int] = ()) -> str:
    """Columns as wide as their widest cell; numbers to the right, and the columns whose places ``right`` names."""
    body = list(rows)
    cells = [list(head), *([f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in body)]
    numbers = [
        i in right or (bool(body) and all(isinstance(row[i], int | float) for row in body)) for i in range(len(head))
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.rjust(width) if numbers[i] else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def plant(loaded: Plant) -> str:
    """One line per section: what a checked plant file declares."""
    parts = [
        _sources(loaded),
        _count(len(loaded.processors), "processor"),
        _count(len(loaded.sinks), "sink"),
        _count(len(loaded.machines), "machine"),
        f"{_count(len(loaded.commands.allow), 'tag')} that may be written",
        "a historian" if loaded.historian else "no historian",
    ]
    lines = [f"{loaded.plant.site}: this plant file is right: {', '.join(parts)}."]
    lines += [
        f"The source {source.name} has no tags yet: `shopfloor browse PLANT {source.name}` lists what it offers."
        for source in loaded.sources
        if source.declared() is not None and not source.declared()
    ]
    if not loaded.shifts:
        lines.append("No calendar: 24 h assumed.")
    return "\n".join(lines)


def _sources(loaded: Plant) -> str:
    """How many they are, and how many tags; those of a source of messages are not known before they come."""
    declared = [source.declared() for source in loaded.sources]
    tags = sum(len(known or ()) for known in declared)
    told = _count(tags, "tag")
    if None in declared:
        told = f"{told} and those that messages name" if tags else "tags that messages name"
    return f"{_count(len(declared), 'source')} with {told}"


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def imported(found: Imported, text: str, target: Path | None) -> None:
    """Write the plant file, to the terminal without a target; what a person should know goes to standard error."""
    if target is None:
        click.echo(text, nl=False)
    else:
        # First beside it: a full disk must not leave half a plant file, nor cost the one that is there.
        part = target.with_name(f"{target.name}.part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(target)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise Misconfigured(f"{target} cannot be written: {error.strerror}") from error
    for finding in found.findings:
        click.echo(f"{'not imported' if finding.lost else 'note'}: {finding}", err=True)
    tags = sum(map(len, found.sources.values()))
    lost = sum(finding.lost for finding in found.findings)
    where = f", written to {target}" if target else ""
    rest = f"; {_count(lost, 'thing')} could not be mapped, see above" if lost else ""
    click.echo(f"{_count(tags, 'tag')} of {_count(len(found.machines), 'machine')}{where}{rest}", err=True)


async def probe(loaded: Plant) -> int:
    """Print how every connection went; the exit code."""
    code = 0
    async for one in probed(loaded):
        said = "connected, but not all of it can be had" if one.result == "incomplete" else one.result
        click.echo("\n    ".join([f"{one.name} ({one.type}): {said}", *one.detail.splitlines()]))
        code = max(code, {"ok": 0, "away": 1, "failed": 1, "incomplete": 2, "misconfigured": 2}[one.result])
    return code


def ledger(rows: Sequence[LedgerRow]) -> str:
    """The balance of every source → reader pair, then each loss with reason and interval."""
    pairs = [pair for pair in balances(rows) if not pair.source.startswith("$") or pair.missing]
    always = ("delivered", "filtered", "waiting")
    outcomes = [o for o in _OUTCOMES if o in always or any(pair.outcomes.get(o) for pair in pairs)]
    head = ("source", "reader", "received", f"= {outcomes[0]}", *(f"+ {o}" for o in outcomes[1:]), "balance")
    shown = [_pair(pair, outcomes) for pair in pairs]
    received = {row.source: row.samples for row in rows if row.outcome == "received" and row.source[:1] != "$"}
    untaken = [f"{source}: {_count(samples, 'sample')} received" for source, samples in received.items() if samples]
    if not untaken:
        parts = ["Nothing has been received yet."]
    elif not shown:
        parts = [*untaken, "Nobody takes them: give the plant file a `historian` or `sinks`."]
    else:
        parts = [table(head, shown)]
    parts += _losses(rows) or ["Nothing was lost."]
    return "\n".join(parts)


def _losses(rows: Sequence[LedgerRow]) -> list[str]:
    """A line for each reason for which samples were not delivered."""
    gathered: dict[tuple[str, str, str, str], LedgerRow] = {}
    for row in rows:
        if row.outcome in ("rejected", "dropped", "deduplicated"):
            key = (row.reader, row.source, row.outcome, row.reason)
            so = gathered.get(key)
            gathered[key] = row if so is None else _together(so, row)
    losses = [
        f"{row.reader}: {row.samples:,} {'sample' if row.samples == 1 else 'samples'} of {row.source} {row.outcome}: "
        f"{row.reason} ({_interval(row)})"
        for row in gathered.values()
    ]
    losses += [
        f"{row.source}: the other side dropped {row.samples:,} values before they reached us (queue overflow)"
        for row in rows
        if row.outcome == "lost before us"
    ]
    return losses


def _together(one: LedgerRow, other: LedgerRow) -> LedgerRow:
    """Losses for the same reason at two times as one, from the first to the last."""
    return msgspec.structs.replace(
        one, samples=one.samples + other.samples, first=min(one.first, other.first), last=max(one.last, other.last)
    )


def replayed(found: Replayed) -> str:
    """Each window whose stored record is not what its samples give, then how many there are."""
    rows = [(d.machine, d.window, d.start, _oee(d.was), _oee(d.now), ", ".join(d.fields)) for d in found.differences]
    parts = [table(("machine", "window", "begin", "stored OEE", "anew", "what differs"), rows)] if rows else []
    many = f"{_count(found.windows, 'window')} out of {found.samples:,} samples"
    parts.append(f"{many}: {len(rows) or 'none'} differ{'s' if len(rows) == 1 else ''} from what is stored.")
    return "\n".join(parts)


def _oee(record: Mapping[str, Any] | None) -> str:
    return "no record" if record is None else percent(record.get("oee"))


def fates(rows: Sequence[LedgerRow], titles: Mapping[str, str]) -> str:
    """A line a source: what it is by ``titles``, what came from it, what each reader took of it, waits, or was lost.

    What a reader passes over because it is none of its business is no loss and is shown as –.
    """
    pairs = [pair for pair in balances(rows) if not pair.source.startswith("$")]
    received = {row.source: row.samples for row in rows if row.outcome == "received" and not row.source.startswith("$")}
    readers = list(dict.fromkeys(pair.reader for pair in pairs))
    taken = {(pair.source, pair.reader): pair.outcomes.get("delivered", 0) for pair in pairs}
    shown: list[tuple[object, ...]] = []
    for name, samples in received.items():
        outcomes = [pair.outcomes for pair in pairs if pair.source == name]
        waiting = sum(o.get("waiting", 0) for o in outcomes)
        lost = sum(o.get("rejected", 0) + o.get("dropped", 0) for o in outcomes)
        lost += sum(row.samples for row in rows if row.source == name and row.outcome == "lost before us")
        cells = (f"{taken.get((name, reader), 0):,}" if taken.get((name, reader)) else "–" for reader in readers)
        shown.append((name, titles.get(name, ""), f"{samples:,}", *cells, f"{waiting:,}", f"{lost:,}"))
    head = ("source", "what it is", "received", *(f"→ {reader}" for reader in readers), "waiting", "lost")
    parts = [table(head, shown, right=range(2, len(head)))] if shown else ["Nothing has been received."]
    parts.append("")
    wrong = [pair for pair in pairs if pair.missing]
    if wrong:
        parts += [f"{pair.source} → {pair.reader}: {pair.missing:+,} samples UNACCOUNTED for" for pair in wrong]
    elif losses := _losses(rows):
        parts += losses
    else:
        parts.append("Every sample is accounted for, and nothing was lost.")
    return "\n".join(parts)


def _pair(pair: Balance, outcomes: Sequence[str]) -> tuple[object, ...]:
    verdict = "balances" if not pair.missing else f"{pair.missing:+,} UNACCOUNTED"
    return pair.source, pair.reader, pair.owed, *(pair.outcomes.get(o, 0) for o in outcomes), verdict


def _interval(row: LedgerRow) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415

    if not row.first:
        return "time unknown"
    first, last = (datetime.fromtimestamp(t / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S") for t in (row.first, row.last))
    return f"{first} to {last} UTC"


def balanced(rows: Sequence[LedgerRow]) -> bool:
    """Whether nothing is unaccounted for."""
    return not any(pair.missing for pair in balances(rows))


def ledger_json(rows: Sequence[LedgerRow]) -> str:
    """Every row."""
    return msgspec.json.encode(rows).decode()


async def forget(path: Path, reader: str) -> None:
    """Take a reader out of a journal that no Shopfloor is using."""
    if not await asyncio.to_thread(path.exists):
        raise Misconfigured(f"there is no journal {path}")
    journal = await SqliteJournal.open(path)
    try:
        if not await journal.forget(reader):
            raise Misconfigured(f"the journal {path} has no reader {reader!r}; `shopfloor ledger` lists them")
    finally:
        await journal.close()
    click.echo(f"{reader} is forgotten; nothing is kept for it any more.")


def components(rows: Sequence[ComponentStatus]) -> str:
    """How every component stands; an error that is over is not shown."""
    head = ("component", "kind", "state", "samples", "waiting", "why")
    return table(
        head,
        [
            (c.name, c.kind, c.state, c.samples, c.lag_entries, "" if c.state == "running" else c.last_error)
            for c in rows
        ],
    )


def bench(name: str, results: Sequence[Result]) -> str:
    """A bench's figures."""
    head = (name, "value", "unit", "min", "max", "runs", "ratio")
    return table(head, [_figure(result) for result in results])


def _figure(result: Result) -> tuple[str, ...]:
    numbers = (_number(result.value), result.unit, _number(result.min), _number(result.max), str(result.runs))
    ratio = f"{result.ratio:.2f} of {result.ratio_to}" if result.ratio is not None else ""
    return result.name, *numbers, ratio


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004  # three digits are enough


def bench_json(name: str, results: Sequence[Result]) -> str:
    """A bench's figures with the machine that they were measured on."""
    import psutil  # noqa: PLC0415  # 45 ms that `shopfloor check` need not wait

    machine = {
        "cpus": psutil.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "processor": platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    return msgspec.json.encode({"bench": name, "machine": machine, "results": results}).decode()
