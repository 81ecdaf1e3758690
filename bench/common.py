"""What the suites share: where things are, commands, and the environments of peers."""
import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
MXCC = os.path.join(BUILD, "mxcc")


class Skipped(Exception):
    pass


def peer_python(name):
    folder = os.path.join(BUILD, "bench-env")
    python = os.path.join(folder, name, "bin", "python")
    if os.path.exists(python):
        return python
    reason = os.path.join(folder, name + ".missing")
    raise Skipped(open(reason).read().strip() if os.path.exists(reason) else "not installed: sh bench/peers.sh build/bench-env")


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)
