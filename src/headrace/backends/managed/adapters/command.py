"""Any command line that serves OpenAI's format: what we do not know of it, its writer says."""

from __future__ import annotations

from pathlib import PurePath

from attrs import fields, frozen

from headrace.backends.managed.launch import SAID, Launch, filled
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError

_PLACES = ("model", "port", "host")


@frozen
class CommandLine:
    """``EngineConfig.command``, with the model, the port and the host put in where it says so."""

    names: tuple[str, ...] = ("command",)
    provider: str = "openai-compatible"
    default_port: int | None = None

    def served_names(self, config: EngineConfig) -> tuple[str, ...]:
        """The model's name, and for a path what programs make of it: its last part, its stem."""
        path = PurePath(config.model)
        return tuple(dict.fromkeys((config.model, path.name, path.stem)))

    def launch(self, config: EngineConfig, host: str, port: int) -> Launch:
        """The command as it is written; raises LLMInvalidRequestError as an Adapter does."""
        if not config.command:
            raise LLMInvalidRequestError(
                f"engine {config.name!r}: command is empty, must be a command line such as "
                "[my-server, --model, '{model}', --port, '{port}']",
                param="command",
            )
        for each in fields(EngineConfig):
            value = getattr(config, each.name)
            # Programs have flags for these; here they stand in the command itself.
            if each.name in SAID and value != each.default:
                raise LLMInvalidRequestError(
                    f"engine {config.name!r}: {each.name} is {value!r}, but the backend command has "
                    "no flag of that name; write it into the command",
                    param=each.name,
                )
        known = dict(zip(_PLACES, (config.model, str(port), host), strict=True))
        env = dict(config.extra_env)
        if config.gpu_ids:
            env.setdefault("CUDA_VISIBLE_DEVICES", ",".join(map(str, config.gpu_ids)))
        return Launch(
            argv=(*(filled(part, known) for part in config.command), *config.extra_serve_flags),
            env=env,
            base_url=f"http://{host}:{port}/v1",
            ready_path="/v1/models",
            model=config.model,
        )
