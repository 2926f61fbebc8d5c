"""Tests of checks/kube/."""
