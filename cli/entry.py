"""The console script: the one question that must be cheap, or else the command line.

Loading Typer, the settings and what they need takes several times as long as a
whole liveness probe may, so nothing is imported here before it is clear that it
is needed.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Answer ``health … --live`` at once; leave everything else to ``cli.main``."""
    if sys.argv[1:2] == ["health"]:
        from cli.liveness import answer, folder_is_in_a_file, question_of

        question = question_of(sys.argv[1:])
        if question is not None and not folder_is_in_a_file(os.environ):
            sys.exit(answer(question))
    from cli.main import main as front_door

    front_door()


if __name__ == "__main__":
    main()
