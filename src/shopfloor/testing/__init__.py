"""Contract tests to inherit, clocks, fault proxies: shipped to outsiders."""
