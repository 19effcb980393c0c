"""Tests of `mm_platform.registry`."""
