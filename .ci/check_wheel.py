"""Checks a wheel: small, and the files of the installed one, but for modules of instruction sets left out."""

import sys
import tarfile
import zipfile
from pathlib import Path

wheel, sdist, installed = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
size = wheel.stat().st_size / 1e6
assert size < 5, f"{wheel.name} has {size:.1f} MB, more than 5"

in_wheel = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("expunge/") and not n.endswith("/")}
on_disk = {
    f"expunge/{p.relative_to(installed).as_posix()}"
    for p in installed.rglob("*")
    if p.is_file() and "__pycache__" not in p.parts
}
differ = {name for name in in_wheel ^ on_disk if name in in_wheel or not name.endswith(".so")}
assert not differ, f"only in one of the two: {sorted(differ)}"
assert "expunge/py.typed" in in_wheel
assert any(name.endswith(".pyi") for name in in_wheel)

with tarfile.open(sdist) as archive:
    sources = {n.split("/", 1)[1] for n in archive.getnames() if "/" in n}
assert {"CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml"} <= sources
assert not any(n.startswith("build") for n in sources), "the sdist holds what was built beside it"
print(f"{wheel.name}: {size:.2f} MB, {len(in_wheel)} files")
