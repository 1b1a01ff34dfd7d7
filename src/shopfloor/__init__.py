"""Shopfloor: what machines say, as durable data, honest OEE and safe control."""

import zoneinfo

# The rules of time zones come from the package `tzdata`, whose version is pinned, and from nowhere else: a shift has
# the same length on every computer, however old its own list is. By default Python asks the operating system first.
zoneinfo.reset_tzpath(())
zoneinfo.ZoneInfo.clear_cache()
