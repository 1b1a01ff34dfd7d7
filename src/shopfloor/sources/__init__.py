"""Where samples come from and commands go: one file a protocol."""
