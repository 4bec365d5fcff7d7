"""The tokens at which a trained model stops, and the one that is added where a template writes none.

In: a tokenizer, its chat template, the base's stop ids. Out: ``StopTokens``; TrainError if nothing can end an
answer. Every trained answer ends in one of ``ids``: without that, a model learns to answer and not to stop.
Knows nothing of rows or files.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.models.chat_files import describe_tokens
from kmmlu_fast.prompting.chat_template import (
    BUILT_IN,
    PLAIN_NAME,
    ChatTemplate,
    ChatTokenizer,
    TemplateOptions,
    find_chat_template,
    template_source,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopTokens:
    """One for all rows. ``closing`` is what stands after an answer in the template."""

    ids: frozenset[int]  # at which generation stops once they are saved with the adapter
    end: int  # ends an answer that is followed by nothing
    turn_end: int  # ends an answer in chat: the template's own end token, else ``end``
    closing: str = ""
    new: tuple[int, ...] = ()  # of the template, at which the base does not stop

    def chat_warnings(self, chat: ChatTemplate, tokenizer: Any) -> list[str]:
        """What a user must know before step 1 about the ends of chat answers."""
        warnings = []
        if self.new:
            names = describe_tokens(tokenizer, self.new)
            warnings.append(
                f"{chat.origin} ends an answer with {names}, where the base does not stop: it is saved in the"
                " adapter's generation_config.json; a server of the base alone needs it as a stop token"
            )
        elif self.turn_end not in _special_tokens_of(self.closing, tokenizer):
            names = describe_tokens(tokenizer, [self.turn_end])
            warnings.append(
                f"{chat.origin} writes no end token after an answer: {names} is added to every trained answer"
            )
        return warnings


def choose_stop_tokens(
    tokenizer: Any, base_ids: tuple[int, ...] | None = None, *, with_template: bool = True
) -> StopTokens:
    """The stop tokens of training. ``base_ids``: all at which the base stops (default: the tokenizer's end
    token). TrainError if there is none and the template has none.
    """
    own = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
    known = tuple(dict.fromkeys((*own, *(base_ids or ()))))
    closing = ""
    if with_template and getattr(tokenizer, "chat_template", None):
        closing = cut_closing(find_chat_template(tokenizer), tokenizer)
    written = _special_tokens_of(closing, tokenizer)
    ends = [token for token in written if token in known] or written[-1:]
    if not ends and not known:
        raise TrainError(
            "the model has no end token: neither its tokenizer, nor generation_config.json, nor the chat"
            " template names one, so what is trained would never stop; set eos_token in tokenizer_config.json"
        )
    end = known[0] if known else ends[-1]
    return StopTokens(
        ids=frozenset((*known, *ends)),
        end=end,
        turn_end=ends[-1] if ends else end,
        closing=closing,
        new=tuple(token for token in ends if token not in known),
    )


class TrainingTokenizer(ChatTokenizer):
    """A tokenizer with the template and the stop tokens of a training."""

    def __init__(
        self, tokenizer: Any, options: TemplateOptions, base_ids: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(tokenizer, options)
        self._base_ids = base_ids

    @functools.cached_property
    def stops(self) -> StopTokens:
        """Of conversations and the chat style."""
        return choose_stop_tokens(self, self._base_ids)

    @functools.cached_property
    def plain_stops(self) -> StopTokens:
        """Of rows without a template."""
        return choose_stop_tokens(self.tokenizer, self._base_ids, with_template=False)


def as_training_tokenizer(
    tokenizer: Any, options: TemplateOptions | None = None, base_ids: tuple[int, ...] | None = None
) -> TrainingTokenizer:
    """The tokenizer with the template that training renders by: the options', its own, or ``plain``. One that
    is a ``TrainingTokenizer`` already is returned as it is.
    """
    if isinstance(tokenizer, TrainingTokenizer):
        return tokenizer
    options = options or TemplateOptions()
    if options.source is None and template_source(tokenizer) is None:
        origin = f"the built-in template {PLAIN_NAME!r}"
        options = replace(options, source=BUILT_IN[PLAIN_NAME], origin=origin)
    return TrainingTokenizer(tokenizer, options, base_ids)


def cut_closing(chat: ChatTemplate, tokenizer: Any) -> str:
    """The template's text after an answer, without a generation prompt that always follows."""
    if not chat.always_generates:
        return chat.closing
    places = [
        chat.closing.find(token) + len(token) for token in _special_texts(tokenizer) if token in chat.closing
    ]
    return chat.closing[: min(places)] if places else ""


def _special_texts(tokenizer: Any) -> list[str]:
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return [*dict.fromkeys([*tokenizer.all_special_tokens, *added])]


def _special_tokens_of(text: str, tokenizer: Any) -> list[int]:
    """The special tokens in a text, in order."""
    if not text:
        return []
    special = set(tokenizer.convert_tokens_to_ids(_special_texts(tokenizer)))
    return [token for token in tokenizer(text, add_special_tokens=False)["input_ids"] if token in special]
