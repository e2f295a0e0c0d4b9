"""`make fuzz`: every target under libFuzzer, one after another, guided by the coverage of wgpy (Linux, x86-64).

    python -m tests.fuzz [TARGET ...] [--seconds N]

What is learnt stays in .fuzz/TARGET. An input that breaks a target is kept in tests/fuzz/found/TARGET, where pytest
plays it again for ever after.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

FOUND: Final = Path(__file__).parent / "found"
LEARNT: Final = Path(".fuzz")
LONGEST: Final = 2048  # bytes: some packets, or a page of text
_CHATTER: Final = re.compile(
    r'INFO|WARNING: Failed to find|Dictionary|"|###|#\d+\s+(NEW|REDUCE|RELOAD)|stat::(average|new|slowest)|$'
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="only these")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # one target, in this process
    arguments = parser.parse_args()
    if arguments.here:
        _fuzz(arguments.targets[0], arguments.seconds)
    from tests.fuzz.targets import TARGETS

    for name in arguments.targets:
        if name not in TARGETS:
            parser.error(f"no target {name}: there are {', '.join(TARGETS)}")
    return max(run(name, arguments.seconds) for name in arguments.targets or TARGETS)


def run(name: str, seconds: int) -> int:
    """Fuzz one target in a process of its own, as libFuzzer needs; its exit status."""
    print(f"==> {name}: {seconds} s", flush=True)
    command = (sys.executable, "-m", "tests.fuzz", "--here", name, "--seconds", str(seconds))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not _CHATTER.match(line):
                print(line, end="", flush=True)
    return process.returncode


def _fuzz(name: str, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["wgpy"]):
        targets = import_module("tests.fuzz.targets")
    target = targets.TARGETS[name]
    learnt, seeds, words = (LEARNT / f"{name}{suffix}" for suffix in ("", ".seeds", ".words"))
    for directory in (learnt, seeds, FOUND / name):
        directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(targets.SEEDS[target]):
        (seeds / str(number)).write_bytes(seed)
    words.write_text("".join(f'"{word}"\n' for word in targets.WORDS.get(target, ["\\x00"])))
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST,
        "timeout": 10,  # seconds for one input
        "rss_limit_mb": 4096,  # libFuzzer itself grows by a few MB a second on some targets
        "dict": words,
        "artifact_prefix": f"{FOUND / name}/",
        "verbosity": 1,
        "print_final_stats": 1,
    }
    atheris.Setup([name, *(f"-{option}={value}" for option, value in options.items()), str(learnt), str(seeds)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
