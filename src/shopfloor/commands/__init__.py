"""Who may write what, presses as leases, and the audit chain."""
