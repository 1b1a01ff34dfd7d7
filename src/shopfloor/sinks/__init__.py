"""Where samples go: one file a destination."""
