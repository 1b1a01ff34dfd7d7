"""Plant files made of what other systems know: so far the signal recorder that kept its sensors in MongoDB."""

from shopfloor.importing.documents import Documents, read
from shopfloor.importing.front_end import ENVIRONMENT, with_front_end
from shopfloor.importing.recorder import Finding, Imported, imported
from shopfloor.importing.writing import text

__all__ = ["ENVIRONMENT", "Documents", "Finding", "Imported", "imported", "read", "text", "with_front_end"]
