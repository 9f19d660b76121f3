"""Lanes that chance has set up, for calls of every fate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import strategies as st

from headrace.net.scripted import ScriptedAnswer
from headrace.traffic.lane import Lane
from traffic.play import PATIENT, Stage


def scripted_by_chance(
    stage: Stage, data: st.DataObject, fates: Sequence[ScriptedAnswer], names: Iterable[str]
) -> list[Lane]:
    """Lanes of those names with every kind of limit, whose answers go round in a drawn script."""
    script = data.draw(st.lists(st.sampled_from(fates), min_size=1, max_size=10))

    def play_on(_: object) -> ScriptedAnswer:
        script.append(script.pop(0))
        return script[-1]

    return [
        stage.lane(
            play_on,
            name,
            limits=PATIENT,
            max_running=2,
            max_waiting=2,
            queue_s=20,
            requests_per_minute=data.draw(st.sampled_from([None, 6])),
            first_token_s=data.draw(st.sampled_from([None, 7])),
            total_s=data.draw(st.sampled_from([None, 25])),
        )
        for name in names
    ]
