"""How a host application says whether it is there: STATE, one truth for each server session."""

from typing import Final

import msgspec

from shopfloor.protocols.sparkplug.exchange import MS, Event, Moment, Publication, Step
from shopfloor.protocols.sparkplug.topics import StateTopic

_ONLINE: Final = b"ONLINE"
_OFFLINE: Final = b"OFFLINE"


class Presence:
    """The STATE messages of one host; will and birth of a session carry the one time at which it began."""

    def __init__(self, host_id: str, *, legacy: bool = False) -> None:
        """Connected to no server yet; ``legacy`` says it as in Sparkplug 2.2, in plain text and without a time."""
        self._host_id = host_id
        self._legacy = legacy
        self.topic = str(StateTopic(host_id, legacy=legacy))
        self._sessions: dict[str, int] = {}
        """The timestamp of each server session, ms."""

    def will(self, server: str, now: Moment) -> Publication:
        """The will of the session that is about to begin."""
        self._sessions[server] = now.utc // MS
        return self._said(server, self._sessions[server], online=False)

    def birth(self, server: str) -> Publication:
        """That this host is there, with the time of the will."""
        return self._said(server, self._sessions[server], online=True)

    def death(self, server: str, now: Moment) -> Publication:
        """That this host is about to go, with the present time."""
        return self._said(server, now.utc // MS, online=False)

    def ended(self, server: str) -> None:
        """The session is no more."""
        self._sessions.pop(server, None)

    def heard(self, server: str, host_id: str, body: bytes) -> Step:
        """A STATE message arrived: what contradicts this host is corrected at once, other hosts' are not ours."""
        step = Step()
        ours = self._sessions.get(server)
        if host_id != self._host_id or ours is None:
            return step
        if self._legacy:
            if body != _ONLINE:
                step.publications.append(self.birth(server))
            return step
        try:
            said = msgspec.json.decode(body, type=_State)
        except (msgspec.DecodeError, UnicodeDecodeError):
            step.events.append(Event("state", host_id, "somebody published a STATE of this host that is no STATE"))
            step.publications.append(self.birth(server))
            return step
        if not said.online:
            step.publications.append(self.birth(server))
        elif said.timestamp > ours:
            text = "another host application uses this host_id; give each its own"
            step.events.append(Event("clash", host_id, text))
        return step

    def _said(self, server: str, timestamp: int, *, online: bool) -> Publication:
        if self._legacy:
            return Publication(server, self.topic, _ONLINE if online else _OFFLINE, 1, retain=True)
        body = msgspec.json.encode(_State(online=online, timestamp=timestamp))
        return Publication(server, self.topic, body, 1, retain=True)


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """The body of a STATE message; ms."""

    online: bool
    timestamp: int
