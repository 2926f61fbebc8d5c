"""Tests of checks/schedule/."""
