"""Generate the protocol's modules from taskhub.proto, or check that the committed ones are what it gives.

    python tools/protocol.py            generate
    python tools/protocol.py --check    exit with 1 and one sentence when they are out of date
"""

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROVIDER = Path(__file__).resolve().parent.parent / "provider"
PROTO = PROVIDER / "durabletask_sql" / "protocol" / "taskhub.proto"
MODULES = ("taskhub_pb2.py", "taskhub_pb2.pyi")


def generate(target: Path) -> None:
    """Write the modules below a folder."""
    include = Path(protoc.__file__).parent / "_proto"
    code = protoc.main(["protoc", f"-I{PROVIDER}", f"-I{include}", f"--python_out={target}", f"--pyi_out={target}", str(PROTO)])
    if code:
        sys.exit(f"protoc failed on {PROTO.name}")


def stale() -> list[str]:
    """Return the committed modules that differ from what the .proto gives."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        made = Path(folder) / "durabletask_sql" / "protocol"
        return [name for name in MODULES if (made / name).read_bytes() != (PROTO.parent / name).read_bytes()]


def main(arguments: list[str]) -> int:
    """Generate or check."""
    if arguments == ["--check"]:
        old = stale()
        if old:
            sys.stderr.write(f"{', '.join(old)} is not what {PROTO.name} gives: run `python tools/protocol.py`\n")
        return 1 if old else 0
    generate(PROVIDER)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
