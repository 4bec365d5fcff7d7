"""What a reader chooses in the report, in real headless Chromium: it stays in the address, keys
work, pairs are computed as in Python.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from browser_cases import needs_chromium
from made_runs import QUICK, found_in, loaded, predictions, questions

from kmmlu_fast.analysis.paired import mcnemar_midp, subject_counts, subject_differences
from kmmlu_fast.reporting.html.page import write_report_page
from kmmlu_fast.reporting.pairs import compare_all_with_base
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.verdict import headline_sentence

pytestmark = needs_chromium
NAMES = ("base", "lora", "other model", "글자")
SKILLS = (0.4, 1.2, 0.8, 0.5)


@pytest.fixture(scope="module")
def frames() -> list[pl.DataFrame]:
    return [predictions(seed, skill=skill, unparsed=0.05 * seed) for seed, skill in enumerate(SKILLS)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, frames: list[pl.DataFrame]) -> Path:
    runs = [loaded(name, frame) for name, frame in zip(NAMES, frames, strict=True)]
    asked = questions(frames[0]).with_columns(
        pl.when(pl.col("subject") == "Law").then(0.0).otherwise(0.5).alias("human_accuracy")
    )
    path = tmp_path_factory.mktemp("view") / "report.html"
    write_report_page(found_in(runs, asked), path, "en")
    return path


def visit(browser: Any, page: Path, fragment: str = "") -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(page.as_uri() + fragment)
    WebDriverWait(browser, 30).until(lambda b: b.find_elements("css selector", "#questions > *"))


def fragment(browser: Any) -> str:
    return str(browser.execute_script("return decodeURIComponent(location.hash.replaceAll('+', ' '))"))


def text(browser: Any, name: str) -> str:
    return str(browser.find_element("id", name).text)


def choose(browser: Any, field: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", field)).select_by_visible_text(value)


def keys(browser: Any, *typed: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*typed).perform()


def test_the_leaderboard_leads(browser: Any, page: Path) -> None:
    visit(browser, page)
    sections = [
        section.get_attribute("id") for section in browser.find_elements("css selector", "main > section")
    ]
    assert sections[:2] == ["runs", "summary"]
    board = [
        row.get_attribute("data-run") for row in browser.find_elements("css selector", "#board tbody tr")
    ]
    assert board[0] == "lora" and set(board) == set(NAMES)


def test_a_chosen_pair_is_computed_as_in_python(browser: Any, page: Path, frames: list[pl.DataFrame]) -> None:
    visit(browser, page)
    choose(browser, "base", "other model")
    choose(browser, "contender", "글자")
    pairs = (
        frames[2]
        .select("subject", "supercategory", pl.col("correct").alias("first"))
        .with_columns(second=frames[3]["correct"])
    )
    counts = subject_counts(pairs)
    b, c = int(counts["b"].sum()), int(counts["c"].sum())
    assert text(browser, "headline").startswith(f"{100 * (c - b) / len(pairs):+.2f}".replace("-", "−"))
    assert browser.execute_script("return STATS.midP(arguments[0], arguments[1])", b, c) == pytest.approx(
        float(mcnemar_midp(b, c)), abs=1e-9
    )
    ours = browser.execute_async_script(
        "const done = arguments[0]; unpack(byId('data').textContent).then((d) => done(STATS.compare(d, 2,"
        " 3).subjects.map((s) => [d.subjects[s.at].id, s.difference, s.low, s.high, s.p, s.holm, s.bh,"
        " s.mde])))"
    )
    columns = ["difference", "low", "high", "p_value", "p_holm", "p_bh", "minimum_detectable_effect"]
    theirs = {row[0]: row[1:] for row in subject_differences(counts).select("subject", *columns).iter_rows()}
    assert {row[0] for row in ours} == set(theirs)
    for name, *values in ours:
        assert values == pytest.approx(list(theirs[name]), abs=1e-6), name


def test_page_and_terminal_give_one_verdict_for_every_pair(browser: Any, page: Path) -> None:
    """The page shows what ``compare`` says with that base and the same runs."""
    names = [*NAMES, "twin"]
    frames = [predictions(seed, skill=skill) for seed, skill in enumerate((*SKILLS, 0.52))]
    runs = [loaded(name, frame) for name, frame in zip(names, frames, strict=True)]
    path = page.parent / "five.html"
    write_report_page(found_in(runs, None), path, "en")
    t = get_translator("en")
    for base in runs:
        visit(browser, path)
        if base is not runs[0]:
            choose(browser, "base", base.name)
        others = [run for run in runs if run is not base]
        pairs, _ = compare_all_with_base([base, *others], QUICK)
        for pair in pairs:
            choose(browser, "contender", pair.second)
            shown = text(browser, "headline")
            assert headline_sentence(pair, t) in shown, (base.name, pair.second)
            tone = browser.find_element("id", "summary").get_attribute("class")
            assert (" up" in tone or " down" in tone) == pair.significant
            starred = browser.find_elements("css selector", f'#board tr[data-run="{pair.second}"] .star')
            assert bool(starred) == pair.significant


def test_the_pair_survives_a_reload_and_goes_back(browser: Any, page: Path) -> None:
    visit(browser, page)
    before = text(browser, "headline")
    choose(browser, "base", "other model")
    chosen, after = fragment(browser), text(browser, "headline")
    assert "base=other model" in chosen and after != before
    visit(browser, page, browser.execute_script("return location.hash"))
    assert text(browser, "headline") == after and fragment(browser) == chosen
    choose(browser, "base", "base")
    choose(browser, "contender", "lora")
    assert text(browser, "headline") == before and "base=" not in fragment(browser)


def test_a_ready_pair_has_the_whole_verdict(browser: Any, page: Path) -> None:
    visit(browser, page, "#?run=other%20model")
    details = browser.find_element("css selector", "#headline details")
    assert "letter prior" in details.get_attribute("textContent")
    assert "other model" in text(browser, "pair")


def test_an_address_opens_its_question(browser: Any, page: Path) -> None:
    visit(browser, page, "#Accounting/test/17")
    assert "Accounting/test/17" in browser.find_element("css selector", ".detail .full-id").text
    browser.execute_script("location.hash = '#Law/test/3'")
    ids = [element.text for element in browser.find_elements("css selector", ".detail .full-id")]
    assert any(
        name.startswith("Law/test/3") and "unknown" in name for name in ids
    )  # a whole subject of zeros: nobody measured it


def test_filters_page_and_opened_question_survive_a_reload(browser: Any, page: Path) -> None:
    visit(browser, page)
    choose(browser, "outcome", "Answers differ")
    field = browser.find_element("id", "search")
    field.send_keys("수학")  # the Korean name of a subject, on the English page
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 5).until(lambda b: "q=수학" in fragment(b))
    assert all(row.text.startswith("Math") for row in browser.find_elements("css selector", "#questions .q"))
    first = browser.find_element("css selector", "#questions .q > button")
    browser.execute_script("arguments[0].click()", first)
    shown, count = browser.find_element("css selector", ".full-id").text, text(browser, "count")
    visit(browser, page, browser.execute_script("return location.hash"))
    assert text(browser, "count") == count and browser.find_element("css selector", ".full-id").text == shown
    assert browser.find_element("id", "search").get_attribute("value") == "수학"


def test_page_jump_sort_theme_and_language_survive(browser: Any, page: Path) -> None:
    visit(browser, page)
    browser.execute_script("const p = byId('page'); p.value = '3'; p.dispatchEvent(new Event('change'))")
    browser.execute_script("document.querySelectorAll('#board thead th')[4].querySelector('button').click()")
    browser.execute_script("byId('theme').click()")
    first = browser.find_element("css selector", "#questions .q").text
    board = [
        row.get_attribute("data-run") for row in browser.find_elements("css selector", "#board tbody tr")
    ]
    visit(browser, page, browser.execute_script("return location.hash"))
    assert (
        "page=3" in fragment(browser) and browser.find_element("css selector", "#questions .q").text == first
    )
    assert [
        row.get_attribute("data-run") for row in browser.find_elements("css selector", "#board tbody tr")
    ] == board
    assert browser.execute_script("return document.documentElement.style.colorScheme") == "dark"
    visit(browser, page, browser.execute_script("return location.hash") + "&lang=ko")
    assert browser.execute_script("return document.documentElement.lang") == "ko"
    assert "순위표" in text(browser, "runs") and "page=3" in fragment(browser)


def test_keyboard(browser: Any, page: Path) -> None:
    visit(browser, page)
    keys(browser, "j")
    keys(browser, "j")
    active = "return document.activeElement"
    second = browser.find_elements("css selector", "#questions .q > button")[1]
    assert browser.execute_script(active) == second
    keys(browser, "k")
    assert browser.execute_script(active) == browser.find_element("css selector", "#questions .q > button")
    keys(browser, "k")  # the first of the first page: nowhere to go
    keys(browser, "/")
    assert browser.execute_script("return document.activeElement.id") == "search"
    keys(browser, "j")  # in a field it is a letter
    assert browser.find_element("id", "search").get_attribute("value") == "j"


def axe() -> str | None:
    """axe-core's script: from $KMMLU_AXE, ``npm install axe-core`` here or beside the
    repository, or a wheel that brings it.
    """
    root = Path(__file__).parents[3]
    places = [Path(os.environ["KMMLU_AXE"])] if os.environ.get("KMMLU_AXE") else []
    places += [folder / "node_modules/axe-core/axe.min.js" for folder in (root, root / "tests", root.parent)]
    for module in ("axe_core_python", "axe_playwright_python"):
        spec = importlib.util.find_spec(module)
        places += [
            path
            for base in (spec.submodule_search_locations or [] if spec else [])
            for path in Path(base).rglob("axe.min.js")
        ]
    return next((path.read_text(encoding="utf-8") for path in places if path.is_file()), None)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_axe_finds_nothing(browser: Any, page: Path, scheme: str, lang: str) -> None:
    script = axe()
    if script is None:
        pytest.skip("axe-core is not here: npm install axe-core (or name its axe.min.js in KMMLU_AXE)")
    visit(browser, page, f"#Math/test/3?theme={scheme}&lang={lang}")
    browser.execute_script("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    browser.execute_script(script)
    found = browser.execute_async_script(
        "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then((r) =>"
        " done(r.violations), (e) => done([{id: String(e), impact: 'serious', nodes: []}]))"
    )
    bad = [(one["id"], one["impact"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found]
    assert bad == []


def test_nothing_was_complained_of(browser: Any, page: Path) -> None:
    visit(browser, page, "#?base=no-such-run&page=999&subject=nothing&open=a,b&q=%F0%9F%98%80")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
