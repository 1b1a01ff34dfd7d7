"""Reads scenario files. Every problem names the file, the line and what to do."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple

from shopfloor import plant as plants
from shopfloor.plant import Plant, PlantError
from shopfloor.plant.calendar import parse_clock
from shopfloor.plant.reader import Problem
from shopfloor.plant.units import parse_duration
from shopfloor.samples import Value

LARGEST: Final = 4 * 2**20
"""Bytes; a file above it is surely no scenario."""
MOST_VALUES: Final = 1_000_000
"""Of one load: a week of a value a second is less."""
SOURCE: Final = "plc"
"""What a source is called where the file does not say it."""
WINDOWS: Final = ("hour", "shift", "day", "live", "product", "order", "cycle")
MADE: Final = ("product", "order")
"""Windows that are named by what is made in them."""
_INLINE: Final = """
sources:
  - {name: plc, type: mqtt, servers: ["mqtt://127.0.0.1"], topics: [{topic: "#"}]}
processors:
  - {name: figures, type: machine}
"""
"""What a plant that is written into a scenario needs, and nobody wants to write."""

_COMMENT: Final = re.compile(r"(?:^|\s)#.*$")
_REPEATED: Final = re.compile(r"(.+?)\*(\d{1,7})|([+-]?\d+(?:\.\d+)?|_|bad|true|false)x(\d{1,7})", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_STEP: Final = re.compile(r"\+\d+(\.\d+)?", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_EXPECTATION: Final = re.compile(rf"(\S+)\s+({'|'.join(WINDOWS)})\b\s*(.*?):\s+(.+)")
_ITEM: Final = re.compile(r"(loss|scrap_reason|lost_to|target)\s+(\S+)\s+(.+)|([a-z_0-9]+)\s+(.+)")
_SHARE: Final = re.compile(r"(?:(product|order)\s+(\S+)|(cycle))\s+([a-z_0-9]+\s+.+)")
_ENDED: Final = re.compile(r"(.*\d\d:\d\d):(\d\d)", re.ASCII)
_UNIT: Final = "%|ms|s|min|h|d"
_AMOUNT: Final = re.compile(rf"(-?\d+(?:\.\d+)?)\s*({_UNIT})?(?:\s*(?:±|\+-|\+/-)\s*(\d+(?:\.\d+)?)\s*({_UNIT})?)?")


class ScenarioError(PlantError):
    """A scenario file that cannot be read; its text names every problem with file and line."""


class When(NamedTuple):
    """A time of day at the site; the date is None on the scenario's first day."""

    day: date | None
    minutes: int


class Bad:
    """Stands for a value of bad quality."""


BAD: Final = Bad()


class Series(NamedTuple):
    """What one tag says, at most once a step."""

    line: int
    tag: str
    values: Sequence[tuple[int, Value | Bad]]
    """Number of the step, value."""


@dataclass
class Load:
    """Tags that say something every ``step``."""

    step: int
    """ns."""
    begin: When | None
    """None: when the scenario starts."""
    late: int
    """ns from their own time to their arrival."""
    arrives: When | None
    """When all of them arrive at once; None: each by itself."""
    source: str
    series: list[Series] = field(default_factory=list[Series])


class Lost(NamedTuple):
    """A source is away."""

    source: str
    begin: When
    end: When | None
    """None: it does not come back."""
    kept: bool
    """Whether it kept what happened meanwhile and gives it afterwards."""


class Amount(NamedTuple):
    """A number that is expected, in its unit."""

    number: Decimal
    unit: str
    """"" for none."""
    tolerance: Decimal | None
    """In the same unit; None: the digits that are written must agree."""


class Expected(NamedTuple):
    """One figure of a window."""

    key: str
    of: str
    """The reason of a loss or of scrap, the machine that a line stood for, the figure of a target; "" for others."""
    value: Amount | str | None
    """None: it has no meaning, “—”."""
    text: str
    """As it is written."""
    within: str = ""
    """Of which part of the record it is: `product` or `order` (named by ``of``), `cycle`; "" for the whole."""


