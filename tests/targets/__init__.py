"""Tests of checks/targets/."""
