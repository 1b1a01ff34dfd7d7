"""What is broken, how, and how it is mended."""

import resource
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from shopfloor.chaos.stage import Stage
from shopfloor.samples import Misconfigured

Act = Callable[[Stage], Awaitable[None]]
_A_PAGE: Final = 4096


class Fault(NamedTuple):
    """One experiment."""

    name: str
    title: str
    """What happens, in a few words."""
    begin: Act
    end: Act


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


async def _lose_answers(stage: Stage) -> None:
    await stage.behave(lose_answers=True)


async def _behave(stage: Stage) -> None:
    await stage.behave()


async def _pull(stage: Stage) -> None:
    stage.proxy.black_hole()


async def _cut(stage: Stage) -> None:
    stage.proxy.reset()


async def _heal(stage: Stage) -> None:
    stage.proxy.heal()


async def _kill(stage: Stage) -> None:
    await stage.kill_shopfloor()


async def _start(stage: Stage) -> None:
    await stage.start_shopfloor()


async def _kill_both(stage: Stage) -> None:
    """First the MES, so that something waits when Shopfloor goes, too."""
    stage.signal_mes(signal.SIGKILL)
    await stage.kill_shopfloor()


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


FAULTS: Final[Sequence[Fault]] = (
    Fault("mes-killed", "the MES is killed and comes back", _kill_mes, _start_mes),
    Fault("mes-halted", "the MES hangs: it takes connections and says nothing", _halt_mes, _go_on_mes),
    Fault("mes-overloaded", "the MES answers 503, come back in a second", _overload, _behave),
    Fault("answers-lost", "the MES takes what comes, but its answers are lost", _lose_answers, _behave),
    Fault("cable-pulled", "the network says nothing any more", _pull, _heal),
    Fault("connections-cut", "all connections are reset, new ones refused", _cut, _heal),
    Fault("disk-full", "no room on Shopfloor's disk", _fill_disk, _empty_disk),
    Fault("killed", "Shopfloor is killed (kill -9) and started again", _kill, _start),
    Fault("both-killed", "the MES is killed, then Shopfloor, too", _kill_both, _start_both),
)


def chosen(names: Sequence[str]) -> Sequence[Fault]:
    """The faults of these names, all for none. Raises Misconfigured."""
    known = {fault.name: fault for fault in FAULTS}
    for name in names:
        if name not in known:
            raise Misconfigured(f"there is no fault {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in names] or FAULTS
