"""How fast each engine is asked, and what happens when it says no."""

from headrace.chains.pace.account import Account
from headrace.chains.pace.pace import Pace, PaceSettings, PaceSnapshot
from headrace.chains.pace.paced import Paced
from headrace.chains.pace.verdict import EngineGoneError

__all__ = ["Account", "EngineGoneError", "Pace", "PaceSettings", "PaceSnapshot", "Paced"]
