"""Sparkplug B 3.0 (ISO/IEC 20237): payloads, topics, the session of an edge node and the view of a host."""
