"""The release gate's result as text, JSON and JUnit XML.

In: a ``GateReport``. Out: lines, a JSON-able value, bytes. Writes nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kmmlu_fast.core.junit import JunitCase, format_junit
from kmmlu_fast.core.untrusted_text import strip_control_characters
from kmmlu_fast.core.version import __version__
from kmmlu_fast.shipping.gate import CheckedArtefact, GateReport


def gate_lines(report: GateReport) -> list[str]:
    """What the command prints: the sentence of each artefact, then the measurements behind it."""
    source = report.source
    lines = [f"reference: {source.model.name} (16 bit) + {source.adapter.name}, {report.style} prompts"]
    if report.trained is not None:
        trained = report.trained
        lines.append(
            f"  16 bit + adapter against what was trained (nf4 + adapter): {trained.same_letters} of"
            f" {trained.questions} letters equal, mean divergence {trained.divergence:.3f} nats"
        )
    for checked in report.checked:
        lines += ["", f"{checked.artefact.name}: {checked.diagnosis.sentence}"]
        lines += [f"  {line}" for line in _measured_lines(checked)]
    safe = sum(checked.diagnosis.is_safe for checked in report.checked)
    lines += ["", f"{safe} of {len(report.checked)} safe to ship"]
    return [strip_control_characters(line) for line in lines]


def _measured_lines(checked: CheckedArtefact) -> list[str]:
    measured, lines = checked.measured, []
    if measured.texts is not None:
        texts = measured.texts
        lines.append(
            f"texts: {texts.texts - texts.different} of {texts.texts} give the same ids, BOS {texts.bos},"
            f" template {texts.template}"
        )
        if texts.decomposed_differ:
            lines.append(
                "note: decomposed Hangul (NFD) is read differently: compose texts (NFC) before asking"
            )
    weights = measured.weights
    if weights is not None and weights.changed:
        slopes = [each.slope for each in weights.changed if each.slope is not None]
        rounded = [each.kept for each in weights.changed if each.is_exact]
        predicted = ""
        if len(rounded) == len(slopes) and weights.kept and not weights.kept.is_enough:
            predicted = f"; rounding leaves a right merge {min(rounded):.3f} to {max(rounded):.3f}"
        lines.append(
            f"weights: {len(slopes)} modules hold {min(slopes):.3f} to {max(slopes):.3f} times the adapter's"
            f" change{predicted}"
        )
    for name, letters in (("Korean", measured.letters), ("English", measured.english)):
        if letters is None:
            continue
        slope = ""
        if letters.slope is not None:
            slope = f", slope {letters.slope:.2f} ({letters.slope_low:.2f} to {letters.slope_high:.2f})"
        lines.append(
            f"letters, {name}: {letters.same_letters} of {letters.questions} equal"
            f" ({letters.changed_beyond_ties} changed beyond near ties), divergence"
            f" {letters.divergence:.4f} nats{slope}"
        )
    generated, reference = measured.generated, measured.reference_generated
    if generated is not None and reference is not None:
        lines.append(
            f"texts generated: {generated.stopped} of {generated.texts} end by themselves (reference"
            f" {reference.stopped}), {generated.repeating} repeat themselves ({reference.repeating})"
        )
    return lines


def gate_json(report: GateReport) -> dict[str, Any]:
    """Everything that was measured, for ``--json-file``."""
    source = report.source
    return {
        "kmmlu_fast": __version__,
        "safe": report.is_safe,
        "base": {"name": source.model.name, "digest": source.model.digest},
        "adapter": {"name": source.adapter.name, "digest": source.adapter.digest},
        "prompt_style": report.style,
        "trained": None if report.trained is None else asdict(report.trained),
        "artefacts": [
            {
                "name": checked.artefact.name,
                "kind": checked.artefact.kind,
                "verdict": checked.diagnosis.verdict,
                "safe": checked.diagnosis.is_safe,
                "sentence": checked.diagnosis.sentence,
                "causes": [cause.name for cause in checked.diagnosis.causes],
                "measured": asdict(checked.measured),
            }
            for checked in report.checked
        ],
    }


def gate_junit(report: GateReport) -> bytes:
    """A JUnit XML file: a test case per artefact, failed if it is not safe."""
    cases = [
        JunitCase(
            checked.artefact.name,
            checked.diagnosis.sentence,
            None if checked.diagnosis.is_safe else checked.diagnosis.verdict,
        )
        for checked in report.checked
    ]
    return format_junit("kmmlu-fast check", "check", cases)
