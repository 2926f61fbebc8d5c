"""Tests of checks/config/."""
