"""The durable record between everything, and the loss ledger."""
