"""The long-term store and its queries."""
