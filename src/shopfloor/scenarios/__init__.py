"""Scenarios: what machines do and which figures are to come of it, in a notation that a plant engineer can write.

``notation`` reads the files, ``playing`` lets the processor of figures work on them in quick motion. docs/scenarios.md
is the notation's page.
"""