class Expectation(NamedTuple):
    """What a window's record is to say."""

    line: int
    label: str
    """The window as it is written."""
    machine: str
    window: str
    shift: str
    """Of a shift its name, of what is made what that is."""
    begin: When
    """The window's day; of an hour also when it begins."""
    seconds: int
    """Of a cycle that ended then those behind the minutes of ``begin``."""
    expected: Sequence[Expected]


class Eval(NamedTuple):
    """A moment at which records are looked at."""

    when: When
    expectations: list[Expectation]


@dataclass
class Scenario:
    """A machine's history and what is to come of it."""

    title: str
    line: int
    start: When
    loads: list[Load] = field(default_factory=list[Load])
    losses: list[Lost] = field(default_factory=list[Lost])
    evals: list[Eval] = field(default_factory=list[Eval])

    def day(self, when: When) -> date:
        """The day of a moment: the first one where none is written."""
        return when.day or self.start.day or date.min  # `start` has one, the reader sees to it


@dataclass
class File:
    """A scenario file."""

    name: str
    plant: Plant
    scenarios: list[Scenario]


class _Line(NamedTuple):
    number: int
    indented: bool
    text: str


def read(file: Path) -> File:
    """The scenarios of a file with the plant that they are about. Raises ScenarioError with every problem."""
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ScenarioError([Problem(str(file), line, "", "is not UTF-8 text; save it as UTF-8")]) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ScenarioError([Problem(str(file), 1, "", f"cannot be read: {reason}")]) from error
    if len(content) > LARGEST:
        text_ = f"more than {LARGEST // 2**20} MiB; write several files"
        raise ScenarioError([Problem(str(file), 1, "", text_)])
    return parse(text, str(file), file.resolve().parent)


def read_all(files: Sequence[Path]) -> list[File]:
    """Several files. Raises ScenarioError with the problems of all."""
    found: list[File] = []
    problems: list[Problem] = []
    for file in files:
        try:
            found.append(read(file))
        except PlantError as error:
            problems += error.problems
    if problems:
        raise ScenarioError(problems)
    return found


def parse(text: str, name: str, folder: Path) -> File:
    """The scenarios of a text; ``folder`` is where a plant file's path begins. Raises ScenarioError."""
    return _Reader(text, name, folder).read()


class _Wrong(ValueError):
    """What is wrong with a line."""


