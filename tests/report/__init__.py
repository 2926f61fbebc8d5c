"""Tests of checks/report/."""
