"""A GGUF file opened by llama.cpp (``xllamacpp``) in this process: its endpoints as functions.

In: a path, sizes, JSON bodies of llama.cpp's server API (``tools/server/README.md``). Out: its JSON answers,
from a server inside this process that listens on 127.0.0.1 only. Knows nothing of requests or questions.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kmmlu_fast.core.errors import EngineError, ModelError
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.machine.extras import require_modules

_TIMEOUT_SEC = 3600.0


class LlamaCppModel:
    """One loaded GGUF file. Thread-safe: every thread has a connection of its own."""

    def __init__(
        self,
        path: Path,
        *,
        context_tokens: int,
        slots: int = 1,
        batch_tokens: int = 2048,
        flash: bool = False,
    ) -> None:
        """Load the file; ``context_tokens`` for each of ``slots`` sequences. EngineError if it cannot be
        loaded."""
        require_modules("a GGUF model", "xllamacpp")
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context_tokens * slots
        params.n_parallel = slots
        params.n_batch = params.n_ubatch = batch_tokens
        params.verbosity = 0
        params.warmup = False
        params.fit_params = False  # sizes are decided here, not guessed from free memory
        params.cache_ram_mib = 0
        params.swa_full = True  # a sliding window's cache can then be reused
        params.endpoint_props = True
        try:
            self._server: Any = xllamacpp.Server(params)
        except Exception as error:  # the binding raises RuntimeError without a reason
            raise EngineError(
                f"{path}: llama.cpp cannot load it ({one_line(str(error), 200)}); its architecture may be"
                " newer"
                " than the installed xllamacpp, or memory is short"
            ) from error
        self.path, self._local = path, threading.local()
        address = urlsplit(self._server.listening_address)
        self._host, self._port = str(address.hostname), int(address.port or 0)

    def post(self, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        """The endpoint's answer. EngineError with llama.cpp's own words if it refuses."""
        return self._ask("POST", endpoint, json.dumps(body))

    def properties(self) -> dict[str, Any]:
        """``/props``: the template, the special tokens, the build."""
        return self._ask("GET", "/props", None)

    def _ask(self, verb: str, endpoint: str, body: str | None) -> dict[str, Any]:
        if self._server is None:
            raise EngineError("the engine was closed")
        try:
            connection = self._connection()
            connection.request(verb, endpoint, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            answer = json.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._local.connection = None
            raise EngineError(
                f"llama.cpp stopped answering ({type(error).__name__}); finished answers are kept, the same"
                " command continues"
            ) from error
        if reply.status != 200:
            message = answer.get("error", {}).get("message", answer)
            raise EngineError(f"llama.cpp refuses a request: {one_line(str(message), 300)}")
        return dict(answer)

    def _connection(self) -> http.client.HTTPConnection:
        if getattr(self._local, "connection", None) is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_SEC)
            self._local.connection = connection
        return self._local.connection  # type: ignore[no-any-return]

    def close(self) -> None:
        """Free the weights. Calling it twice is harmless."""
        with contextlib.suppress(AttributeError):
            self._local.connection.close()
        self._server = None


class GgufTokenizer:
    """A GGUF file's own tokenizer and chat template, as llama.cpp applies them when it serves the file."""

    def __init__(self, path: Path) -> None:
        """ModelError if llama.cpp cannot read the file."""
        from kmmlu_fast.models.gguf import read_gguf_file

        self.file = read_gguf_file(path)
        try:
            self._model = LlamaCppModel(path, context_tokens=256, batch_tokens=64)
        except EngineError as error:
            raise ModelError(str(error)) from error
        self.chat_template = self.file.chat_template
        self.bos_token_id, self.eos_token_id = self.file.token_id("bos"), self.file.token_id("eos")
        self.unk_token_id = self.file.token_id("unknown")
        kinds = self.file.metadata.get("tokenizer.ggml.token_type", ())
        self.all_special_ids = [number for number, kind in enumerate(kinds) if kind == _CONTROL]

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of ``all_special_ids``."""
        return [self.file.tokens[number] for number in self.all_special_ids]

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The texts of the tokens that chat templates name."""
        tokens, roles = self.file.tokens, {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token"}
        ids = {name: self.file.token_id(role) for role, name in roles.items()}
        return {name: tokens[number] for name, number in ids.items() if number is not None}

    def __len__(self) -> int:
        return len(self.file.tokens)

    def __call__(
        self, texts: str | list[str], add_special_tokens: bool = True, **options: Any
    ) -> dict[str, Any]:
        """``input_ids`` of a text, or of each text."""
        if isinstance(texts, str):
            return {"input_ids": self._encode(texts, add_special_tokens)}
        return {"input_ids": [self._encode(text, add_special_tokens) for text in texts]}

    def _encode(self, text: str, special: bool) -> list[int]:
        body = {"content": text, "add_special": special, "parse_special": True}
        return list(self._model.post("/tokenize", body)["tokens"])

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str:
        left_out = set(self.all_special_ids) if skip_special_tokens else set()
        kept = [token for token in token_ids if token not in left_out]
        return str(self._model.post("/detokenize", {"tokens": kept})["content"])

    def apply_chat_template(
        self,
        messages: list[dict[str, str]],
        *,
        tokenize: bool = False,
        add_generation_prompt: bool = True,
        enable_thinking: bool = False,
    ) -> str:
        """The prompt that llama.cpp makes of the messages, with the BOS that it adds while tokenising it."""
        body = {
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            "chat_template_kwargs": {"enable_thinking": enable_thinking},
        }
        text = str(self._model.post("/apply-template", body)["prompt"])
        bos = self.file.tokens[self.bos_token_id] if self.bos_token_id is not None else ""
        adds_bos = self._encode("", True) == [self.bos_token_id]
        return f"{bos}{text}" if adds_bos and bos and not text.startswith(bos) else text

    def close(self) -> None:
        self._model.close()


_CONTROL = 3  # GGUF token type (llama.cpp llama_token_type)
