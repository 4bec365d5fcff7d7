"""How many questions, minutes and seeds show a difference, as text.

In: a ``PlanConfig``, with or without a finished base run. Out: lines. ConfigError if no adapter can make the
difference. Knows nothing of engines.
"""

from __future__ import annotations

import math

import numpy as np

from kmmlu_fast.analysis.planning import (
    POWER,
    expect_discordance,
    questions_for_fixed_size,
    questions_until_decided,
    standard_error_of_recipe,
)
from kmmlu_fast.analysis.sequential.betting import ALPHA
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.reporting.config import PlanConfig
from kmmlu_fast.runs.loading import load_all_runs, only_run
from kmmlu_fast.runs.run import Run

KMMLU_QUESTIONS = 35_030
_DISCORDANCE = 0.1  # without a base run
_SEEDS = (1, 3, 5)


def plan_lines(config: PlanConfig) -> list[str]:
    """The plan as text."""
    run = _load_base(config)
    total = config.questions or (run.total if run else KMMLU_QUESTIONS)
    discordance, reason = _choose_discordance(config, run)
    rate = _questions_per_sec(run)
    lines = [f"{total:,} questions; an adapter changes about {discordance:.1%} of the answers ({reason})", ""]
    sizes = [config.difference * factor / 100 for factor in (0.5, 1.0, 2.0)]
    possible = [size for size in sizes if size <= discordance]
    if not possible:
        raise ConfigError(
            f"--difference {config.difference:g}: an adapter that changes {discordance:.1%} of the answers"
            " cannot make such a difference; give a smaller one, or --discordance"
        )
    alpha = ALPHA / config.adapters
    head = f"{'difference':>10}  {'all at once':>11}  {'until decided':>13}  {'adaptive order':>14}"
    lines.append(head + ("  minutes, adaptive" if rate else ""))
    for size in possible:
        fixed = questions_for_fixed_size(size, discordance, alpha)
        uniform, adaptive = (
            questions_until_decided(size, discordance, total, adaptive=each, alpha=alpha)
            for each in (False, True)
        )
        shown = f"{fixed:,}" if fixed <= total else f"over {total:,}"
        row = f"{100 * size:>+7.2f} pp  {shown:>11}  {uniform:>13,}  {adaptive:>14,}"
        lines.append(row + (f"  {adaptive / rate / 60:>17,.1f}" if rate else ""))
    seeds = ", ".join(f"{count} {_seed_errors(config, discordance, total, count)}" for count in _SEEDS)
    return [
        *lines,
        "",
        f"All at once: a number fixed in advance, with a chance of {POWER:.0%} to show the difference. Until"
        " decided: the mean number per adapter with eval --until-decided; adaptive order: the same, once the"
        " base is finished.",
        f"Standard error of a recipe's difference, in pp, by number of seeds: {seeds}; in brackets with a"
        " tenth of the questions.",
    ]


def _load_base(config: PlanConfig) -> Run | None:
    if len(config.base) > 1:
        raise ConfigError(f"{' '.join(config.base)}: give one run, the base's")
    return only_run(config.base[0], load_all_runs(config.base)) if config.base else None


def _choose_discordance(config: PlanConfig, run: Run | None) -> tuple[float, str]:
    """The share of answers that an adapter changes, 0-1, and where it comes from."""
    if config.discordance is not None:
        return config.discordance / 100, "--discordance"
    if run is None:
        return _DISCORDANCE, "typical; name the base's run, or give --discordance"
    frame = run.frame
    margin = frame["margin"].fill_null(float("nan")).to_numpy()
    share = expect_discordance(margin.astype(np.float64), frame["correct"].to_numpy())
    if math.isnan(share) or share <= 0:
        return _DISCORDANCE, f"typical; {run.name} has no log-probabilities to tell"
    return share, "by the base's margins, for a typical LoRA"


def _questions_per_sec(run: Run | None) -> float:
    speed = run.metrics.speed if run else None
    return speed.questions_per_sec if speed else 0.0


def _seed_errors(config: PlanConfig, discordance: float, total: int, seeds: int) -> str:
    tau = config.seed_deviation / 100
    errors = [
        standard_error_of_recipe(tau, discordance, count, seeds) for count in (total, max(1, total // 10))
    ]
    return f"{100 * errors[0]:.2f} ({100 * errors[1]:.2f})"
