"""The ground that all SQL sinks stand on: the same tables, the same rows, the same views in every database.

- ``tables``: what is stored, as columns of kinds that every database has; ``SCHEMA`` has version and migrations.
- ``views``: what people ask, in SQL that every database understands.
- ``ddl``: a ``Dialect`` (types, quoting) turns both into statements, and says how a table that is there differs.
- ``rows``: samples as columns, one block for each kind of value, for a bulk path; the tags' ids.
- ``facts``: the records of machines (windows, stops) as rows of their own tables.

A sink adds its driver: connecting, the bulk path, upsert of ``latest``, the errors of its server. One transaction holds
what ``write_many`` got and the position of its reader (``WRITER``), so every sample counts exactly once:

1. new tag names first, in a transaction of their own (a name without samples harms nobody);
2. then in one transaction: ``HISTORY`` in bulk, ``LATEST`` where newer, ``facts`` (delete by ``replaces``, insert),
   ``WRITER.position``; at its end the position is that of the last entry.
"""
