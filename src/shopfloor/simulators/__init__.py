"""Machines that speak the real protocols."""
