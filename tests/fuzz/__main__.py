"""`python -m fuzz`, in the folder of the tests."""

from fuzz.campaign import main

if __name__ == "__main__":
    raise SystemExit(main())
