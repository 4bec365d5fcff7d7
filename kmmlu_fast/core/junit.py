"""JUnit XML, which CI systems show as a list of passed and failed checks.

In: a suite's name and its cases. Out: bytes. Knows nothing of what was checked; writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from kmmlu_fast.core.untrusted_text import strip_control_characters


@dataclass(frozen=True, slots=True)
class JunitCase:
    """One check. ``failure``: the kind of failure, None if it passed."""

    name: str
    text: str
    failure: str | None = None


def format_junit(suite: str, kind: str, cases: Sequence[JunitCase]) -> bytes:
    """The document. ``kind`` is the cases' class name."""
    root = ElementTree.Element(
        "testsuite",
        name=suite,
        tests=str(len(cases)),
        failures=str(sum(case.failure is not None for case in cases)),
        errors="0",
    )
    for case in cases:
        name, text = strip_control_characters(case.name), strip_control_characters(case.text)
        element = ElementTree.SubElement(root, "testcase", classname=kind, name=name)
        if case.failure is None:
            ElementTree.SubElement(element, "system-out").text = text
        else:
            ElementTree.SubElement(element, "failure", message=text, type=case.failure)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data
