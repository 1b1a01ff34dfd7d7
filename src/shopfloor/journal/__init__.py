"""The durable record between everything, and the loss ledger (docs/specs/journal.md, docs/specs/ledger.md)."""

from shopfloor.journal.base import THINNED, DeadLetter, Entry, Journal, JournalState, LedgerRow, Reader, Tally, WhenFull
from shopfloor.journal.dead import addressed
from shopfloor.journal.ledger import Balance, balances, read_file
from shopfloor.journal.sqlite import SqliteJournal

__all__ = [
    "THINNED",
    "Balance",
    "DeadLetter",
    "Entry",
    "Journal",
    "JournalState",
    "LedgerRow",
    "Reader",
    "SqliteJournal",
    "Tally",
    "WhenFull",
    "addressed",
    "balances",
    "read_file",
]
