"""ISO 22400 arithmetic over values: states, calendars, counts, stops, accounts and the figures made of them. No I/O.

The way of the data: samples become ``Facts`` (a timeline for each tag), ``evaluate`` integrates the facts
over a stretch of the calendar into an ``Account`` (times and quantities, which add up), and ``figures``
makes ratios of an account. So any two windows can be joined, and late data is only one more fact.
"""
