"""The release gate: measures artefacts against base + adapter, cheapest and most telling first.

In: a ``CheckConfig``. Out: a ``GateReport``, one ``ReleaseDiagnosis`` per artefact. An artefact's files are
compared before it is asked; then letters, first of a few questions: a fault that is found ends its
measurements. Knows nothing of how results are printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError, EngineError, KmmluError
from kmmlu_fast.core.notes import log_as_warnings
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.core.schema import Adapter, Completion, Question
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.data.dataset import kmmlu_questions_from_frame, permute_questions, read_frame
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.models.adapters import adapter_way_problem
from kmmlu_fast.models.deltas import read_lora_deltas
from kmmlu_fast.models.gguf import read_gguf_file
from kmmlu_fast.models.llama_cpp import GgufTokenizer
from kmmlu_fast.models.merging import merge_adapter
from kmmlu_fast.models.model import Model
from kmmlu_fast.shipping.answers import (
    GatePrompts,
    artefact_engine,
    ask_letters,
    ask_texts,
    make_gate_prompts,
    reference_engine,
)
from kmmlu_fast.shipping.artefact import Artefact, open_artefact
from kmmlu_fast.shipping.config import CheckConfig
from kmmlu_fast.shipping.diagnosis import Measurements, ReleaseDiagnosis, TextStatistics, diagnose
from kmmlu_fast.shipping.letter_shifts import LetterComparison, Logprobs, compare_letters
from kmmlu_fast.shipping.settings_comparison import compare_directories, compare_with_gguf, load_settings
from kmmlu_fast.shipping.source import ShippingSource, load_shipping_source
from kmmlu_fast.shipping.stops import StopIds, read_stop_ids, reference_tokenizer
from kmmlu_fast.shipping.text_comparison import compare_texts
from kmmlu_fast.shipping.weights import WeightComparison, compare_weights

FIRST_QUESTIONS = 40
_TEXTS_COMPARED = 20
_NOTE_CHARACTERS = 600
_PLAIN_SUM = 0.1  # how far from 1 the slopes of W + s·B·A may be
_MARKS = ("<|", "|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "### Instruction", "</s>")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedArtefact:
    """One artefact: what was measured, and what it means."""

    artefact: Artefact
    measured: Measurements
    diagnosis: ReleaseDiagnosis


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """All artefacts, and what they were measured against."""

    source: ShippingSource
    style: str
    checked: tuple[CheckedArtefact, ...]
    trained: LetterComparison | None  # 16 bit + adapter against nf4 + adapter, if asked for

    @property
    def is_safe(self) -> bool:
        return all(each.diagnosis.is_safe for each in self.checked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    """Answers of base and of base + adapter, Korean questions first, then the English ones."""

    prompts: GatePrompts
    korean: int
    base: Logprobs
    served: Logprobs
    texts: TextStatistics | None


class ReleaseGate:
    """One adapter on its base, asked once; any number of artefacts are checked against it."""

    def __init__(self, config: CheckConfig) -> None:
        """ConfigError or AdapterError if there is nothing to check against. Starts no engine."""
        self._config = config
        self.source = load_shipping_source(
            config.artefacts[0], config.model, config.revision, config.trust_remote_code
        )
        self.style = config.prompt_style or self.source.adapter.prompt_style or "lm-eval"
        self._tokenizer, self._stops = reference_tokenizer(self.source), read_stop_ids(self.source)
        korean, self._available = _korean_questions(config)
        self._prompts = make_gate_prompts([*korean, *_english_questions()], self.style, self._tokenizer)
        self._korean = len(korean)
        self._answers: tuple[_Reference, LetterComparison | None] | None = None

    @property
    def trained(self) -> LetterComparison | None:
        """16 bit + adapter against nf4 + adapter; None if it was not asked for."""
        return self._reference()[1]

    def check(self, artefact: Artefact) -> CheckedArtefact:
        """Compare the artefact's files, then its answers."""
        reference, _ = self._reference()  # first: a base on the hub has its weights here only then
        measured = _compare_files(artefact, self.source, self._tokenizer, self._stops, self._prompts)
        measured = replace(measured, dataset=self._config.dataset, available=self._available)
        return _check_artefact(artefact, measured, reference, self._config)

    def _reference(self) -> tuple[_Reference, LetterComparison | None]:
        if self._answers is None:
            self._answers = _ask_reference(self._config, self.source, self._prompts, self._korean)
        return self._answers


