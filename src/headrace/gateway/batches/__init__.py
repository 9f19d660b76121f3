"""Batches of requests and their files: the paths of three vendors' APIs over one desk."""

from headrace.gateway.batches.service import Batches

__all__ = ["Batches"]
