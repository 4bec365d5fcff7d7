"""Chat templates to try things on: all that the installed TRL ships, and invented ones of each awkward kind.

Out: ``SHIPPED`` (name -> source; empty without TRL) and ``OWN``; a tiny tokenizer that knows a template's
special tokens. Knows nothing of what is tried.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

from tiny import make_tiny_tokenizer

_TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
_HEADER = "<|im_start|>assistant\n"
_CUE = "{% if add_generation_prompt %}" + _HEADER + "{% endif %}"
OWN = {
    "content_parts": "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}{{ p.text }}"
    "{% endfor %}<|im_end|>\n{% endfor %}" + _CUE,
    "no_generation_branch": _TURNS,
    "always_generating": _TURNS + _HEADER,
    "stripping": _TURNS.replace("m['content']", "m['content'] | trim") + _CUE,
    "date": "<|im_start|>system\n{{ strftime_now('%d %b %Y') }}<|im_end|>\n" + _TURNS + _CUE,
    "thought_left_open": _TURNS + _CUE.replace("assistant\n", "assistant\n<think>\n"),
    "thought_of_another_name": _TURNS + _CUE.replace("assistant\n", "assistant\n<musing>\n"),
    "thought_closed": _TURNS + _CUE.replace("assistant\n", "assistant\n<think>\n\n</think>\n\n"),
    "thought_by_switch": _TURNS
    + "{% if add_generation_prompt %}"
    + _HEADER
    + "{% if not skip_think %}<think>\n{% endif %}{% endif %}",
    "no_stop": "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}",
    "refuses_system": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + _TURNS
    + _CUE,
    "drops_system": "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endfor %}" + _CUE,
    "system_in_parts_only": "{% if messages[0].role == 'system' and messages[0].content is string %}"
    "{{ raise_exception('parts') }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>\n{% endfor %}" + _CUE,
    "space_before_answer": "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}<|im_end|>"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}",
}
# Nothing can be asked by these.
UNUSABLE = {
    "drops_the_question": "{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}" + _CUE,
    "always_refuses": "{{ raise_exception('never') }}",
    "no_template": "{% for m in messages %}",
    "endless": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "random": _TURNS + "{{ range(100000) | random }}",
}


def _read_shipped() -> dict[str, str]:
    found = importlib.util.find_spec("trl")
    if found is None or not found.submodule_search_locations:
        return {}
    folder = Path(found.submodule_search_locations[0]) / "chat_templates"
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jinja"))}


SHIPPED = _read_shipped()
_SPECIAL = re.compile(r"<[|｜][^<>|｜\s]{2,30}[|｜]>|<(?:start|end)_of_(?:turn|utterance)>|<turn\|>|</s>")


def tokenizer_with(template: str, **settings: Any) -> Any:
    """A byte-level tokenizer to which the template's special tokens are added."""
    tokenizer = make_tiny_tokenizer(bos=True, **settings)
    tokenizer.chat_template = template
    names = [name for name in dict.fromkeys(_SPECIAL.findall(template)) if not name.startswith("<|im_")]
    tokenizer.add_special_tokens({"additional_special_tokens": names}) if names else None
    return tokenizer
