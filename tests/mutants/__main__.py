"""`python -m mutants`, in the folder of the tests."""

from mutants.campaign import main

if __name__ == "__main__":
    raise SystemExit(main())
