"""What is broken, how, and how it is mended."""

import contextlib
import resource
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from shopfloor.chaos.databases import KINDS
from shopfloor.chaos.stage import MES, Stage
from shopfloor.samples import Misconfigured

Act = Callable[[Stage], Awaitable[Sequence[str] | None]]
"""Gives what was seen where it made sure in the middle of what it came."""
_A_PAGE: Final = 4096
_TRIES: Final = 5
_DATABASES: Final = frozenset(kind.name for kind in KINDS)
_EVERYTHING: Final = frozenset({MES, *_DATABASES})


class Fault(NamedTuple):
    """One experiment."""

    name: str
    title: str
    """What happens, in a few words."""
    begin: Act
    end: Act
    hits: frozenset[str] = frozenset({MES})
    """The destinations that cannot be delivered to meanwhile; to the others everything goes as if nothing was. Those
    that do not stand on the stage are not missed, as long as one of them does."""


async def _kill_mes(stage: Stage) -> None:
    stage.signal_mes(signal.SIGKILL)


async def _start_mes(stage: Stage) -> None:
    await stage.start_mes()


async def _halt_mes(stage: Stage) -> None:
    stage.signal_mes(signal.SIGSTOP)


async def _go_on_mes(stage: Stage) -> None:
    stage.signal_mes(signal.SIGCONT)


async def _overload(stage: Stage) -> None:
    await stage.behave(status=503, retry_after="1")


async def _behave(stage: Stage) -> None:
    await stage.behave()


async def _lose_answers(stage: Stage) -> Sequence[str]:
    """Of the MES all, of the databases those to COMMIT: what is stored for good is not known to be."""
    for name, proxy in stage.proxies.items():
        proxy.lose_answers(b"POST" if name == MES else b"COMMIT")
    return await stage.answers_lost()


async def _pull(stage: Stage) -> None:
    for proxy in stage.proxies.values():
        proxy.black_hole()


async def _cut(stage: Stage) -> None:
    for proxy in stage.proxies.values():
        proxy.reset()


async def _heal(stage: Stage) -> None:
    for proxy in stage.proxies.values():
        proxy.heal()


async def _kill(stage: Stage) -> Sequence[str]:
    """While its transactions are open in all databases; on a computer that is too slow for that, after some tries."""
    for _ in range(_TRIES):
        async with contextlib.AsyncExitStack() as stack:
            seen = [await stack.enter_async_context(one.in_transaction()) for one in stage.databases.values()]
            if seen and all(one.sure for one in seen):
                await stage.kill_shopfloor()
                if all(one.sure for one in seen):
                    return [f"Shopfloor: killed while it had a transaction open in {', '.join(stage.databases)}"]
                return ()
    await stage.kill_shopfloor()
    return ()


async def _start(stage: Stage) -> None:
    await stage.start_shopfloor()


async def _kill_both(stage: Stage) -> Sequence[str]:
    """First the MES, so that something waits when Shopfloor goes, too."""
    stage.signal_mes(signal.SIGKILL)
    return await _kill(stage)


async def _start_both(stage: Stage) -> None:
    """First Shopfloor: it finds the MES away, as it left it."""
    await stage.start_shopfloor()
    await stage.start_mes()


async def _fill_disk(stage: Stage) -> None:
    """No file of Shopfloor's grows beyond a page: what a full disk does, for this process alone."""
    _, hard = resource.prlimit(stage.shopfloor, resource.RLIMIT_FSIZE)
    resource.prlimit(stage.shopfloor, resource.RLIMIT_FSIZE, (_A_PAGE, hard))


async def _empty_disk(stage: Stage) -> None:
    _, hard = resource.prlimit(stage.shopfloor, resource.RLIMIT_FSIZE)
    resource.prlimit(stage.shopfloor, resource.RLIMIT_FSIZE, (hard, hard))


def _kill_database(name: str) -> Act:
    async def kill(stage: Stage) -> Sequence[str]:
        return [await stage.databases[name].kill_in_transaction()]

    return kill


def _start_database(name: str) -> Act:
    async def start(stage: Stage) -> None:
        await stage.databases[name].start()

    return start


def _halt_database(name: str) -> Act:
    async def halt(stage: Stage) -> None:
        stage.databases[name].halt()

    return halt


def _go_on_database(name: str) -> Act:
    async def go_on(stage: Stage) -> None:
        stage.databases[name].go_on()

    return go_on


def _of_databases() -> Iterable[Fault]:
    for kind in KINDS:
        name, hits = kind.name, frozenset({kind.name})
        yield Fault(
            f"{name}-killed", f"{kind.title} is killed in mid-transaction and comes back",
            _kill_database(name), _start_database(name), hits,
        )  # fmt: skip
        yield Fault(f"{name}-halted", f"{kind.title} hangs", _halt_database(name), _go_on_database(name), hits)


async def _end_sessions(stage: Stage) -> Sequence[str]:
    return [await one.end_session() for one in stage.databases.values()]


async def _nothing(_: Stage) -> None:
    """They log in again by themselves."""


FAULTS: Final[Sequence[Fault]] = (
    Fault("mes-killed", "the MES is killed and comes back", _kill_mes, _start_mes),
    Fault("mes-halted", "the MES hangs: it takes connections and says nothing", _halt_mes, _go_on_mes),
    Fault("mes-overloaded", "the MES answers 503, come back in a second", _overload, _behave),
    *_of_databases(),
    Fault("sessions-ended", "the databases end our sessions in mid-transaction", _end_sessions, _nothing, _DATABASES),
    Fault("answers-lost", "all that comes is taken, but the answers are lost", _lose_answers, _heal, _EVERYTHING),
    Fault("cable-pulled", "the network says nothing any more", _pull, _heal, _EVERYTHING),
    Fault("connections-cut", "all connections are reset, new ones refused", _cut, _heal, _EVERYTHING),
    Fault("disk-full", "no room on Shopfloor's disk", _fill_disk, _empty_disk, _EVERYTHING),
    Fault("killed", "Shopfloor is killed in mid-transaction and started again", _kill, _start, _EVERYTHING),
    Fault("both-killed", "the MES is killed, then Shopfloor, too", _kill_both, _start_both, _EVERYTHING),
)


def missing() -> Mapping[str, str]:
    """The destinations that are not installed here, and how to install each."""
    return {kind.name: said for kind in KINDS if (said := kind.missing())}


def left_out(away: Mapping[str, str]) -> Sequence[str]:
    """Lines that say which of the destinations are ``missing``, and which faults therefore are; none for none."""
    if not away:
        return ()
    faults = ", ".join(fault.name for fault in FAULTS if fault.hits <= away.keys())
    return [*(f"{kind.title} takes no part: {away[kind.name]}." for kind in KINDS if kind.name in away),
            f"Left out: {faults}."]  # fmt: skip


def chosen(names: Sequence[str], away: Mapping[str, str]) -> Sequence[Fault]:
    """The faults of these names, for none all that can be done without what is ``missing``. Raises Misconfigured."""
    known = {fault.name: fault for fault in FAULTS}
    for name in names:
        if name not in known:
            raise Misconfigured(f"there is no fault {name!r}; there are: {', '.join(known)}")
        if known[name].hits <= away.keys():
            raise Misconfigured(
                f"the fault {name} cannot be: {' '.join(away[one] for one in sorted(known[name].hits))}"
            )
    return [known[name] for name in names] or [fault for fault in FAULTS if not fault.hits <= away.keys()]
