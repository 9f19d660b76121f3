"""Tests of engines that we start."""
