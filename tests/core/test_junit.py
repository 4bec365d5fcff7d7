"""JUnit files: counted, and well-formed whatever the names hold."""

from __future__ import annotations

from xml.etree import ElementTree

from kmmlu_fast.core.junit import JunitCase, format_junit


def test_cases_are_counted_and_strange_names_stay_well_formed() -> None:
    cases = [
        JunitCase("한국어 <로라> & co", "equal"),
        JunitCase("bad\x00\x1b[31m", 'it is "worse"', "worse"),
    ]
    suite = ElementTree.fromstring(format_junit("s", "k", cases))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    first, second = suite
    assert first.get("name") == "한국어 <로라> & co" and first.find("failure") is None
    failure = second.find("failure")
    assert (
        failure is not None and failure.get("type") == "worse" and failure.get("message") == 'it is "worse"'
    )
