"""A training's chat template and stop tokens: chosen before the rows are encoded, saved with the adapter.

In: a ``TrainConfig``, the model, its tokenizer, rows. Out: a ``ChatSetup``, and later the files from which
evaluation and any server read what the adapter was trained with: chat_template.jinja, generation_config.json,
the tokenizer's own. Knows nothing of Unsloth or TRL.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import text_digest
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.files import read_json, write_bytes_atomically, write_json_atomically
from kmmlu_fast.data.alpaca import SftRow
from kmmlu_fast.data.training_rows import TrainingRow
from kmmlu_fast.models.chat_files import CHAT_TEMPLATE, GENERATION_CONFIG, find_stop_ids
from kmmlu_fast.models.model import Model
from kmmlu_fast.prompting.chat_template import (
    BUILT_IN,
    PLAIN_NAME,
    find_chat_template,
    template_source,
)
from kmmlu_fast.prompting.prompt_styles import find_prompt_style
from kmmlu_fast.prompting.template_options import check_template_file, choose_template_options
from kmmlu_fast.prompting.thoughts import find_switch
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.stop_tokens import StopTokens, TrainingTokenizer, as_training_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSetup:
    """One for all rows of a training."""

    tokenizer: TrainingTokenizer
    is_used: bool  # whether a row is rendered by the template
    warnings: list[str]
    base_stop_ids: tuple[int, ...]

    @property
    def stops(self) -> StopTokens:
        """The stop tokens of these rows."""
        return self.tokenizer.stops if self.is_used else self.tokenizer.plain_stops

    @property
    def _is_default_plain(self) -> bool:
        """Whether the base has no template, and no flag gives one."""
        source = self.tokenizer.options.source
        return template_source(self.tokenizer.tokenizer) is None and source == BUILT_IN[PLAIN_NAME]

    def identity_parts(self) -> dict[str, Any]:
        """What ``--resume`` compares: {} if rows are rendered as by plain use of the template."""
        if not self.is_used:
            return {}
        parts = find_chat_template(self.tokenizer).facts() | self.tokenizer.options.fingerprint_parts()
        if self._is_default_plain:
            del parts["chat_template"]
        if self.stops.new:
            parts["stop_ids"] = list(self.stops.new)
        return {"chat": parts} if parts else {}

    def card_parts(self) -> dict[str, Any]:
        """What the adapter's card says of it."""
        parts: dict[str, Any] = {"chat_template": PLAIN_NAME if self._is_default_plain else "tokenizer"}
        if self.is_used:
            chat = find_chat_template(self.tokenizer)
            if self.tokenizer.options.source is not None and not self._is_default_plain:
                parts["chat_template"] = chat.origin.removeprefix("--chat-template ")
            parts["chat_template_digest"] = text_digest(chat.compiled.source)
            if "strftime_now" in chat.compiled.source:
                parts["chat_template_date"] = chat.date
        parts["stop_ids"] = sorted(self.stops.ids)
        return parts


def check_chat_flags(config: TrainConfig, rows: Sequence[SftRow | TrainingRow]) -> None:
    """TrainError or ConfigError for --chat-template and its variables, as far as they can be judged before
    Unsloth and a tokenizer are loaded.
    """
    if config.chat_template is None and not config.chat_template_kwargs:
        return
    if not _is_template_used(config, rows):
        raise TrainError(
            "--chat-template and --chat-template-kwargs are for conversations and --prompt-style chat; these"
            f" rows are worded by the style {config.prompt_style}: leave them out"
        )
    if config.chat_template is not None:
        check_template_file(config.chat_template, config.chat_template_kwargs)


def _is_template_used(config: TrainConfig, rows: Sequence[SftRow | TrainingRow]) -> bool:
    has_chats = any(
        isinstance(row, TrainingRow) and row.item is None and row.document is None for row in rows
    )
    style_is_given = "prompt_style" in config.model_fields_set
    return find_prompt_style(config.prompt_style).chat or (has_chats and not style_is_given)


def prepare_chat(
    config: TrainConfig, model: Model, tokenizer: Any, rows: Sequence[SftRow | TrainingRow]
) -> ChatSetup:
    """The template of the flags, else the model's, else ``plain``. TrainError or ConfigError if a flag would
    be without effect, or if nothing can end an answer.
    """
    check_chat_flags(config, rows)
    options = choose_template_options(config.chat_template, config.chat_template_kwargs, tokenizer)
    is_used = _is_template_used(config, rows)
    base_stop_ids = find_stop_ids(model, tokenizer)
    chat_tokenizer = as_training_tokenizer(tokenizer, options, base_stop_ids)
    if not is_used:
        return ChatSetup(tokenizer=chat_tokenizer, is_used=False, warnings=[], base_stop_ids=base_stop_ids)
    chat, stops = find_chat_template(chat_tokenizer), chat_tokenizer.stops
    switch = find_switch(chat.compiled.variables)
    if switch is not None:
        value = chat.variables.get(switch, "the template's default")
        log_note(
            f"note: {chat.origin} has the switch {switch}: {value} for chats and questions, and in"
            f" evaluation; change it with --chat-template-kwargs {switch}=true or false"
        )
    return ChatSetup(
        tokenizer=chat_tokenizer,
        is_used=True,
        warnings=[*chat.notes(), *stops.chat_warnings(chat, chat_tokenizer)],
        base_stop_ids=base_stop_ids,
    )


def save_chat_files(setup: ChatSetup, model: Model, folder: Path) -> None:
    """Tokenizer, template and stop ids beside the adapter's weights. The template is saved if rows were
    rendered by it, or if it is the tokenizer's own.
    """
    tokenizer = copy.copy(setup.tokenizer.tokenizer)
    if setup.is_used:
        tokenizer.chat_template = setup.tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    source = template_source(tokenizer)
    if source is not None:
        write_bytes_atomically(folder / CHAT_TEMPLATE, source.encode())
    path = model.folder() / GENERATION_CONFIG
    settings = read_json(path) if path.is_file() else {}
    # The first is the one that programs take which know a single end token.
    ends = [setup.stops.turn_end if setup.is_used else setup.stops.end, *setup.base_stop_ids]
    ids = list(dict.fromkeys([*ends, *sorted(setup.stops.ids)]))
    settings["eos_token_id"] = ids[0] if len(ids) == 1 else ids
    write_json_atomically(folder / GENERATION_CONFIG, settings)