class _Reader:
    """Goes through the lines; the statement above takes what is indented below it."""

    def __init__(self, text: str, name: str, folder: Path) -> None:
        self._raw = text.splitlines()
        self._name = name
        self._folder = folder
        self._problems: list[Problem] = []
        self._plant: Plant | None = None
        self._named_plant = False
        self._scenarios: list[Scenario] = []
        self._below: Load | Eval | None = None
        """What an indented line belongs to."""

    def read(self) -> File:
        lines = iter(list(self._lines()))
        for line in lines:
            try:
                if not line.indented and line.text.startswith("plant"):
                    self._take_plant(line)
                elif line.indented:
                    self._inside(line)
                else:
                    self._statement(line)
            except ValueError as error:
                self._complain(line.number, str(error))
        if not self._named_plant:
            self._complain(1, "names no plant; write `plant: plant.yaml`, or `plant:` with the machines below it")
        elif not self._scenarios and not self._problems:
            self._complain(len(self._raw) or 1, "has no scenario; write `scenario TITLE`, `start`, `load` and `eval`")
        for scenario in self._scenarios if not self._problems else ():
            self._whole(scenario)
        if self._problems or self._plant is None:
            raise ScenarioError(sorted(self._problems, key=lambda problem: problem.line))
        return File(self._name, self._plant, self._scenarios)

    def _complain(self, line: int, text: str) -> None:
        self._problems.append(Problem(self._name, line, "", text))

    def _lines(self) -> Iterator[_Line]:
        """Lines that say something; those of a plant that is written in are its own."""
        inline = False
        for number, raw in enumerate(self._raw, start=1):
            text = _COMMENT.sub("", raw).rstrip()
            if not text:
                continue
            indented = text[0].isspace()
            inline = (inline and indented) or text.replace(" ", "") == "plant:"
            if not (inline and indented):
                yield _Line(number, indented, text.strip())

    # --- the plant

    def _take_plant(self, line: _Line) -> None:
        key, colon, rest = line.text.partition(":")
        if key.strip() != "plant" or not colon:
            raise _Wrong("is no statement; write `plant: plant.yaml`")
        if self._named_plant:
            raise _Wrong("names a second plant; a file is about one")
        self._named_plant = True
        self._below = None
        try:
            if rest.strip():
                self._plant = plants.load(self._folder / rest.strip())
            else:
                self._plant = plants.parse(self._inline(line.number), self._name, self._folder)
        except PlantError as error:
            self._problems += error.problems

    def _inline(self, number: int) -> str:
        """The plant that stands below, on its own lines, so that its problems name them."""
        below: list[str] = []
        for raw in self._raw[number:]:
            if raw.strip() and not raw[0].isspace() and not raw.startswith("#"):
                break
            below.append(raw if not raw.startswith("#") else "")
        indent = min((len(raw) - len(raw.lstrip()) for raw in below if raw.strip()), default=0)
        text = "\n".join(raw[indent:] for raw in below)
        site = "" if re.search(r"^plant\s*:", text, re.MULTILINE) else "\nplant: {site: scenario}"
        return "\n" * number + text + site + _INLINE

    # --- statements

    def _statement(self, line: _Line) -> None:
        verb, _, rest = line.text.partition(" ")
        rest = rest.strip()
        self._below = None
        if verb == "scenario":
            if not rest:
                raise _Wrong("has no title; write in a few words what happens")
            self._scenarios.append(Scenario(rest, line.number, When(None, -1)))
            return
        if verb not in ("start", "load", "lost", "eval"):
            raise _Wrong(f"begins with {verb[:40]!r}; known: plant, scenario, start, load, lost, eval")
        if not self._scenarios:
            raise _Wrong(f"stands before the first scenario; write `scenario TITLE` above `{verb}`")
        scenario = self._scenarios[-1]
        if verb == "start":
            if scenario.start.minutes >= 0:
                raise _Wrong("starts the scenario a second time; one `start` is enough")
            scenario.start = _when(rest)
            if scenario.start.day is None:
                raise _Wrong("needs a date and a time of day: `start 2026-01-05 06:00`")
        elif verb == "load":
            self._below = _load(rest)
            scenario.loads.append(self._below)
        elif verb == "lost":
            scenario.losses.append(_lost(rest))
        else:
            self._below = Eval(_when(_after(rest, "at", "eval at 14:00")), [])
            scenario.evals.append(self._below)

    def _inside(self, line: _Line) -> None:
        if isinstance(self._below, Load):
            tag, *words = line.text.split()
            if not words:
                raise _Wrong(f"gives {tag!r} no values; write them behind it: `6 6 6x10 _ bad`")
            self._below.series.append(Series(line.number, tag, _values(words)))
        elif isinstance(self._below, Eval):
            self._below.expectations.append(_expectation(line, self._machine(line)))
        elif not self._problems:
            raise _Wrong("is indented, but neither `load` nor `eval` stands above it")

    def _machine(self, line: _Line) -> str:
        """The machine, the line or the area that a line of text is about; an unknown one is a mistake in writing."""
        name = line.text.split()[0]
        if self._plant is not None and name not in (known := _names(self._plant)):
            raise _Wrong(f"there is no machine or line {name!r} in the plant; it has: {', '.join(known) or 'none'}")
        return name

    def _whole(self, scenario: Scenario) -> None:
        """What a single line cannot know."""
        if scenario.start.minutes < 0:
            self._complain(scenario.line, "has no beginning; write `start 2026-01-05 06:00` below the title")
        if not any(one.expectations for one in scenario.evals):
            self._complain(scenario.line, "expects nothing; write `eval at 14:00` and below it what is to come of it")
        known = (
            {tag for machine in self._plant.machines for tag in machine.roles.values()} if self._plant else set[str]()
        )
        for load in scenario.loads:
            for series in load.series:
                if series.tag not in known:
                    text = f"no machine reads the tag {series.tag!r}; they read: {', '.join(sorted(known)) or 'none'}"
                    self._complain(series.line, text)


