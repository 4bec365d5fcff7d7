"""Make the pictures of the README and of docs/report.md again, from the runs that ship or from any others.

    python scripts/pictures.py [FIRST SECOND [MORE ...]] [--dataset X] [--out docs]

FIRST and SECOND are what compare takes, such as the runs of the README's loop (``base demo-lora``); without
them, all published runs. Out: ``terminal.svg``, ``report-light.png`` (1280 pixels),
``report-dark.png`` (768), ``report-narrow.png`` (390, Korean), and with MORE ``report-board.png`` (all runs).
Needs Chromium and its driver, and selenium (requirements/dev.txt). No text of a question is shown.
"""

from __future__ import annotations

import argparse
import base64
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from kmmlu_fast import compare, report
from kmmlu_fast.reporting.terminal import screens
from kmmlu_fast.runs.published import PUBLISHED_PREFIX, is_published_argument, load_published_answers

WIDTH = 112  # columns of the terminal


@dataclass(frozen=True, slots=True)
class Picture:
    """One page as a screen shows it. ``section``: what it begins with; "" is the top."""

    name: str
    lang: str
    width: int
    height: int
    dark: bool = False
    section: str = ""


PICTURES = (
    Picture("report-light.png", "en", 1280, 1080),
    Picture("report-dark.png", "en", 768, 1000, dark=True, section="charts"),
    Picture("report-narrow.png", "ko", 390, 1300),
)
BOARD = Picture("report-board.png", "en", 1280, 1290)


def draw_terminal(runs: list[str], more: list[str], path: Path) -> None:
    """The screen of ``compare``, with its colours."""
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        console = Console(
            record=True,
            width=WIDTH,
            highlight=False,
            file=nowhere,
            force_terminal=True,
            color_system="truecolor",
        )
        screens.wide_console = lambda: console
        code = compare.run_compare_command([*runs, *more])
    if code:
        raise SystemExit(code)
    names = [run if is_published_argument(run) else run.rpartition("/")[2] for run in runs]
    console.save_svg(str(path), title=shlex.join(["kmmlu-fast", "compare", *names]))


def photograph_page(page: Path, picture: Picture, path: Path) -> None:
    """The page, or its section, as a screen of that size shows it."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    driver: Any = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if picture.dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": picture.width, "height": picture.height, "deviceScaleFactor": 1}
        size["mobile"] = picture.width < 500
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(page.resolve().as_uri())
        if picture.section:
            driver.execute_script(
                f"document.getElementById('{picture.section}').scrollIntoView({{behavior: 'instant'}})"
            )
        shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    finally:
        driver.quit()
    path.write_bytes(base64.b64decode(shot["data"]))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python scripts/pictures.py")
    shipped = [PUBLISHED_PREFIX + run.name for run in load_published_answers().runs]
    parser.add_argument("runs", nargs="*", metavar="RUN", default=shipped)
    parser.add_argument("--dataset")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args(argv)
    more = ["--dataset", arguments.dataset] if arguments.dataset else []
    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures = [(picture, arguments.runs[:2]) for picture in PICTURES]
    if len(arguments.runs) > 2:
        pictures.append((BOARD, arguments.runs))
    draw_terminal(arguments.runs[:2], more, arguments.out / "terminal.svg")
    for picture, runs in pictures:
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "report.html"
            flags = ["--no-texts", "--lang", picture.lang, "--output", str(page), *more]
            if code := report.run_report_command([*runs, *flags]):
                return code
            photograph_page(page, picture, arguments.out / picture.name)
        print(arguments.out / picture.name, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
