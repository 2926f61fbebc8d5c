"""Tests of checks/web/."""
