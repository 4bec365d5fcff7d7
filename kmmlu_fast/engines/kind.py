"""What the rest of the package may ask about an engine, instead of comparing its name.

In: an engine's name. Out: its ``EngineKind``, which the engine's folder fills in as ``KIND`` in ``kind.py``.
Those modules import their engine only when it is opened. Knows nothing of questions.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from kmmlu_fast.engines.names import ENGINES
from kmmlu_fast.engines.options import EngineOptions

if TYPE_CHECKING:
    from kmmlu_fast.core.schema import Adapter
    from kmmlu_fast.engines.protocol import Engine
    from kmmlu_fast.models.model import Model

OpenEngine: TypeAlias = "Callable[[EngineOptions, Model, Sequence[Adapter], int, str | None], Engine]"
"""(options, model, adapters, longest prompt + output in tokens, path of a merged copy or None) -> engine."""
WarmParts: TypeAlias = (
    "Callable[[EngineOptions, Model, Sequence[Adapter], int, str | None], dict[str, Any] | None]"
)
"""The same arguments -> JSON-able parts of an engine's identity."""


class ChooseForQuestions(Protocol):
    """``letters``: one token per answer; ``adapters``: whether some are evaluated too."""

    def __call__(
        self, options: EngineOptions, questions: int, *, letters: bool, adapters: bool
    ) -> tuple[dict[str, Any], str]: ...


def _no_advice() -> str:
    return ""


def _not_kept_warm(
    options: EngineOptions, model: Model, adapters: Sequence[Adapter], max_model_len: int, path: str | None
) -> dict[str, Any] | None:
    return None


def _no_problem(options: EngineOptions) -> str:
    return ""


def _computes_on_gpu_here(options: EngineOptions) -> bool:
    from kmmlu_fast.machine.device import has_gpu

    return has_gpu()


def _nothing_more(options: EngineOptions) -> dict[str, Any]:
    return {}


def _nothing_to_choose(
    options: EngineOptions, questions: int, *, letters: bool, adapters: bool
) -> tuple[dict[str, Any], str]:
    return {}, ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind:
    """One engine: how it opens, what it needs, and what it does with adapters."""

    name: str
    open: OpenEngine
    requires: Callable[[EngineOptions], list[str]]  # modules that must be importable
    libraries: Callable[[EngineOptions], list[str]]  # packages whose versions decide the answers
    option_problem: Callable[[EngineOptions], str] = _no_problem  # "" if the engine takes these options
    own_flags: Mapping[str, str] = field(default_factory=dict)  # option only it takes -> advice for others
    fingerprint_parts: Callable[[EngineOptions], dict[str, Any]] = _nothing_more
    # options that depend on how many questions are asked -> their values, and a note ("" for none)
    choose_for_questions: ChooseForQuestions = _nothing_to_choose
    computes_here: bool = True  # False: another machine, or the model's file, decides the compute type
    applies_adapters: bool = False  # True: serves adapters on a CPU too, as fast as the base
    loads_with_peft: bool = False  # True: PEFT applies adapters unmerged, so any kind of adapter works
    refused_adapter_modes: Mapping[str, str] = field(default_factory=dict)  # mode -> why, and what to do
    keeps_special: bool = True  # writes special tokens into texts if asked to
    on_gpu: Callable[[EngineOptions], bool] = _computes_on_gpu_here  # whether GPUs compute, wherever they are
    swap_problem: Callable[[EngineOptions], str] = _no_problem  # "" if weights can be written into it
    # What the engine that ``open`` starts with the same arguments is built from, for ``warm``; None if it
    # cannot outlive a command. Without the length of the context: a longer one gives the same answers.
    warm_parts: WarmParts = _not_kept_warm
    advice: Callable[[], str] = _no_advice  # "" if no other --engine is better on this machine

    @property
    def can_be_warm(self) -> bool:
        """Whether a process may keep such an engine for other commands."""
        return self.warm_parts is not _not_kept_warm


def find_engine_kind(name: str) -> EngineKind:
    """The engine of that name, which must be one of ``ENGINES``."""
    kind = importlib.import_module(ENGINES[name]).KIND
    assert isinstance(kind, EngineKind) and kind.name == name
    return kind


def foreign_option_problem(options: EngineOptions) -> str:
    """The first option that was changed from its default and that only another engine takes; or ""."""
    fields = type(options).model_fields
    for owner in (find_engine_kind(name) for name in ENGINES if name != options.engine):
        for name, advice in owner.own_flags.items():
            if getattr(options, name) != fields[name].default:
                more = f"; {advice}" if advice else ""
                return f"--{name.replace('_', '-')} goes with --engine {owner.name}{more}"
    return ""
