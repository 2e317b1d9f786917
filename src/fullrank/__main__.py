"""`python -m fullrank` and `fullrank`: the command line."""

import atexit
import os
import sys


def main() -> int:
    """Run the command line; interrupted while it is imported, say so in a line."""
    try:
        from fullrank import cli

        code = cli.main()
    except KeyboardInterrupt:
        print("fullrank: interrupted before anything was begun", file=sys.stderr)
        return 130
    if code:
        _leave_group(code)
    return code


def _leave_group(code: int) -> None:
    """End now where several processes run together, and this one has failed.

    Threads of gloo may abort a process that takes its group apart while the others end, and its code is lost.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    raise SystemExit(main())
