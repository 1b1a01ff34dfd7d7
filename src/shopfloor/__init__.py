"""Shopfloor: what machines say, as durable data, honest OEE and safe control."""
