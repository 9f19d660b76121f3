"""Where the configuration comes from, so that it can be read again from there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from headrace.gateway.config import Config, load, read_text
from headrace.gateway.guard import check_binding
from headrace.gateway.share import check_shares


@frozen(kw_only=True)
class Source:
    """A file, or none, and what the command line says over it (section, field)."""

    path: Path | None = None
    overrides: Mapping[tuple[str, str], object] = field(factory=dict)

    def text(self) -> str | None:
        """What stands in the file now; ``None`` where there is no file."""
        return None if self.path is None else read_text(self.path)

    def config(self, text: str | None) -> Config:
        """The configuration where ``text`` stands in the file; raises as ``load``."""
        config = load(self.path, text=text, overrides=self.overrides)
        check_binding(config.server)
        check_shares(config)
        return config
