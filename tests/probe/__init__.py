"""Tests of checks/probe/."""