def _names(plant: Plant) -> list[str]:
    """What figures are given of: machines, lines, areas and the site."""
    lines = [line.id for line in plant.lines]
    areas = dict.fromkeys(line.area for line in plant.lines if line.area is not None)
    return [*(machine.id for machine in plant.machines), *lines, *areas, *([plant.plant.site] if lines else [])]


# --- the words of a line


def _after(text: str, word: str, example: str) -> str:
    first, _, rest = text.partition(" ")
    if first != word:
        msg = f"needs `{word}`: `{example}`"
        raise _Wrong(msg)
    return rest.strip()


def _when(text: str) -> When:
    """``14:00`` or ``2026-01-06 14:00``."""
    day: date | None = None
    words = text.split()
    if words and _DATE.fullmatch(words[0]):
        day = _day(words.pop(0))
    if len(words) != 1:
        msg = f"needs a time of day, `14:00` or `2026-01-06 14:00` (here: {text[:40]!r})"
        raise _Wrong(msg)
    return When(day, parse_clock(words[0]))


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        msg = f"has a day that does not exist: {text}"
        raise _Wrong(msg) from error


def _options(text: str, known: Sequence[str]) -> tuple[str, dict[str, str]]:
    """``1m from 07:00 late 2h``: what stands first, and what stands behind each of the known words."""
    parts = re.split(rf"(?:^|\s+)({'|'.join(known)})(?:\s+|$)", text)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    if len(found) < len(parts) // 2:
        msg = f"says the same twice; known here: {', '.join(known)}"
        raise _Wrong(msg)
    return parts[0].strip(), found


def _load(text: str) -> Load:
    step, options = _options(text, ("from", "late", "arrives", "source"))
    if not step:
        msg = "needs the time from one value to the next: `load 1m`"
        raise _Wrong(msg)
    length = parse_duration(step)
    if not length:
        msg = "needs a step longer than 0"
        raise _Wrong(msg)
    begin = _when(options["from"]) if "from" in options else None
    late = parse_duration(options["late"]) if "late" in options else 0
    arrives = _when(options["arrives"]) if "arrives" in options else None
    if late and arrives is not None:
        msg = "is `late` and `arrives` at once; write one of them"
        raise _Wrong(msg)
    return Load(length, begin, late, arrives, options.get("source") or SOURCE)


def _lost(text: str) -> Lost:
    kept = bool(re.search(r"\bkept$", text))
    source, options = _options(text.removesuffix("kept").strip(), ("from", "to"))
    if "from" not in options:
        msg = "needs when: `lost plc from 07:10 to 08:00`, and `kept` behind it if nothing was missed"
        raise _Wrong(msg)
    end = _when(options["to"]) if "to" in options else None
    if kept and end is None:
        msg = "cannot have kept what happened without coming back; add `to 08:00`"
        raise _Wrong(msg)
    return Lost(source or SOURCE, _when(options["from"]), end, kept)


