"""`python benchmarks/memory.py PRESET`: memory of every method of the report card; writes `results/memory_PRESET.json`.

A process of its own per method, one thread: peak resident memory (MB) after the method was fitted or loaded and has
completed one test image, above the peak once the suite and its libraries were imported. Linux and macOS.
"""

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

from sweep import RESULTS

from cgi_helpers.pipeline.artifacts import write_json
from cgi_helpers.pipeline.card import completions, method_names
from cgi_helpers.pipeline.presets import get_preset
from cgi_helpers.pipeline.session import start

UNIT = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss counts bytes there, kilobytes on Linux


def peak():
    """Peak resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT


def measure(preset, name):
    """MB that method `name` adds to this process."""
    before = peak()
    completions(start(preset, device="cpu", progress=False), name, "test", 1)
    return round(peak() - before, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--method", help="measure this one, here, and print its number")
    parser.add_argument("--out", help="JSON file; default: results/memory_PRESET.json")
    o = parser.parse_args()
    if o.method:
        print(measure(o.preset, o.method))
    else:
        found = {"preset": o.preset, "images": 1, "megabytes": {}}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for name in method_names(get_preset(o.preset)):
            command = [sys.executable, __file__, o.preset, "--method", name]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            found["megabytes"][name] = float(done.stdout.split()[-1])
            print(name, found["megabytes"][name], flush=True)
            write_json(Path(o.out or RESULTS / f"memory_{o.preset}.json"), found)
