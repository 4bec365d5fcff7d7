"""Prompts: question + exemplars -> text -> token ids. The wording of the prompt styles lives only here.

In: Questions and a prompt style. Out: a ``Prompt`` (text, and whether the tokenizer adds its special tokens),
token ids, and the letters' token ids. Training rows go through the same functions, so training and evaluation
see the same bytes. Knows nothing of engines.

Styles:
    lm-eval  ``{question}\\nA. ..\\nD. ..\\n정답：``, full-width colon U+FF1A, continuation " A"
             (lm-eval ``kmmlu``, tasks/kmmlu/default/_default_kmmlu_yaml)
    qa       ``문제: {question}\\nA. ..\\n정답:``, ASCII colon, continuation " A"
             (the public experiment's wording)
    chat     the tokenizer's chat template: a system turn, a user and an assistant turn per exemplar, a user
             turn; continuation "A"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from kmmlu_fast.core.digests import text_digest
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import LETTERS, Question
from kmmlu_fast.prompting.chat_template import ChatTemplate, find_chat_template
from kmmlu_fast.prompting.lm_eval_tasks import digest_tasks, render_task_prompt
from kmmlu_fast.prompting.prompt_styles import PromptStyle, find_prompt_style
from kmmlu_fast.prompting.template_limits import TemplateRenderingError

ENDING_TOKENS = 4  # the end of a prompt that decides which tokens a letter after it becomes
_ENCODE_AT_ONCE = 1024  # texts per call: enough for all cores, few enough for memory
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
CHAT_INSTRUCTION = "다음은 객관식 문제입니다. {letters} 중 정답의 알파벳 하나만 답하세요."


@dataclass(frozen=True, slots=True)
class Prompt:
    """Text for a model. A chat template writes BOS itself, so the tokenizer must not add it again."""

    text: str
    add_special_tokens: bool


@dataclass(frozen=True, slots=True)
class LetterTokens:
    """Token ids of the letters after the prompt, A first. If they are not one fixed token each, ``ids`` is
    None and ``reason`` says why.
    """

    ids: tuple[int, ...] | None
    reason: str = ""


def chat_instruction(letters: Sequence[str]) -> str:
    """The system turn of the chat style, naming the question's letters."""
    return CHAT_INSTRUCTION.format(letters=", ".join(letters))


def answer_delimiter(style: str, tokenizer: Any = None) -> str:
    """The text between prompt and letter: a training row's completion is this + letter (+ EOS). In chat it is
    what the tokenizer's template writes there.
    """
    wording = find_prompt_style(style)
    if wording.chat and tokenizer is not None:
        return find_chat_template(tokenizer).delimiter
    return wording.delimiter


def format_question(question: Question, style: PromptStyle, cue: str | None = None) -> str:
    """Question, options and cue; the question is stripped and the options are not, as in lm-eval."""
    if style.lm_eval_tasks:
        return render_task_prompt(style.lm_eval_tasks, question)
    options = "".join(
        _fill_in(style.option, {"letter": letter, "text": text.strip() if style.strips_options else text})
        for letter, text in zip(question.letters, question.options, strict=True)
    )
    values = {
        "question": question.question.strip() if style.strips_question else question.question,
        "options": options,
        "letters": "".join(question.letters),
        "cue": style.cue if cue is None else cue,
    }
    return style.prefix + _fill_in(style.template, values)


def _fill_in(template: str, values: dict[str, str]) -> str:
    """The template with {name} replaced, all at once: braces in the values stay as they are."""
    return _percent_template(template, tuple(values)) % values


@cache
def _percent_template(template: str, names: tuple[str, ...]) -> str:
    """The template for Python's ``%``, which fills it in at once; a {name} that is not of ``names`` stays."""
    parts = _PLACEHOLDER.split(template.replace("%", "%%"))
    marks = [f"%({name})s" if name in names else f"{{{name}}}" for name in parts[1::2]]
    return "".join(text + mark for text, mark in zip(parts[::2], [*marks, ""], strict=True))


