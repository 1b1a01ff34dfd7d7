"""Why a Logix controller, or pycomm3, refuses a tag, and what to change."""

from typing import Final

_REMEDIES: Final = {
    "Tag doesn't exist": (
        "correct its name; a program's tag is Program:NAME.Tag, and one with External Access None is not seen"
    ),
    "Access beyond end": "the index, or the number in braces, reaches beyond the array; correct it",
    "Permission denied": "its External Access is Read Only, or it is a constant: change that in the controller",
    "Invalid tag request": (
        "it cannot be asked for like this: a bit (.3) is of a whole number, elements ({10}) are of an array; correct it"
    ),
}
_NAMELESS: Final = "Invalid tag request"


def explained(error: str) -> str:
    """What pycomm3 said, with what to change; empty stays empty."""
    for known, remedy in _REMEDIES.items():
        if known in error:
            said = known if known == _NAMELESS else error  # what follows there is Python's, not the controller's
            return f"{said}: {remedy}"
    return error