def check_release(config: CheckConfig) -> GateReport:
    """Check every artefact. ConfigError, AdapterError or ModelError before anything is asked."""
    require_modules("check", "torch", "transformers", "peft", "safetensors")
    gate = ReleaseGate(config)
    artefacts = [open_artefact(spec, config.base_url) for spec in config.artefacts[1:]]
    if any(artefact.kind == "gguf" for artefact in artefacts):
        require_modules("check of a GGUF file", "xllamacpp")
    checked = []
    for artefact in artefacts:
        checked.append(gate.check(artefact))
        if artefact is not artefacts[-1]:  # minutes pass until the report: what is known is said
            log_note(one_line(f"check: {artefact.name}: {checked[-1].diagnosis.sentence}", _NOTE_CHARACTERS))
    return GateReport(source=gate.source, style=gate.style, checked=tuple(checked), trained=gate.trained)


def _korean_questions(config: CheckConfig) -> tuple[list[Question], int]:
    """The questions to ask, and how many the dataset has."""
    frame = read_frame(config.dataset, "test")
    log_as_warnings(frame.notes)
    everything = permute_questions(kmmlu_questions_from_frame(frame.value), config.seed)
    questions = everything[: config.questions]
    if len(questions) < 2:
        raise ConfigError(
            f"--dataset {config.dataset}, --questions {config.questions}: at least 2 are needed"
        )
    return questions, len(everything)


def _english_questions() -> list[Question]:
    rows = yaml.safe_load((Path(__file__).parent / "english.yaml").read_text("utf-8"))
    return [
        Question(
            question_id=f"english/test/{row}",
            subject="English",
            supercategory="Other",
            split="test",
            row=row,
            question=text,
            options=tuple(options),
            answer=answer,
        )
        for row, (text, options, answer) in enumerate(rows)
    ]


def _compare_files(
    artefact: Artefact, source: ShippingSource, tokenizer: Any, stops: StopIds, prompts: GatePrompts
) -> Measurements:
    """Everything that is read from files: tokenizer, settings, weights."""
    measured = Measurements(quantisation=artefact.quantisation)
    if artefact.kind == "server" or artefact.path is None:
        return measured
    with report_wait(f"check: reading {artefact.name}"):
        other = artefact.load_tokenizer()
        try:
            texts = compare_texts(
                tokenizer, other, prompts.texts[:_TEXTS_COMPARED], stops.ids, artefact.stop_ids(other)
            )
        finally:
            if isinstance(other, GgufTokenizer):
                other.close()
        weights = _compare_artefact_weights(artefact, source)
        if source.initialisation:
            # W + s·B·A on the published weights is the fault; a right merge is not of that form.
            measured = replace(measured, initialisation=_plain_sum(weights) and source.initialisation)
            weights = None
        return replace(
            measured,
            texts=texts,
            settings=tuple(_differing_settings(artefact, source)),
            weights=weights,
        )


def _plain_sum(weights: WeightComparison | None) -> str:
    """Not empty if every changed module holds the base's weights and the adapter's change."""
    slopes = [each.slope for each in weights.changed if each.slope is not None] if weights else []
    return "yes" if slopes and all(abs(slope - 1) < _PLAIN_SUM for slope in slopes) else ""


def _differing_settings(artefact: Artefact, source: ShippingSource) -> list[str]:
    assert artefact.path is not None
    settings = load_settings(source.model.folder())
    if artefact.kind == "gguf":
        return compare_with_gguf(settings, read_gguf_file(artefact.path))
    return compare_directories(settings, load_settings(artefact.path))


def _compare_artefact_weights(artefact: Artefact, source: ShippingSource) -> WeightComparison | None:
    """None where files cannot tell: packed repositories, adapters that are more than W + s·B·A."""
    assert artefact.path is not None
    if artefact.kind == "directory" and artefact.quantisation:
        return None
    reason = adapter_way_problem(source.adapter.path, "swap")
    if reason and not reason.startswith("init_lora_weights"):
        log_note(f"check: weights of {artefact.name} are not compared, only answers: {reason}")
        return None
    deltas = read_lora_deltas(source.adapter.path)
    return compare_weights(source.model.folder(), deltas, artefact.path)


