"""Tests of checks/cli/."""
