"""What letters alone tell about knowledge and habit: two models of guessing, fitted by maximum likelihood.

In: a confusion table (k key letters x k answered letters, counts; k = 4 for KMMLU). Out: fitted parameters,
their influence by cell, and how a change of habit changes the accuracy. Knows nothing of runs, questions or
words.

Letters do not identify how much of an accuracy is habit, because that depends on *how* a model guesses:

    mixture  it knows a share k and guesses the rest by a habit h:  P(j | i) = k [i = j] + (1 - k) h_j
    choice   every letter has a pull, the right one a stronger one:  P(j | i) ~ exp(b_j + beta [i = j])
             (Luce 1963, biased choice; a multinomial logit with one knowledge and k - 1 bias parameters)

Of the tables of 25 public runs, about half fit the first better and half the second. So both are fitted, and
there is a verdict only if they agree.

Both have k parameters, a concave likelihood (Newton's method), and a smooth accuracy, so the error of
everything derived from them follows by the delta method from each question's influence: a robust (sandwich)
error, valid even if the model is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kmmlu_fast.analysis.softmax import softmax_last_axis

Floats = NDArray[np.float64]
# Pseudo-counts, in questions, spread as without knowledge: a letter never answered still has a finite pull
PSEUDO = 0.5


@dataclass(frozen=True, slots=True)
class LetterModelFit:
    """One model of one run. ``theta``: its k parameters; ``influence`` (k key, k answer, k): change of theta
    per additional answer in the cell.
    """

    theta: Floats
    influence: Floats
    log_likelihood: float


def mixture_table(theta: Floats) -> Floats:
    """P(answer | key), rows by key; ``theta``: g_j = (1 - k) h_j."""
    count = len(theta)
    return np.asarray(np.broadcast_to(theta, (count, count)) + (1.0 - theta.sum()) * np.eye(count))


def choice_table(theta: Floats) -> Floats:
    """P(answer | key), rows by key; ``theta``: beta and the pulls of all letters but the last, whose pull is
    0. Leading axes are batch axes.
    """
    count = theta.shape[-1]
    pulls = np.concatenate([theta[..., 1:], np.zeros_like(theta[..., :1])], axis=-1)
    return softmax_last_axis(pulls[..., None, :] + theta[..., 0, None, None] * np.eye(count))


def _with_pseudo_counts(counts: Floats) -> Floats:
    """With independent pseudo-counts of the table's margins: without data, no knowledge is assumed. Leading
    axes are batch axes.
    """
    margins = (counts.sum(axis=-1) + 0.1, counts.sum(axis=-2) + 0.1)
    rows, columns = (margin / margin.sum(axis=-1, keepdims=True) for margin in margins)
    return np.asarray(counts + PSEUDO * rows[..., :, None] * columns[..., None, :])


def fit_mixture(counts: Floats) -> LetterModelFit:
    """Maximum likelihood in g, in which it is concave; k may be below 0 (worse than guessing by habit)."""
    table = _with_pseudo_counts(counts)
    count = len(table)
    same = np.eye(count)
    diagonal, off = np.diag(table), table.sum(axis=0) - np.diag(table)

    def parts(g: Floats) -> tuple[float, Floats, Floats]:
        right = 1.0 - g.sum() + g  # P(l | l)
        if (g <= 0).any() or (right <= 0).any():
            return -np.inf, g, same
        value = float(off @ np.log(g) + diagonal @ np.log(right))
        pull = diagonal / right
        others = 1.0 - same  # d right_l / d g_j = -[l != j]
        gradient = off / g - others @ pull
        hessian = -np.diag(off / g**2) - others @ np.diag(diagonal / right**2) @ others
        return value, gradient, hessian

    # P(j | key is not j): a consistent estimate, so close to the maximum
    start = np.clip(off / np.maximum(table.sum() - table.sum(axis=1), 1e-9), 1e-6, None)
    if start.sum() >= 1:
        start *= 0.999 / start.sum()
    theta, hessian = _maximise_by_newton(parts, start)
    right = np.maximum(1.0 - theta.sum() + theta, 1e-12)
    scores = np.zeros((count, count, count))
    for i in range(count):
        for j in range(count):
            scores[i, j] = same[j] / theta[j] if i != j else -(1.0 - same[i]) / right[i]
    return _make_letter_model_fit(theta, hessian, scores, counts, mixture_table(theta))


def fit_choice(counts: Floats) -> LetterModelFit:
    """Maximum likelihood of the multinomial logit."""
    table = _with_pseudo_counts(counts)
    count = len(table)
    design = _make_choice_design(count)

    def parts(theta: Floats) -> tuple[float, Floats, Floats]:
        p = choice_table(theta)
        mean = np.einsum("ij,ijk->ik", p, design)
        gradient = np.einsum("ij,ijk->k", table, design) - table.sum(axis=1) @ mean
        second = np.einsum("i,ij,ijk,ijl->kl", table.sum(axis=1), p, design, design)
        hessian = np.einsum("i,ik,il->kl", table.sum(axis=1), mean, mean) - second
        return float((table * np.log(np.maximum(p, 1e-300))).sum()), gradient, hessian

    theta, hessian = _maximise_by_newton(parts, np.zeros(count))
    p = choice_table(theta)
    scores = design - np.einsum("ij,ijk->ik", p, design)[:, None, :]
    return _make_letter_model_fit(theta, hessian, scores, counts, p)


def fit_choices(counts: Floats) -> Floats:
    """The same for many tables at once, (tables, k, k): their parameters, (tables, k), without influence."""
    table = _with_pseudo_counts(counts)
    design = _make_choice_design(table.shape[-1])
    products = np.einsum("ijk,ijl->ijkl", design, design)
    rows = table.sum(axis=-1)
    wanted = np.einsum("gij,ijk->gk", table, design)
    theta: Floats = np.zeros(wanted.shape)
    for _ in range(50):
        p = choice_table(theta)
        mean = np.einsum("gij,ijk->gik", p, design)
        gradient = wanted - np.einsum("gi,gik->gk", rows, mean)
        curve = np.einsum("gij,ijkl->gkl", rows[..., None] * p, products)
        curve -= np.einsum("gi,gik,gil->gkl", rows, mean, mean)
        step = np.linalg.solve(curve + 1e-9 * np.eye(len(design)), gradient[..., None])[..., 0]
        step /= np.maximum(1.0, np.abs(step).max(axis=-1, keepdims=True))
        theta += step
        if np.abs(step).max(initial=0.0) < 1e-6:
            break
    return theta


def _make_choice_design(count: int) -> Floats:
    """What each (key, answer) adds to (beta, A, B, ...), the last letter excluded."""
    design = np.zeros((count, count, count))
    design[:, :, 0] = np.eye(count)
    design[:, :, 1:] = np.eye(count)[:, : count - 1]
    return design


def _maximise_by_newton(
    parts: Callable[[Floats], tuple[float, Floats, Floats]], theta: Floats
) -> tuple[Floats, Floats]:
    """Maximise a concave function by damped Newton steps; (maximum, Hessian there)."""
    value, gradient, hessian = parts(theta)
    for _ in range(200):
        step = -np.linalg.solve(hessian - 1e-12 * np.trace(-hessian) * np.eye(len(theta)), gradient)
        gain = float(gradient @ step)  # twice the remaining gain
        if gain < 1e-10:
            break
        size = 1.0
        while size > 1e-10:
            better = parts(theta + size * step)
            if better[0] >= value + 1e-4 * size * gain:
                break
            size /= 2
        else:
            break
        theta, (value, gradient, hessian) = theta + size * step, better
    return theta, hessian


def _make_letter_model_fit(
    theta: Floats, hessian: Floats, scores: Floats, counts: Floats, table: Floats
) -> LetterModelFit:
    log_likelihood = float((counts * np.log(np.maximum(table, 1e-300))).sum())
    return LetterModelFit(theta, scores @ np.linalg.inv(-hessian).T, log_likelihood)


def mixture_habit_effect(first: Floats, second: Floats, key: Floats) -> Floats:
    """The change of accuracy due to habit, at the mean knowledge of both: mean(1 - k) x change of h.q.
    Leading axes are batch axes.
    """
    one, other = first.sum(axis=-1), second.sum(axis=-1)
    habits = second / np.maximum(other, 1e-12)[..., None] - first / np.maximum(one, 1e-12)[..., None]
    return np.asarray((one + other) / 2 * (habits * key).sum(axis=-1))


def choice_habit_effect(first: Floats, second: Floats, key: Floats) -> Floats:
    """The change of accuracy due to the pulls, averaged over both knowledges. Leading axes are batch axes."""

    def accuracy(knowledge: Floats, pulls: Floats) -> Floats:
        axes = np.broadcast_shapes(knowledge.shape[:-1], pulls.shape[:-1])
        theta = [np.broadcast_to(part, (*axes, part.shape[-1])) for part in (knowledge, pulls)]
        right = np.diagonal(choice_table(np.concatenate(theta, axis=-1)), axis1=-2, axis2=-1)
        return np.asarray((right * key).sum(axis=-1))

    changes = [
        accuracy(theta[..., :1], second[..., 1:]) - accuracy(theta[..., :1], first[..., 1:])
        for theta in (first, second)
    ]
    return (changes[0] + changes[1]) / 2


MODELS: dict[str, tuple[Callable[[Floats], LetterModelFit], Callable[[Floats, Floats, Floats], Floats]]] = {
    "mixture": (fit_mixture, mixture_habit_effect),
    "choice": (fit_choice, choice_habit_effect),
}
