"""A server that answers as vLLM's would, until it does not: bent JSON, cut and packed bodies, wrong lengths,
other codes, silence.

In: the model that it says it serves, a random generator. Out: its address. One server a process, each attack
has the next behaviour. Knows nothing of who asks.
"""

from __future__ import annotations

import gzip
import json
import random
import threading
import time
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench.faults.bending import bend_bytes, bend_json

_CODES = (200, 200, 204, 301, 400, 401, 403, 404, 413, 429, 500, 503)
_SILENT_SEC = 4.0  # longer than ``killing`` lets an answer take


class _Behaviour:
    """What the one server does now. ``after``: answers that are good before the first that is not."""

    model = ""
    after = 0
    chance = random.Random(0)
    lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._reply(
            {"object": "list", "data": [{"id": "tiny", "root": _Behaviour.model, "max_model_len": 4096}]}
        )

    def do_POST(self) -> None:
        try:
            asked = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
            ids = asked.get("logprob_token_ids") or [0, 1, 2, 3]
        except (ValueError, AttributeError):
            ids = [0, 1, 2, 3]
        top = {f"token_id:{token_id}": -1.0 - 0.5 * place for place, token_id in enumerate(ids)}
        choice = {"index": 0, "text": "A", "token_ids": [7], "finish_reason": "length"}
        choice["logprobs"] = {"top_logprobs": [top]}
        self._reply({"choices": [choice], "usage": {"prompt_tokens": 2, "completion_tokens": 1}})

    def good(self, document: dict[str, Any]) -> None:
        """The answer as it should be."""
        self._send("good", 200, json.dumps(document).encode())

    def _reply(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        with _Behaviour.lock:
            _Behaviour.after -= 1
            chance, kind = _Behaviour.chance, "good"
            if _Behaviour.after < 0:
                kind = chance.choice(
                    ["json", "json", "json", "bytes", "code", "length", "packed", "silent", "head"]
                )
            code = chance.choice(_CODES) if kind == "code" else 200
            body = bend_json(document, chance).encode("utf-8", "replace") if kind == "json" else body
            body = bend_bytes(body, chance) if kind == "bytes" else body
        try:
            self._send(kind, code, body)
        except OSError:  # the other side has gone
            self.close_connection = True

    def _send(self, kind: str, code: int, body: bytes) -> None:
        if kind == "silent":
            time.sleep(_SILENT_SEC)
        if kind == "head":
            self.wfile.write(b"HTTP/1.1 200 \x1b[2J\r\nx" + b"y" * 70_000 + b"\r\n\r\n")
            self.close_connection = True
            return
        packed = gzip.compress(b"0" * 5_000_000) if kind == "packed" else body
        self.send_response(code)
        if kind == "packed":
            self.send_header("content-encoding", "gzip")
        if code == 301:
            self.send_header("location", "http://127.0.0.1:1/v1/models")
        self.send_header("content-length", str(len(packed) + (1000 if kind == "length" else 0)))
        self.end_headers()
        self.wfile.write(packed)
        if kind == "length":
            self.close_connection = True


@lru_cache(maxsize=1)
def _server() -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def serve(model: str, chance: random.Random) -> str:
    """Its address, with the behaviour that ``chance`` draws from now on."""
    with _Behaviour.lock:
        _Behaviour.model, _Behaviour.after = model, chance.choice([0, 1, 2, 3, 5, 8, 1000])
        _Behaviour.chance = random.Random(chance.random())
    return f"http://127.0.0.1:{_server().server_address[1]}/v1"