def render_prompt(
    question: Question,
    exemplars: Sequence[Question],
    style: str,
    tokenizer: Any = None,
    *,
    instruction: str | None = None,
    cue: str | None = None,
    exemplar_cue: str | None = None,
    exemplar_answers: Sequence[str] | None = None,
    thinking: bool = False,
    reasoning: bool = False,
) -> Prompt:
    """The prompt of one question after its exemplars.

    ``instruction`` goes before everything (in chat it is the system turn). ``cue`` replaces the style's last
    line; ``exemplar_cue`` replaces it in the exemplars (default: ``cue``). ``exemplar_answers`` replace the
    letters after the exemplars (with worked solutions, for example). ``reasoning``: the model writes what it
    likes after the prompt; else the answer itself follows, so an open thought is closed. Only chat needs
    ``tokenizer``; ConfigError if it has no chat template, or the template leaves something out.
    """
    wording = find_prompt_style(style)
    answers = [example.answer for example in exemplars] if exemplar_answers is None else exemplar_answers
    shot_cue = cue if exemplar_cue is None else exemplar_cue
    if wording.chat:
        chat = find_chat_template(tokenizer, thinking=thinking)
        return _render_chat(
            question, exemplars, answers, wording, chat, instruction, cue, shot_cue, reasoning
        )
    instruction = wording.system if instruction is None else instruction
    head = f"{instruction}\n\n" if instruction else ""
    shots = "".join(
        f"{format_question(example, wording, shot_cue)}{wording.delimiter}{answer}\n\n"
        for example, answer in zip(exemplars, answers, strict=True)
    )
    return Prompt(head + shots + format_question(question, wording, cue), add_special_tokens=True)


def _render_chat(
    question: Question,
    exemplars: Sequence[Question],
    answers: Sequence[str],
    style: PromptStyle,
    chat: ChatTemplate,
    instruction: str | None,
    cue: str | None,
    shot_cue: str | None,
    reasoning: bool,
) -> Prompt:
    system = style.system if instruction is None else instruction
    if system is None:
        system = chat_instruction(question.letters)
    messages = [{"role": "system", "content": system}] if system else []
    for example, answer in zip(exemplars, answers, strict=True):
        messages.append({"role": "user", "content": format_question(example, style, shot_cue)})
        messages.append({"role": "assistant", "content": answer})
    messages.append({"role": "user", "content": format_question(question, style, cue)})
    if exemplars and not chat.keeps_answers:
        raise ConfigError(
            f"{chat.origin} leaves out what an assistant said, so the examples would have no answers; use"
            " --num-fewshot 0, or give another with --chat-template FILE"
        )
    try:
        render = chat.render_reasoning_prompt if reasoning else chat.render_answer_prompt
        text = render(messages)
    except TemplateRenderingError as error:
        raise ConfigError(
            f"{question.question_id}: {chat.origin} refuses its turns ({error}); use --prompt-style lm-eval,"
            " or give another with --chat-template FILE"
        ) from error
    _check_prompt_text(text, question, exemplars, system, chat)
    return Prompt(text, add_special_tokens=False)


def _check_prompt_text(
    text: str, question: Question, exemplars: Sequence[Question], system: str, chat: ChatTemplate
) -> None:
    """ConfigError if the template left something out: the model would be asked without it."""
    pieces = [("the instruction", system), ("the question", question.question)]
    options = zip(question.letters, question.options, strict=True)
    pieces += [(f"option {letter}", option) for letter, option in options]
    pieces += [(f"the example {example.question_id}", example.question) for example in exemplars]
    missing = [name for name, piece in pieces if piece.strip() not in text]
    if missing:
        raise ConfigError(
            f"{question.question_id}: {chat.origin} leaves out or changes {', '.join(missing)}; use"
            " --prompt-style lm-eval or qa, or give another with --chat-template FILE"
        )