def _ask_reference(
    config: CheckConfig, source: ShippingSource, prompts: GatePrompts, korean: int
) -> tuple[_Reference, LetterComparison | None]:
    model, adapter = source.model, source.adapter
    # PEFT changes the base's weights when it loads an adapter that was initialised from them: the two are
    # asked one after the other, the adapter in a merged copy.
    beside = None if adapter_way_problem(adapter.path, "unmerged") else adapter
    with (
        report_wait(f"check: asking {model.name} with and without {adapter.name}"),
        _served_engine(model, adapter, beside, prompts.context_tokens) as engine,
    ):
        served = ask_letters(engine, prompts, adapter=beside)
        texts = None
        if config.generations:
            texts = _text_statistics(ask_texts(engine, prompts, config.generations, beside))
        base = ask_letters(engine, prompts) if beside else None
    if base is None:
        with reference_engine(model, [], prompts.context_tokens) as engine:
            base = ask_letters(engine, prompts)
    trained = None
    if config.trained_reference:
        require_modules("--trained-reference", "bitsandbytes")
        with (
            report_wait(f"check: asking nf4 {model.name} with {adapter.name}"),
            reference_engine(model, [adapter], prompts.context_tokens, "nf4") as engine,
        ):
            in_four_bit = ask_letters(engine, prompts, korean, adapter)
        keys = prompts.keys[:korean]
        trained = compare_letters(base[:korean], in_four_bit, served[:korean], keys)
    reference = _Reference(prompts=prompts, korean=korean, base=base, served=served, texts=texts)
    return reference, trained


def _served_engine(
    model: Model, adapter: Adapter, beside: Adapter | None, context_tokens: int
) -> AbstractContextManager[Engine]:
    """What is served: the adapter beside its base, or in a merged copy."""
    if beside:
        return reference_engine(model, [beside], context_tokens)
    copy = merge_adapter(model, adapter, "auto")
    return reference_engine(model, [], context_tokens, merged=str(copy))


def _check_artefact(
    artefact: Artefact, measured: Measurements, reference: _Reference, config: CheckConfig
) -> CheckedArtefact:
    """Ask a few questions, then all, then for texts; stop where a fault is found."""
    found = diagnose(measured, config.margin)
    try:
        with (
            report_wait(f"check: asking {artefact.name}"),
            artefact_engine(artefact, reference.prompts.context_tokens) as engine,
        ):
            first = min(FIRST_QUESTIONS, reference.korean)
            measured = _with_letters(measured, reference, ask_letters(engine, reference.prompts, first))
            found = diagnose(measured, config.margin)
            if found.verdict != "differs":
                measured = _with_letters(measured, reference, ask_letters(engine, reference.prompts))
                found = diagnose(measured, config.margin)
            if config.generations and found.verdict != "differs":
                texts = ask_texts(engine, reference.prompts, config.generations)
                measured = replace(
                    measured, generated=_text_statistics(texts), reference_generated=reference.texts
                )
                found = diagnose(measured, config.margin)
    except EngineError as error:
        measured = replace(measured, refused=one_line(str(error), 200))
        found = diagnose(measured, config.margin)
    except KmmluError:
        raise
    return CheckedArtefact(artefact=artefact, measured=measured, diagnosis=found)


def _with_letters(measured: Measurements, reference: _Reference, rows: Logprobs) -> Measurements:
    korean = min(reference.korean, len(rows))
    keys = reference.prompts.keys
    measured = replace(
        measured,
        letters=compare_letters(
            reference.base[:korean], reference.served[:korean], rows[:korean], keys[:korean]
        ),
    )
    if len(rows) <= reference.korean:
        return measured
    return replace(
        measured,
        english=compare_letters(
            reference.base[korean:], reference.served[korean:], rows[korean:], keys[korean:]
        ),
    )


def _text_statistics(texts: Sequence[Completion]) -> TextStatistics:
    return TextStatistics(
        texts=len(texts),
        stopped=sum(text.finish_reason == "stop" for text in texts),
        repeating=sum(_repeats(text.token_ids) for text in texts),
        with_marks=sum(any(mark in text.text for mark in _MARKS) for text in texts),
    )


def _repeats(ids: Sequence[int], length: int = 4, times: int = 4) -> bool:
    """Whether the text ends in the same few tokens several times."""
    for size in range(1, length + 1):
        tail = tuple(ids[-size:])
        if len(ids) >= size * times and tuple(ids[-size * times :]) == tail * times:
            return True
    return False
