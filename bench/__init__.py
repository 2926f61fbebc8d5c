"""Measurements of speed, memory and precision. The docstring of each module has its command."""
