"""Who may write what: roles, presses as leases, at most once and never late, and the audit record.

The rules are in docs/specs/commands.md; numbers in this room's comments are theirs.
"""

from shopfloor.commands.audit import Audit, Entry, Event, Record, Verification, audit_path, verify
from shopfloor.commands.clock import Clock, SystemClock
from shopfloor.commands.control import Commands
from shopfloor.commands.exact import JsonValue, column_to_json, from_json, to_json
from shopfloor.commands.inbox import CommandInbox
from shopfloor.commands.permission import Permission
from shopfloor.commands.press import Release
from shopfloor.commands.refusal import Reason, Refused
from shopfloor.commands.roles import ROLES, Role

__all__ = [
    "ROLES",
    "Audit",
    "Clock",
    "CommandInbox",
    "Commands",
    "Entry",
    "Event",
    "JsonValue",
    "Permission",
    "Reason",
    "Record",
    "Refused",
    "Release",
    "Role",
    "SystemClock",
    "Verification",
    "audit_path",
    "column_to_json",
    "from_json",
    "to_json",
    "verify",
]
