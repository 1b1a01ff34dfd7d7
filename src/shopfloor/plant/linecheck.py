"""What is wrong with the lines of a plant file: machines that are not there, stand in two lines, or say too little."""

from shopfloor.plant.line import Line, machines_of
from shopfloor.plant.machine import Machine
from shopfloor.plant.model import Plant
from shopfloor.plant.reader import Place, Reader
from shopfloor.plant.wording import meant


def check_lines(reader: Reader, plant: Plant) -> None:
    """Complain about lines, one by one and against each other."""
    _LineCheck(reader, plant).run()


class _LineCheck:
    def __init__(self, reader: Reader, plant: Plant) -> None:
        self._reader = reader
        self._plant = plant
        self._machines = {machine.id: machine for machine in plant.machines}
        self._homes: dict[str, tuple[str, Place]] = {}
        """In which line a machine is, and where that is said."""

    def run(self) -> None:
        self._names()
        for i, line in enumerate(self._plant.lines):
            members = self._members(i, line)
            if members:
                self._roles(i, line, members)
                self._policies(i, line, members)
        known = [line.id for line in self._plant.lines]
        for i, machine in enumerate(self._plant.machines):
            if known and machine.line is not None and machine.line not in known:
                text = f"there is no line {machine.line!r} in `lines`{meant(machine.line, known)}"
                self._reader.complain(("machines", i, "line"), text)

    def _names(self) -> None:
        """Figures of machines, lines, areas and the site are tags: their names must differ."""
        if not self._plant.lines:
            return
        seen: dict[str, tuple[str, Place]] = {self._plant.plant.site: ("the site", ("plant", "site"))}
        for i, machine in enumerate(self._plant.machines):
            seen.setdefault(machine.id, ("a machine", ("machines", i, "id")))
        for i, line in enumerate(self._plant.lines):
            place: Place = ("lines", i, "id")
            if line.id in seen:
                what, there = seen[line.id]
                text = f"the id {line.id!r} is taken by {what} in line {self._reader.line(there)}; choose another"
                self._reader.complain(place, text)
            seen.setdefault(line.id, ("a line", place))
        for i, line in enumerate(self._plant.lines):
            if line.area in seen:
                what, there = seen[line.area]
                text = f"the name {line.area!r} is taken by {what} in line {self._reader.line(there)}; choose another"
                self._reader.complain(("lines", i, "area"), text)

    def _members(self, i: int, line: Line) -> list[Machine]:
        """The line's machines, as far as they are what it needs."""
        found: list[Machine] = []
        for j, name in enumerate(line.machines):
            place: Place = ("lines", i, "machines", j)
            machine = self._machines.get(name)
            if machine is None:
                self._reader.complain(place, f"there is no machine {name!r}{meant(name, self._machines)}")
            elif machine.line not in (None, line.id):
                text = f"the machine {name!r} says that it is of the line {machine.line!r}; change one of the two"
                self._reader.complain(place, text)
            elif self._alone(line, name, place):
                found.append(machine)
        if not line.machines:
            pairs = [(machine.id, machine.line) for machine in self._plant.machines]
            found = [self._machines[name] for name in machines_of(line, pairs)]
            found = [machine for machine in found if self._alone(line, machine.id, ("lines", i, "id"))]
            if not found:
                text = f"has no machine; list its `machines`, or give machines `line: {line.id}`"
                self._reader.complain(("lines", i, "id"), text)
        for machine in found:
            if not {"state", "good", "total"} & machine.roles.keys():
                text = f"the machine {machine.id!r} names no tag that tells of it; give it `state`, `good` or `total`"
                self._reader.complain(("lines", i, "machines" if line.machines else "id"), text)
        return found

    def _alone(self, line: Line, machine: str, place: Place) -> bool:
        if machine in self._homes:
            other, there = self._homes[machine]
            where = "this line" if other == line.id else f"the line {other!r}"
            text = f"the machine {machine!r} is in {where} already, see line {self._reader.line(there)}; keep one"
            self._reader.complain(place, text)
            return False
        self._homes[machine] = line.id, place
        return True

    def _roles(self, i: int, line: Line, members: list[Machine]) -> None:
        """The machines that a line names for what they do in it."""
        names = [machine.id for machine in members]
        for key in ("bottleneck", "output"):
            name: str | None = getattr(line, key)
            if name is not None and name not in names:
                text = f"the machine {name!r} is not of this line; it has: {', '.join(names)}"
                self._reader.complain(("lines", i, key), text)
        if line.policy == "bottleneck" and line.bottleneck is None:
            text = f"needs to know which machine it is; add `bottleneck: {names[0]}`, or another of its machines"
            self._reader.complain(("lines", i, "policy"), text)
        if line.policy == "sum":
            for key in ("bottleneck", "output"):
                if getattr(line, key) is not None:
                    text = "has no meaning with `policy: sum`; take it away, or choose another policy"
                    self._reader.complain(("lines", i, key), text)

    def _policies(self, i: int, line: Line, members: list[Machine]) -> None:
        """What the policy asks of the machines."""
        if line.policy != "bottleneck" and len({machine.minor_stops for machine in members}) > 1:
            text = f"its machines differ in `minor_stops`, so that their times cannot go together under {line.policy!r}"
            self._reader.complain(("lines", i, "policy"), f"{text}; give them the same")
        if line.policy == "sum":
            return
        last = line.output or members[-1].id
        output = next((machine for machine in members if machine.id == last), None)
        if output is not None and not {"good", "total"} & output.roles.keys():
            text = f"the machine {last!r} counts no units, so that nobody knows what leaves the line"
            place: Place = ("lines", i, "output" if line.output else "policy")
            self._reader.complain(place, f"{text}; give it `good` or `total`, or name another as `output`")
        pace = next((machine for machine in members if machine.id == (line.bottleneck or last)), None)
        if pace is not None and pace.ideal_cycle is None and not pace.products:
            text = f"the machine {pace.id!r} sets the pace of the line, but has no `ideal_cycle`; give it one"
            self._reader.complain(("lines", i, "bottleneck" if line.bottleneck else "policy"), text)
