"""Measuring: load tests, their mock server, their reports. Profiles and matrices will live here too."""
