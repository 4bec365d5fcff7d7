"""The process that draws: Vega-Lite specifications on stdin, SVG on stdout, a line of JSON each.

In: specifications. Out: their SVG. It ends when its input does, so it outlives no parent; a specification
that cannot be drawn ends it too. Run as a file, so that it imports nothing of this package.
"""

from __future__ import annotations

import json
import sys


def answer_specifications() -> None:
    """Draw until the input ends."""
    import vl_convert

    for line in sys.stdin.buffer:
        svg = str(vl_convert.vegalite_to_svg(json.loads(line), allowed_base_urls=[]))
        sys.stdout.write(json.dumps(svg) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        answer_specifications()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)