def encode_prompts(tokenizer: Any, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each prompt, with BOS if the tokenizer adds it."""
    encoded: list[list[int]] = [[] for _ in prompts]
    for special in (True, False):
        positions = [i for i, prompt in enumerate(prompts) if prompt.add_special_tokens is special]
        for start in range(0, len(positions), _ENCODE_AT_ONCE):
            batch = positions[start : start + _ENCODE_AT_ONCE]
            rows = _encode_texts(tokenizer, [prompts[i].text for i in batch], special)
            for position, row in zip(batch, rows, strict=True):
                encoded[position] = row
    return encoded


def _encode_texts(tokenizer: Any, texts: list[str], special: bool) -> list[list[int]]:
    def encode_slowly(part: list[str]) -> list[list[int]]:
        encoding = tokenizer(
            part, add_special_tokens=special, return_attention_mask=False, return_token_type_ids=False
        )
        ids: list[list[int]] = encoding["input_ids"]
        return ids

    encode_fast = getattr(getattr(tokenizer, "backend_tokenizer", None), "encode_batch_fast", None)
    if encode_fast is None or len(texts) < 2:
        return encode_slowly(texts)
    # This call also switches off any padding and truncation that the tokenizer's file asks for.
    first = encode_slowly(texts[:1])
    # Ids only: transformers' own call also makes offsets, masks and strings for every token, at half the
    # speed and with ten times the memory.
    rows = [row.ids for row in encode_fast(texts, add_special_tokens=special)]
    return rows if rows[0] == first[0] else encode_slowly(texts)


def find_unknown_id(tokenizer: Any) -> int | None:
    """The token that stands for text outside the vocabulary; None if every text can be written."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if hasattr(getattr(backend, "model", None), "unk_token"):  # without loading transformers
        token = backend.model.unk_token
        return None if token is None else backend.token_to_id(token)
    unknown: int | None = tokenizer.unk_token_id
    return unknown


def continuation_ids(tokenizer: Any, prompt: Prompt, continuation: str) -> list[int]:
    """Tokens that ``continuation`` adds to the prompt: tokenised together and cut, as in lm-eval's
    ``_encode_pair``.
    """
    continued = Prompt(prompt.text + continuation, prompt.add_special_tokens)
    context, whole = encode_prompts(tokenizer, [prompt, continued])
    return whole[len(context) :]


def letter_tokens(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    token_ids: Sequence[Sequence[int]],
    style: str,
    letters: Sequence[str] = LETTERS,
    delimiter: str | None = None,
) -> LetterTokens:
    """The letters' token ids after these prompts, checked rather than assumed.

    Which token a letter becomes depends on how the prompt ends, so one prompt of every distinct ending
    (``ENDING_TOKENS``) is tokenised together with each letter: the prompt's own tokens must not change, and
    exactly one must be added. ``delimiter``: between prompt and letter; default: the style's.
    """
    delimiter = answer_delimiter(style, tokenizer) if delimiter is None else delimiter
    endings = {tuple(ids[-ENDING_TOKENS:]): i for i, ids in enumerate(token_ids)}
    distinct_ids: set[tuple[int, ...]] = set()
    for position in endings.values():
        prompt = prompts[position]
        texts = [prompt.text + delimiter + letter for letter in letters]
        wholes = encode_prompts(tokenizer, [Prompt(text, prompt.add_special_tokens) for text in texts])
        context = list(token_ids[position])
        for letter, whole in zip(letters, wholes, strict=True):
            if whole[:-1] != context:
                added = len(whole) - len(context)
                return LetterTokens(
                    None, f"{delimiter + letter!r} is {added} tokens after the prompt, not one"
                )
        distinct_ids.add(tuple(whole[-1] for whole in wholes))
    ids = next(iter(distinct_ids), ())
    if len(distinct_ids) != 1 or len(set(ids)) != len(letters):
        return LetterTokens(None, "the letters' tokens depend on the prompt, or are not distinct")
    return LetterTokens(ids)


_PROBE = Question(
    question_id="probe/test/0",
    subject="probe",
    supercategory="Other",
    split="test",
    row=0,
    question="물은 몇 도에서 어는가?",
    options=("0도", "10도", "50도", "100도"),
    answer="A",
)


def template_digest(
    style: str,
    tokenizer: Any = None,
    *,
    instruction: str | None = None,
    cue: str | None = None,
    thinking: bool = False,
) -> str:
    """sha256 (16 hex digits) of an invented question rendered after an exemplar: changes with any byte of the
    wording.
    """
    if tasks := find_prompt_style(style).lm_eval_tasks:
        return text_digest(digest_tasks(tasks))
    prompt = render_prompt(
        _PROBE, [_PROBE], style, tokenizer, instruction=instruction, cue=cue, thinking=thinking
    )
    return text_digest(f"{prompt.text}\x1f{answer_delimiter(style, tokenizer)}")
