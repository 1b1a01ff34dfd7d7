"""The states of a machine as PackML numbers them (ISA-TR88.00.02)."""

from enum import IntEnum


class State(IntEnum):
    """All 17; those on -ING are left by themselves, in the others a machine stays until something happens."""

    CLEARING = 1
    STOPPED = 2
    STARTING = 3
    IDLE = 4
    SUSPENDED = 5
    """It waits for something outside: no material comes, or nobody takes what it makes."""
    EXECUTE = 6
    STOPPING = 7
    ABORTING = 8
    ABORTED = 9
    HOLDING = 10
    HELD = 11
    """It waits for something inside: a fault that somebody must clear."""
    UNHOLDING = 12
    SUSPENDING = 13
    UNSUSPENDING = 14
    RESETTING = 15
    COMPLETING = 16
    COMPLETE = 17
