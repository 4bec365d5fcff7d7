"""Chat template and stop tokens of an evaluation: those of the flags, else of the adapters, else the base's.

In: an ``EvalConfig``, the base's tokenizer, adapters. Out: ``ChatSettings``. Base and adapters are asked by
one template, so adapters that were trained with different ones are refused together. Knows nothing of
questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.models.adapters import read_adapter_card_file
from kmmlu_fast.models.chat_files import (
    describe_tokens,
    find_stop_ids,
    read_saved_stop_ids,
    read_saved_template,
    trained_template_kwargs,
)
from kmmlu_fast.models.model import Model
from kmmlu_fast.prompting.chat_template import (
    ChatTokenizer,
    TemplateOptions,
    find_chat_template,
    is_same_rendering,
)
from kmmlu_fast.prompting.prompt_styles import find_prompt_style
from kmmlu_fast.prompting.template_options import choose_template_options, parse_template_kwargs


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """One for base and adapters."""

    tokenizer: ChatTokenizer
    stop_ids: tuple[int, ...]  # besides the base's own
    chat_notes: list[str]  # about the template; they hold for the chat style only
    stop_notes: list[str]
    given: bool  # whether a flag asks for a template or a variable

    def notes(self, style: str) -> list[str]:
        """What is said of them if questions are asked in this style."""
        return [*(self.chat_notes if find_prompt_style(style).chat else []), *self.stop_notes]

    def fingerprint_parts(self, style: str) -> dict[str, Any]:
        """What differs from the base's own template; {} for other styles than chat. ConfigError if a flag
        would be without effect.
        """
        if not find_prompt_style(style).chat:
            if self.given:
                raise ConfigError(
                    "--chat-template and --chat-template-kwargs go with --prompt-style chat; the questions"
                    f" are asked in the style {style}: give --prompt-style chat too, or leave them out"
                )
            return {}
        parts = self.tokenizer.options.fingerprint_parts()
        chat = find_chat_template(self.tokenizer)
        if chat.reads_date:
            parts["chat_template_date"] = chat.date
        return parts


def choose_chat_settings(
    config: EvalConfig, model: Model, adapters: list[Adapter], tokenizer: Any
) -> ChatSettings:
    """The settings of the flags and adapters. ConfigError if they contradict each other."""
    options = choose_template_options(config.chat_template, config.chat_template_kwargs, tokenizer)
    options, chat_notes = _with_adapters(options, adapters, tokenizer)
    stop_ids: tuple[int, ...] = ()
    stop_notes: list[str] = []
    saved = {token for adapter in adapters for token in read_saved_stop_ids(adapter.path)}
    if saved and config.output_type != "multiple_choice":
        known = find_stop_ids(model, tokenizer)
        stop_ids = tuple(sorted(token for token in saved.difference(known) if token < len(tokenizer)))
    if stop_ids:
        stop_notes.append(
            f"the adapter was trained to end its answers with {describe_tokens(tokenizer, stop_ids)}, where"
            " the base does not stop: generation stops there too, for base and adapters"
        )
    return ChatSettings(
        tokenizer=ChatTokenizer(tokenizer, options),
        stop_ids=stop_ids,
        chat_notes=chat_notes,
        stop_notes=stop_notes,
        given=config.chat_template is not None or bool(config.chat_template_kwargs),
    )


def _with_adapters(
    options: TemplateOptions, adapters: list[Adapter], tokenizer: Any
) -> tuple[TemplateOptions, list[str]]:
    """The options with what the adapters were trained with, where no flag says otherwise; and notes."""
    notes: list[str] = []
    chosen: dict[str, TemplateOptions] = {}  # by adapter, where it differs
    for adapter in adapters:
        trained = _trained_options(adapter)
        if trained is None or is_same_rendering(tokenizer, trained, options):
            continue
        if options.source is not None or options.variables:
            notes.append(
                f"adapter {adapter.name} was trained with another chat template or other"
                " --chat-template-kwargs than those given: the prompts differ from its training"
            )
        else:
            chosen[adapter.name] = trained
    if not chosen:
        return options, notes
    (name, first), *others = chosen.items()
    differing = [other for other, trained in others if not is_same_rendering(tokenizer, trained, first)]
    without = [adapter.name for adapter in adapters if adapter.name not in chosen]
    if differing or without:
        raise ConfigError(
            f"the adapters {', '.join([name, *differing, *without])} were trained with different chat"
            " templates; evaluate them in separate commands, or give one with --chat-template"
        )
    notes.append(
        f"adapter {name} was trained with {first.origin}, which differs from the base's: base and adapters"
        " are asked by it"
    )
    return first, notes


def _trained_options(adapter: Adapter) -> TemplateOptions | None:
    """What is saved in the adapter's directory; None if nothing is."""
    source = read_saved_template(adapter.path)
    variables = parse_template_kwargs(trained_template_kwargs(read_adapter_card_file(adapter.path)))
    if source is None and not variables:
        return None
    origin = "the model's chat template" if source is None else f"the chat template in {adapter.path.name}"
    return TemplateOptions(source=source, origin=origin, variables=variables)
