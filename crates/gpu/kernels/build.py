"""Compiles the kernels for devices, and says whether what is committed is what the sources say.

build.py          compiles, and writes built/modules.bin and built/manifest.txt
build.py check    fails if the sources have changed since; compares no compiler's output
build.py verify   compiles, and fails if a byte differs from what is committed

Needs no GPU and no CUDA: the compilers are NVIDIA's wheels from PyPI, fetched into a cache
(TIDELOG_NVRTC_CACHE, default ~/.cache/tidelog-nvrtc). They are not part of what is built or shipped.

built/manifest.txt has a line for the sources, `sources SHA256`, then one for each module:
`sm_90 cubin OFFSET LENGTH RAW_LENGTH SHA256 COMPILER`; offset and lengths are of bytes of modules.bin,
where each module lies deflated (zlib). The hash is that of the module as it is loaded.
"""

import ctypes
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
import zlib

HERE = pathlib.Path(__file__).resolve().parent
BUILT = HERE / "built"
MAIN = "tidelog.cu"
# An old compiler makes what old drivers load; only devices that it does not know need a newer one.
COMPILERS = {
    "12.2.140": ["compute_75", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90"],
    "12.9.86": ["sm_100", "sm_120"],
}
OPTIONS = ["--std=c++17", "-default-device", "--fmad=false"]


def sources() -> list[pathlib.Path]:
    return sorted([*HERE.glob("*.cu"), *HERE.glob("*.h")])


def source_hash() -> str:
    """Of names and texts of all sources, of the compilers and of their options."""
    digest = hashlib.sha256(repr((COMPILERS, OPTIONS)).encode())
    for path in sources():
        digest.update(f"\n{path.name} {len(path.read_bytes())}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def compiler(version: str) -> pathlib.Path:
    """The compiler's library, fetched if it is not there yet."""
    default = pathlib.Path.home() / ".cache" / "tidelog-nvrtc"
    cache = pathlib.Path(os.environ.get("TIDELOG_NVRTC_CACHE", default)) / version
    library = cache / "nvidia" / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"
    if not library.exists():
        with tempfile.TemporaryDirectory() as scratch:
            wheel = f"nvidia-cuda-nvrtc-cu12=={version}"
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                            "--only-binary=:all:", "--dest", scratch, wheel], check=True)
            for path in pathlib.Path(scratch).glob("*.whl"):
                zipfile.ZipFile(path).extractall(cache)
    return library


def compile_module(version: str, target: str) -> bytes:
    # In a process of its own: the libraries of two versions have the same symbols.
    done = subprocess.run([sys.executable, __file__, "one", str(compiler(version)), target],
                          stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def compile_here(library: str, target: str) -> bytes:
    rtc = ctypes.CDLL(library)
    program = ctypes.c_void_p()
    text = (HERE / MAIN).read_bytes()
    if rtc.nvrtcCreateProgram(ctypes.byref(program), text, MAIN.encode(), 0, None, None):
        sys.exit("the compiler takes no program")
    options = [f"--gpu-architecture={target}", f"--include-path={HERE}", *OPTIONS]
    encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = rtc.nvrtcCompileProgram(program, len(options), encoded)

    def fetch(what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(rtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(rtc, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw

    log = fetch("ProgramLog").rstrip(b"\0").decode().strip()
    if log:
        print(f"{target}: {log}", file=sys.stderr)
    if failed:
        sys.exit(f"{target}: the kernels do not compile")
    # A text ends with a zero byte, which the driver looks for.
    return fetch("CUBIN") if target.startswith("sm_") else fetch("PTX")


def build() -> tuple[bytes, str]:
    blob = b""
    lines = [f"sources {source_hash()}"]
    for version, targets in COMPILERS.items():
        for target in targets:
            module = compile_module(version, target)
            kind = "cubin" if target.startswith("sm_") else "ptx"
            packed = zlib.compress(module, 9)
            digest = hashlib.sha256(module).hexdigest()
            lines.append(f"{target} {kind} {len(blob)} {len(packed)} {len(module)} {digest} nvrtc-{version}")
            blob += packed
    return blob, "\n".join(lines) + "\n"


def check() -> int:
    manifest = BUILT / "manifest.txt"
    first = manifest.read_text().splitlines()[0] if manifest.exists() else "no manifest"
    if first != f"sources {source_hash()}":
        print("the kernels have changed since they were compiled: run crates/gpu/kernels/build.py", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    if sys.argv[1:2] == ["one"]:
        sys.stdout.buffer.write(compile_here(*sys.argv[2:4]))
        return 0
    if sys.argv[1:] == ["check"]:
        return check()
    blob, manifest = build()
    if sys.argv[1:] == ["verify"]:
        hashes = lambda text: [(line.split()[0], line.split()[-2]) for line in text.splitlines()[1:]]
        committed = (BUILT / "manifest.txt").read_text()
        if hashes(committed) != hashes(manifest):
            print(f"what is compiled now is not what is committed:\n{manifest}", file=sys.stderr)
            return 1
        return check()
    BUILT.mkdir(exist_ok=True)
    (BUILT / "modules.bin").write_bytes(blob)
    (BUILT / "manifest.txt").write_text(manifest)
    print(manifest, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
