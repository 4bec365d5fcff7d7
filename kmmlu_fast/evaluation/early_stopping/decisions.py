"""What an evaluation's answers so far decide: each adapter against the base, and which adapter is best.

In: the states' answers along the order. Out: decisions (Holm over the adapters), the race, and who must still
be asked. A function of the stored answers, so a restart decides the same. Asks nothing, writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kmmlu_fast.analysis.planning import forecast_answers
from kmmlu_fast.analysis.sequential.betting import ALPHA, UNDECIDED, Decision
from kmmlu_fast.analysis.sequential.control_variate import AnswerStream
from kmmlu_fast.analysis.sequential.question_order import (
    OrderedAnswers,
    QuestionOrder,
    accuracy_interval,
    answers_in_order,
    decide_on_answers,
    stream_of_answers,
)
from kmmlu_fast.analysis.sequential.sampling_weights import list_redraw_places
from kmmlu_fast.analysis.sequential.several import RaceState, decide_by_holm, run_race
from kmmlu_fast.core.console import log_note
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.early_stopping.passes import ModelStateProgress
from kmmlu_fast.evaluation.early_stopping.record import draw_interval_line, round_to_two_digits
from kmmlu_fast.runs.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class _ComparedAnswers:
    """An adapter's answers against the base's: what every level of its test needs, and costs most of it."""

    count: int
    asked_in: QuestionOrder  # the order of asking then
    order: QuestionOrder  # along which they are compared
    first: OrderedAnswers
    second: OrderedAnswers
    ahead: bool  # whether the base was complete before
    stream: AnswerStream


class InterimDecisions:
    """The decisions of one evaluation. ``states``: base first, if there is one."""

    def __init__(
        self, config: EvalConfig, uniform: QuestionOrder, finished: Mapping[str, Run], most: int
    ) -> None:
        """``uniform``: the order of asking until another is set; ``finished``: complete runs by state;
        ``most``: questions per state.
        """
        self.order = self._uniform = uniform
        self.most = most
        self.level = ALPHA  # of all adapters' comparisons together
        self.states: Sequence[ModelStateProgress] = ()
        self.latest: dict[str, Decision] = {}  # also the undecided ones
        self.race: RaceState | None = None
        self.shown: dict[str, str] = {}  # interval at the last look
        self._looked: dict[str, int] = {}  # questions at the last look
        self._cache: dict[tuple[str, int, float, float], Decision] = {}
        self._streams: dict[str, _ComparedAnswers] = {}  # of the last look
        self._config, self._finished = config, finished
        self._margin = config.margin / 100 or None

    @property
    def drawn_until(self) -> int:
        """The place at which the remaining questions are drawn anew; N in a uniform order."""
        if self.order.weights is None:
            return len(self.order)
        last = self.order.weights.starts[-1]
        return next((place for place in list_redraw_places(len(self.order)) if place > last), len(self.order))

    def states_in_play(self) -> list[ModelStateProgress]:
        """The adapters that may still be asked."""
        if self.race is not None:
            left = () if self.race.best else self.race.left
            return [state for state in self.states[1:] if state.name in left and state.sink is not None]
        decided = {name for name, decision in self.latest.items() if decision.verdict != UNDECIDED}
        return [state for state in self.states[1:] if state.name not in decided and state.sink is not None]

    def state_answers(self, state: ModelStateProgress, most: int | None = None) -> OrderedAnswers:
        """A state's answers along the order, ``most`` at most."""
        ids = self.order.ids[: min(state.reach, len(self.order) if most is None else most)]
        right = np.array([state.right[name] for name in ids], dtype=bool)
        return OrderedAnswers(right, np.array([state.margin[name] for name in ids], dtype=np.float64))

    def _count_answers(self, state: ModelStateProgress) -> int:
        """The answers that count: an adapter's, along the order as far as it is drawn for good."""
        if state.sink is None and state.adapter is not None and self.order.weights is not None:
            return len(self.order)  # a finished adapter is decided along the uniform order
        return min(self.states[0].reach, state.reach, self.most, self.drawn_until)

    def undecided_states(self) -> list[ModelStateProgress]:
        """The states that must still be asked. Decides on the answers so far and logs the intervals."""
        base, adapters = self.states[0], self.states[1:]
        counts = {state.name: self._count_answers(state) for state in adapters}
        new = [state for state in adapters if counts[state.name] > self._looked.get(state.name, 0)]
        if new:
            by_name = {state.name: state for state in adapters}
            decisions = decide_by_holm(
                list(by_name), lambda name, *levels: self._decide_state(by_name[name], *levels), self.level
            )
            self.latest = decisions
            for state in new:
                self._looked[state.name] = counts[state.name]
                self._log_interval(state, decisions[state.name])
            if self._config.until_best:
                self.race = self._run_race()
        left = [state for state in self.states_in_play() if min(state.reach, base.reach) < self.most]
        return [base, *left] if left else []

    def _log_interval(self, state: ModelStateProgress, decision: Decision) -> None:
        low, high, verdict = decision.low, decision.high, str(decision.verdict)
        interval = f"{draw_interval_line(low, high)} {100 * low:+.2f} to {100 * high:+.2f} pp"
        if decision.decided_at is not None:
            verdict += f" since question {decision.decided_at:,}"
        else:
            more = self._forecast_more(state, decision)
            verdict += f", {more}" if more else ""
            interval += f", {more}" if more else ""
        self.shown[state.name] = interval
        count = f"{self._looked[state.name]:,} of {decision.total:,} questions"
        log_note(f"{state.name}: {count}: {interval.split(', ')[0]}, {verdict}")

    def _forecast_more(self, state: ModelStateProgress, decision: Decision) -> str:
        """How many more questions may decide, in words; empty if all are asked."""
        n = self._looked[state.name]
        if n >= min(self.most, decision.total):
            return ""
        stream = self._compared_answers(state).stream
        answers = forecast_answers(stream, decision.alpha, self._margin)
        if answers is None or answers > self.most:
            return f"may take all {self.most:,}"
        if answers - n <= n // 50:  # the forecast is passed: a number would promise what it cannot know
            return "may be decided soon"
        return f"about {round_to_two_digits(answers - n):,} more"

    def _compared_answers(self, state: ModelStateProgress) -> _ComparedAnswers:
        """Kept until the adapter has more answers: in Holm's procedure each decision changes the levels of
        all others, and to compute every stream anew takes time with the square of the number of adapters.
        """
        count = self._count_answers(state)
        known = self._streams.get(state.name)
        if known is None or known.count != count or known.asked_in is not self.order:
            known = self._streams[state.name] = self._compare_answers(state, count)
        return known

    def _compare_answers(self, state: ModelStateProgress, n: int) -> _ComparedAnswers:
        base, order = self.states[0], self.order
        # Not if the base became complete in this session: the decision must not depend on the look sizes.
        ahead = base.sink is None
        if self.order.weights is not None and state.sink is None:
            order = self._uniform
            first = answers_in_order(order, self._finished["base"].frame)
            second = answers_in_order(order, self._finished[state.name].frame)
        else:
            first = self.state_answers(base) if ahead else self.state_answers(base, n)
            second = self.state_answers(state, n)
        return _ComparedAnswers(
            count=n,
            asked_in=self.order,
            order=order,
            first=first,
            second=second,
            ahead=ahead,
            stream=stream_of_answers(order, first, second, ahead),
        )

    def _decide_state(self, state: ModelStateProgress, alpha: float, equal_alpha: float) -> Decision:
        """The adapter compared with the base, as of the deciding question if there is one."""
        key = (state.name, self._count_answers(state), alpha, equal_alpha)
        if key not in self._cache:
            known = self._compared_answers(state)
            self._cache[key] = decide_on_answers(
                known.order,
                known.first,
                known.second,
                alpha,
                self._margin,
                known.ahead,
                self._config.population,
                equal_alpha,
                known.stream,
            )
        return self._cache[key]

    def _run_race(self) -> RaceState:
        """Which adapters are left, on what all of them have answered."""
        base, adapters = self.states[0], self.states[1:]
        open_ended = all(state.sink is None for state in adapters)
        most = None if open_ended else min(self.most, self.drawn_until)
        answers = {state.name: self.state_answers(state, most) for state in adapters}
        complete = self.state_answers(base) if base.sink is None else None
        return run_race(self.order, answers, complete, ALPHA, self._margin)

    def imprecise_states(self, state: ModelStateProgress) -> list[ModelStateProgress]:
        """The state itself while its interval is too wide and questions are left."""
        if state.reach >= self.most:
            return []
        half_width = self._config.until_precise
        if half_width is None or not state.reach:
            return [state]
        low, high = accuracy_interval(self.order, self.state_answers(state))
        interval = f"accuracy {100 * low:.2f} to {100 * high:.2f} %"
        self.shown[state.name] = interval
        if self._looked.get(state.name) != state.reach:
            log_note(f"{state.name}: {state.reach:,} of {len(self.order):,} questions: {interval}")
        self._looked[state.name] = state.reach
        return [] if high - low <= 2 * half_width / 100 else [state]
