"""docs/api.md out of the docstrings of the public API: python scripts/api_docs.py > docs/api.md (a test holds
the two together).

In: ``kmmlu_fast.__all__``. Out: markdown on stdout.
"""

from __future__ import annotations

import inspect
import textwrap

import kmmlu_fast

HEAD = """# Python API

Made from the docstrings: `python scripts/api_docs.py > docs/api.md`.

```python
from kmmlu_fast import evaluate, compare_runs, write_report

base, lora = evaluate(model="demo", dataset="sample", adapter=["out/lora"])
base.predictions  # polars frame; .metrics, .path
found = compare_runs(base, lora)
found.subjects
found.verdict(lang="ko")
write_report([base, lora], "report.html")
```

Errors are raised as `KmmluError` (or one of its kinds below), nothing is printed, nothing exits.
Progress goes to the logger `kmmlu_fast`, and is a bar in a notebook.
"""


def members(kind: type) -> list[tuple[str, str]]:
    """Public properties and methods that are documented, in their order, with their first paragraph."""
    found = []
    for name, value in vars(kind).items():
        target = value.fget if isinstance(value, property) else value
        if (
            not name.startswith("_")
            and (inspect.isfunction(target))
            and target.__doc__
            and target.__module__.startswith("kmmlu_fast")
        ):
            shown = name if isinstance(value, property) else f"{name}{inspect.signature(target)}"
            found.append((shown, " ".join(inspect.cleandoc(target.__doc__).split("\n\n")[0].split())))
    return found


def page() -> str:
    """The whole page."""
    names = [name for name in kmmlu_fast.__all__ if name != "__version__"]
    things = {name: getattr(kmmlu_fast, name) for name in names}
    errors = [
        name for name, thing in things.items() if isinstance(thing, type) and issubclass(thing, Exception)
    ]
    functions = [name for name, thing in things.items() if inspect.isfunction(thing)]
    kinds = [name for name in names if name not in errors and name not in functions]
    parts = [HEAD, "## Functions"]
    for name in functions:
        parts.append(
            f"### {name}\n\n```text\n{name}{inspect.signature(things[name])}\n```\n\n{inspect.getdoc(things[name])}"  # noqa: E501
        )
    parts.append("## Types")
    for name in kinds:
        lines = [f"- `{shown}`: {text}" for shown, text in members(things[name])]
        parts.append(
            "\n\n".join(
                [f"### {name}", str(inspect.getdoc(things[name])), *(["\n".join(lines)] if lines else [])]
            )
        )
    parts.append("## Errors")
    parts.append("\n".join(f"- `{name}`: {inspect.getdoc(things[name])}" for name in errors))
    return "\n\n".join(textwrap.dedent(part).strip() for part in parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
