"""The HTTP API and the live stream; serves the app built from web/."""
