"""The report in real headless Chromium: opens from disk, asks for nothing, complains of
nothing, and its table works.
"""

from pathlib import Path
from typing import Any

import pytest
from browser_cases import click, needs_chromium, rows, sized
from made_runs import found_in, loaded, predictions, questions

from kmmlu_fast.reporting.html.page import write_report_page

pytestmark = needs_chromium
EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [
        loaded(f"base {EVIL}", predictions(1, skill=0.4, text=EVIL)),
        loaded("lora", predictions(2, skill=1.4, text="풀이: 정답은 B입니다.")),
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report_page(found_in(runs, questions(runs[0].frame, text=f"용액의 {EVIL} 농도는?")), path, "ko")
    return path


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(page.as_uri())
    WebDriverWait(browser, 20).until(lambda b: b.find_elements("css selector", "#questions .q"))
    return browser


def choose(browser: Any, field: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", field)).select_by_value(value)


def test_no_request_and_no_complaint(opened: Any, page: Path) -> None:
    import json

    entries = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {
        entry["params"]["request"]["url"]
        for entry in entries
        if entry["method"] == "Network.requestWillBeSent"
    }
    assert asked == {page.as_uri()} | {url for url in asked if url.startswith("data:")}
    assert opened.get_log("browser") == []


def test_scripts_in_the_data_do_not_run(opened: Any) -> None:
    click(opened, rows(opened)[0].find_element("css selector", "button"))
    detail = opened.find_element("css selector", ".detail")
    assert EVIL in detail.text and detail.find_elements("css selector", "script, img") == []
    assert (
        opened.title.startswith("KMMLU")
        and "taken" not in opened.execute_script("return document.title").split("·")[-1]
    )


def test_an_injected_script_is_stopped_by_the_policy(opened: Any) -> None:
    """Should escaping ever fail, the content security policy still stands."""
    opened.execute_script(
        "const e = document.createElement('div'); e.innerHTML = arguments[0]; document.body.append(e);", EVIL
    )
    assert opened.execute_script("return document.title") != "taken"
    opened.get_log("browser")


def test_filters(opened: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    count = opened.find_element("id", "count")
    assert count.text.startswith("200문항 중 200") and len(rows(opened)) == 25
    choose(opened, "outcome", "gained")
    frames = predictions(1, skill=0.4), predictions(2, skill=1.4)
    gained = int((~frames[0]["correct"] & frames[1]["correct"]).sum())
    assert count.text.startswith(f"200문항 중 {gained} ")
    choose(opened, "subject", "1")  # Law
    law = int((~frames[0]["correct"] & frames[1]["correct"] & (frames[0]["subject"] == "Law")).sum())
    assert count.text.startswith(f"200문항 중 {law} ")
    choose(opened, "outcome", "all")
    choose(opened, "subject", "")
    opened.find_element("id", "search").send_keys("Math/test/17")
    WebDriverWait(opened, 5).until(lambda b: count.text.startswith("200문항 중 1 "))
    assert "수학 17" in rows(opened)[0].text


def test_pages_and_order(opened: Any) -> None:
    first = rows(opened)[0].text
    click(opened, opened.find_element("id", "next"))
    assert rows(opened)[0].text != first and "2/8" in opened.find_element("id", "count").text
    click(opened, opened.find_element("id", "back"))
    assert rows(opened)[0].text == first
    choose(opened, "order", "confident")
    best = predictions(2, skill=1.4).sort("confidence", descending=True)["question_id"][0]
    click(opened, rows(opened)[0].find_element("css selector", "button"))
    shown = opened.find_element("css selector", ".full-id").text.split(" ·")[0]
    steps = {
        q: round(80 * c) for q, c in predictions(2, skill=1.4).select("question_id", "confidence").iter_rows()
    }
    assert steps[shown] == steps[best]


def test_subject_table_sorts(opened: Any) -> None:
    opened.execute_script("document.querySelector('#subjects details').open = true")
    heads = opened.find_elements("css selector", "#subjects thead th")
    click(opened, heads[2])
    counts = [
        int(cell.text) for cell in opened.find_elements("css selector", "#subjects tbody td:nth-child(3)")
    ]
    assert counts == sorted(counts, reverse=True)
    click(opened, heads[2])
    counts = [
        int(cell.text) for cell in opened.find_elements("css selector", "#subjects tbody td:nth-child(3)")
    ]
    assert counts == sorted(counts)


@pytest.mark.parametrize("width", [360, 390, 820, 1280])
def test_no_width_overflows(opened: Any, width: int) -> None:
    sized(opened, width)
    try:
        wide = (
            "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .chart') &&"
            " e.getBoundingClientRect().right > arguments[0] + 1).map(e => e.outerHTML.slice(0, 80))"
        )
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width, (
            opened.execute_script(wide, width)
        )
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_and_light_differ_and_print_is_light(opened: Any) -> None:
    def paper(**media: Any) -> str:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        return str(opened.execute_script("return getComputedStyle(document.body).backgroundColor"))

    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    light = [{"name": "prefers-color-scheme", "value": "light"}]
    try:
        assert paper(features=dark) == "rgb(16, 20, 26)" and paper(features=light) == "rgb(245, 246, 248)"
        assert paper(media="print", features=dark) == "rgb(255, 255, 255)"
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_a_confident_error_opens_its_question(opened: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    link = opened.find_element("css selector", "#confident-errors tbody a")
    wanted = link.text
    click(opened, link)
    WebDriverWait(opened, 10).until(lambda b: b.find_elements("css selector", ".detail .full-id"))
    assert opened.find_element("css selector", ".detail .full-id").text.startswith(wanted)


def test_tooltip_shows_a_marks_numbers(opened: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    mark = opened.find_element(
        "css selector", "#chart-letters [role=graphics-symbol][aria-roledescription=bar]"
    )
    opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", mark)
    ActionChains(opened).move_to_element(mark).perform()
    tip = opened.find_element("id", "tip")
    assert tip.is_displayed() and tip.text == mark.get_attribute("aria-label") and "%" in tip.text


@pytest.mark.parametrize("width", [390, 1280])
def test_no_axis_label_is_cut(browser: Any, tmp_path: Path, width: int) -> None:
    """Charts are measured in one font and shown in another, which may be wider."""
    names = ("Railway-and-Automotive-Engineering", "Telecommunications-and-Wireless-Technology", "Law")
    sizes = dict.fromkeys((*names, "Machine-Design-and-Manufacturing", "Math"), 40)
    runs = [loaded(name, predictions(seed, sizes=sizes)) for seed, name in enumerate(("base", "lora"))]
    path = tmp_path / "long.html"
    write_report_page(found_in(runs), path, "en")
    browser.get(path.as_uri())
    sized(browser, width)
    try:
        cut = browser.execute_script(
            "return [...document.querySelectorAll('.chart')]"
            ".flatMap(chart => [...chart.querySelectorAll('text')]"
            ".filter(label => label.getBoundingClientRect().width"
            " && label.getBoundingClientRect().left < chart.getBoundingClientRect().left - 0.5)"
            ".map(label => label.textContent))"
        )
        shown = browser.execute_script("return document.querySelectorAll('.chart text').length")
        assert shown > 50 and cut == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
