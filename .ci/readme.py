"""Runs what the README says, so that it stays true.

readme.py test   prints the README's test command
readme.py run    runs every line of its ```sh blocks in a scratch directory
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
LINES = [line for block in BLOCKS for line in block.splitlines() if line and not line.startswith("#")]
TEST = [line for line in LINES if line.startswith("cargo test")]


def main() -> int:
    if len(TEST) != 1:
        print(f"the README has {len(TEST)} test commands, not one", file=sys.stderr)
        return 1
    if sys.argv[1:] == ["test"]:
        print(TEST[0])
        return 0
    lines = [line for line in LINES if line not in TEST and not line.startswith("cargo install")]
    if not any("demo" in line for line in lines):
        print("the README does not run the demo", file=sys.stderr)
        return 1
    env = dict(os.environ, PATH=f"{ROOT / 'target' / 'debug'}:{os.environ['PATH']}",
               CARGO_TARGET_DIR=str(ROOT / "target"))
    with tempfile.TemporaryDirectory() as scratch:
        os.symlink(ROOT / "examples", pathlib.Path(scratch) / "examples")
        for line in lines:
            # cargo looks for the workspace from where it runs; the program does not care.
            line = line.replace("cargo run", f"cargo run --quiet --manifest-path {ROOT}/Cargo.toml")
            print(f"$ {line}", flush=True)
            subprocess.run(line, shell=True, check=True, cwd=scratch, env=env)
    return 0


if __name__ == "__main__":
    sys.exit(main())
