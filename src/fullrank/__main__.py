"""`python -m fullrank` and `fullrank`: the command line."""

import sys


def main() -> int:
    """Run the command line; interrupted while it is imported, say so in a line."""
    try:
        from fullrank import cli

        return cli.main()
    except KeyboardInterrupt:
        print("fullrank: interrupted before anything was begun", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
