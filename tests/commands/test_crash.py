"""A process that is killed between issue and execution, or while a button is held."""

import asyncio
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from shopfloor.commands import Audit, Commands, verify
from shopfloor.plant import Allow, Commands as CommandsConfig
from shopfloor.samples import Command, Outcome

CHILD = textwrap.dedent("""
    import asyncio, sys, time
    from pathlib import Path
    from shopfloor.commands import Audit, Commands
    from shopfloor.plant import Allow, Commands as CommandsConfig
    from shopfloor.samples import Outcome

    path, what, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    allow = [Allow(tag="SP", range=(0, 80)), Allow(tag="Start", momentary=True)]

    def dead_here(now):
        if now == moment:
            print("here", flush=True)
            time.sleep(60)

    async def execute(command):
        dead_here("before")
        with path.with_name("machine").open("a") as machine:
            machine.write(f"{command.id} {command.value}\\n")
        dead_here("after")
        return Outcome(command.id, done=True)

    async def main():
        async with Commands(CommandsConfig(allow=allow), Audit(path, time.time_ns), execute) as commands:
            if what == "send":
                await commands.send("SP", 5, issued_by="ada", role="operator", command_id="one")
            else:
                await commands.press("Start", "one", issued_by="ada", role="operator")
            dead_here("end")

    asyncio.run(main())
""")


def killed(path: Path, what: str, moment: str) -> list[str]:
    """Run the child until it is at ``moment``, kill it there, and give what its machine got."""
    with subprocess.Popen([sys.executable, "-c", CHILD, path, what, moment], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        child.send_signal(signal.SIGKILL)
    machine = path.with_name("machine")
    return machine.read_text().splitlines() if machine.exists() else []


class Next:
    """The next start of the process."""

    def __init__(self, path: Path) -> None:
        self.got: list[Command] = []
        self.done = asyncio.Event()
        allow = [Allow(tag="SP", range=(0, 80)), Allow(tag="Start", momentary=True)]
        self.commands = Commands(CommandsConfig(allow=allow), Audit(path, lambda: 1), self.execute)

    async def execute(self, command: Command) -> Outcome:
        self.got.append(command)
        self.done.set()
        return Outcome(command.id, done=True)

    async def events(self) -> list[str]:
        return [record.event for record in reversed(await self.commands.audit())]


@pytest.mark.parametrize(("moment", "written"), [("before", 0), ("after", 1), ("end", 1)])
async def test_a_command_is_on_record_before_it_is_executed_and_never_sent_twice(
    tmp_path: Path, moment: str, written: int
) -> None:
    path = tmp_path / "audit.db"
    assert len(killed(path, "send", moment)) == written
    after = Next(path)
    async with after.commands as commands:
        assert await after.events() == ["issued", "done" if moment == "end" else "unknown"]
        again = await commands.send("SP", 5, issued_by="ada", role="operator", command_id="one")
        assert again.done is (True if moment == "end" else None)
    assert after.got == []
    assert verify(path).intact


@pytest.mark.parametrize("moment", ["before", "after", "end"])
async def test_a_press_that_was_open_is_released_at_the_next_start(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "audit.db"
    killed(path, "press", moment)
    after = Next(path)
    async with after.commands:
        async with asyncio.timeout(60):
            await after.done.wait()
            while await after.commands._audit.pending():  # the record has no event to wait for
                await asyncio.sleep(0)
        assert (await after.events())[-2:] == ["release", "done"]
    assert [(c.tag, c.value) for c in after.got] == [("Start", False)]
    assert verify(path).intact
