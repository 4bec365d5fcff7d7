"""The base model of an evaluation whose ``--model`` was not given: the one that its adapters were made for.

In: an ``EvalConfig``. Out: the same, or with the base (and its revision) that every adapter records;
ConfigError if they record different ones, or one that is not on this computer. Knows nothing of engines.
"""

from __future__ import annotations

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.models.adapter_files import find_adapter_folder, read_base_reference, split_adapter_spec


def take_base_from_adapters(config: EvalConfig) -> EvalConfig:
    """The config with ``model`` set by the adapters' own records if the user gave none."""
    if "model" in config.model_fields_set or not config.adapter:
        return config
    references: dict[str, tuple[str, str | None]] = {}
    for spec in config.adapter:
        folder, _ = find_adapter_folder(split_adapter_spec(spec)[1])
        name, revision = read_base_reference(folder, f"--adapter {folder}")
        if name:
            references[spec] = (name, revision)
    if not references:
        return config
    (spec, (name, revision)), *others = references.items()
    for other, (other_name, _) in others:
        if other_name != name:
            raise ConfigError(
                f"--adapter {spec} was made for {name}, --adapter {other} for {other_name}: give the base"
                " with --model, or evaluate them one after the other"
            )
    if name.startswith((".", "/", "~")) and not expand_path(name, "--model").is_dir():
        raise ConfigError(
            f"--adapter {spec}: was made for {name}, which is not on this computer; give its base with"
            f" --model"
        )
    log_note(f"base model: {name}, which --adapter {spec} was made for (--model was not given)")
    return config.model_copy(update={"model": name, "revision": config.revision or revision})
