"""Run as a program by the tests: writers that die.

`loop` writes generation 1, 2, ... of one day without end and prints each number once its commit has returned. `die` makes, for every
step, a lake `LAKE/<number>` with generation 1 and then dies just before that step of writing generation 2. `hold` takes the instrument's lock, says so and waits to be killed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lake.rows import BTC, DAY, write_day
from mm_platform.lake.store import Lake

ROWS = 20_000


def loop(root: Path) -> None:
    lake = Lake.open(root)
    generation = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    while True:
        write_day(lake, BTC, DAY, ROWS, generation)
        print(generation, flush=True)
        generation += 1


def hold(root: Path) -> None:
    with Lake.open(root).lock(BTC):
        print("held", flush=True)
        signal.pause()


def die(root: Path, step: str) -> None:
    lake = Lake.open(root)
    write_day(lake, BTC, DAY, 100, 1)

    def at(name: str) -> None:
        if name == step:
            os._exit(9)

    write_day(lake, BTC, DAY, 100, 2, step=at)


if __name__ == "__main__":
    if sys.argv[1] == "loop":
        loop(Path(sys.argv[2]))
    if sys.argv[1] == "hold":
        hold(Path(sys.argv[2]))
    for number, step in enumerate(sys.argv[3:]):
        child = os.fork()
        if child == 0:
            die(Path(sys.argv[2]) / str(number), step)
            os._exit(1)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 9:
            sys.exit(f"the writer did not die at step {step}")