def _values(words: Sequence[str]) -> list[tuple[int, Value | Bad]]:
    """``0 +1x30 _x5 6 bad running*10``: one value a step."""
    found: list[tuple[int, Value | Bad]] = []
    step = 0
    last: int | float | None = None
    for word in words:
        match = _REPEATED.fullmatch(word)
        text, times = (match[1] or match[3], int(match[2] or match[4])) if match else (word, 1)
        if step + times > MOST_VALUES:
            msg = f"has more than {MOST_VALUES:,} values; write a longer step"
            raise _Wrong(msg)
        if _STEP.fullmatch(text):
            if last is None:
                msg = f"goes on by {text} from nothing; write the first value before it: `0 {word}`"
                raise _Wrong(msg)
            for i in range(times):
                last += _number(text)
                found.append((step + i, last))
        elif text != "_":
            value = _value(text)
            if isinstance(value, int | float) and not isinstance(value, bool):
                last = value
            found += [(step + i, value) for i in range(times)]
        step += times
    return found


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _value(text: str) -> Value | Bad:
    if text == "bad":
        return BAD
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text):
        return _number(text)
    return text.strip("'\"")


def _expectation(line: _Line, machine: str) -> Expectation:
    match = _EXPECTATION.fullmatch(line.text)
    if match is None:
        msg = "is no expectation; write `press-1 shift early: oee 74.8 %, unplanned_stop 30 min`"
        raise _Wrong(msg)
    _, window, which, rest = match.groups()
    *words, last = which.split() or [""]
    shift, begin, seconds = "", When(None, 0), 0
    if window == "hour":
        begin = _when(which)
    elif window == "cycle":
        ended = _ENDED.fullmatch(which)
        begin, seconds = _when(ended[1] if ended else which), int(ended[2]) if ended else 0
    elif window in MADE:
        shift, begin = _made(window, which)
    elif window == "shift":
        named = [*words, last]
        if _DATE.fullmatch(last):
            begin = When(_day(named.pop()), 0)
        shift = " ".join(named)
        if not shift:
            msg = "does not say which shift: `press-1 shift early:`"
            raise _Wrong(msg)
    elif window == "day" and which:
        begin = When(_day(which), 0)
    elif which:
        msg = f"says {which[:40]!r}, but there is one `live` record only"
        raise _Wrong(msg)
    label = " ".join(filter(None, (machine, window, which)))
    return Expectation(
        line.number, label, machine, window, shift, begin, seconds, [_expected(i.strip()) for i in rest.split(",")]
    )


def _made(window: str, which: str) -> tuple[str, When]:
    """``A17``, ``A17 07:00`` or ``A17 2026-01-06 07:00``: what is made, and since when where it is said."""
    name, _, when = which.partition(" ")
    if not name:
        msg = f"does not say which {window}: `press-1 {window} A17:`"
        raise _Wrong(msg)
    return name, _when(when) if when else When(None, -1)


def _expected(text: str) -> Expected:
    if (share := _SHARE.fullmatch(text)) is not None:
        key, said = share[4].split(maxsplit=1)
        return _valued(Expected(key, share[2] or "", None, text, share[1] or share[3]), said)
    match = _ITEM.fullmatch(text)
    if match is None:
        msg = f"expects {text[:40]!r}; write a figure and its value: `oee 74.8 %`, `loss machine/hydraulics 30 min`"
        raise _Wrong(msg)
    key, of, said = (match[1], match[2], match[3]) if match[1] else (match[4], "", match[5])
    return _valued(Expected(key, "" if of == "none" else of, None, text), said)


def _valued(expected: Expected, said: str) -> Expected:
    """With what is to be the value of a figure."""
    said = said.strip()
    if said in ("—", "-", "none"):
        return expected
    amount = _AMOUNT.fullmatch(said)
    if amount is None:
        return expected._replace(value=said.strip("'\""))
    number, unit, tolerance, other = amount.groups()
    if other and other != unit:
        msg = f"{expected.text[:40]!r} has a tolerance in another unit; write both in the same"
        raise _Wrong(msg)
    return expected._replace(value=Amount(Decimal(number), unit or "", Decimal(tolerance) if tolerance else None))
