"""One line per check, and what they add up to."""

import os
import sys
import traceback


class Checks:
    """Counts what held and what did not; a check that fails does not stop the others."""

    def __init__(self, client):
        self.client, self.passed, self.failed = client, 0, 0

    def equal(self, name, got, want):
        # 1 == True == 1.0 in Python: a value of another type is another value.
        if got == want and type(got) is type(want):
            self.passed += 1
            print(f"ok   {self.client}: {name}")
        else:
            self.failed += 1
            print(f"FAIL {self.client}: {name}\n       got  {show(got)}\n       want {show(want)}")

    def run(self, name, check):
        """A check that asks several things of one name: an exception fails it."""
        try:
            check()
        except Exception:
            self.failed += 1
            print(f"FAIL {self.client}: {name}")
            print("".join("       " + line for line in traceback.format_exc().splitlines(keepends=True)))

    def summary(self):
        print(f"{self.client}: {self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed or not self.passed else 0)


def show(value):
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 300 else text[:300] + f'… ({len(text)} characters)'}"


def server():
    """Host, port, user and password of the server under test."""
    return os.environ["STANDIN_HOST"], int(os.environ["STANDIN_PORT"]), "sa", os.environ["STANDIN_PASSWORD"]
