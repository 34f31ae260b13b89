"""
SHA256SUMS over a run's folder, and an optional signature of it.

`sha256sum -c` does not notice a file that was added, so `verify` compares the set of files as well.
The signature is OpenSSH's, with its own namespace: nothing to install, hardware keys work, and it
should be the approver's key rather than the operator's.
"""

import hashlib
from pathlib import Path
from typing import Final

from fixtures.errors import RunbookError
from fixtures.signatures import check_signature, sign

SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = f"{SUMS}.sig"
#: row data, secrets and what lives on after the run: never part of what is handed out
EXCLUDED: Final = frozenset(
    {"packs", "secrets", "safety", "safety-copy", "rescued-wal", "fetched-wal", "inbox", "lease"}
)
EXCLUDED_FILES: Final = frozenset({"bindings.json", "world.json", SUMS, SIGNATURE})
_BLOCK: Final = 1 << 20


def bundle_files(run_dir: Path) -> list[Path]:
    """
    Return the files of a run that may be handed out, sorted.
    """
    return sorted(
        path
        for path in run_dir.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not EXCLUDED & set(path.relative_to(run_dir).parts[:-1])
        and path.name not in EXCLUDED_FILES
        and not path.name.startswith(".")
    )


def seal(run_dir: Path, *, key: Path | None = None) -> Path:
    """
    Write SHA256SUMS, and its signature when a key is given.

    Args:
        run_dir: the run's folder; nothing may be written to it afterwards.
        key: OpenSSH private key, or the public key of one held by an agent or a device.

    Raises:
        ToolError: RB407 or RB109, when signing fails.
    """
    lines = [f"{_digest(path)}  {path.relative_to(run_dir).as_posix()}" for path in bundle_files(run_dir)]
    sums = run_dir / SUMS
    partial = run_dir / f".{SUMS}.tmp"
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(sums)
    (run_dir / SIGNATURE).unlink(missing_ok=True)
    if key is not None:
        sign(sums, key=key)
    return sums


def verify(run_dir: Path, *, allowed_signers: Path | None = None, signer: str = "") -> list[str]:
    """
    Return everything that does not match, one sentence each; empty when all does.

    Args:
        run_dir: the run's folder.
        allowed_signers: OpenSSH file of who may sign; without it the signature is not looked at.
        signer: identity in that file.

    Raises:
        RunbookError: RB803 when the run was never sealed.
    """
    sums = run_dir / SUMS
    if not sums.exists():
        raise RunbookError(
            "RB803", f"run {run_dir.name} has no {SUMS}", where=str(run_dir),
            hints=[f"python -m reports {run_dir.name} renders and seals it again"],
        )  # fmt: skip
    recorded: dict[str, str] = {}
    problems = []
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        recorded[name] = digest
    present = {path.relative_to(run_dir).as_posix(): path for path in bundle_files(run_dir)}
    problems += [f"{name} was added" for name in sorted(present.keys() - recorded.keys())]
    problems += [f"{name} is missing" for name in sorted(recorded.keys() - present.keys())]
    problems += [
        f"{name} was changed"
        for name in sorted(present.keys() & recorded.keys())
        if _digest(present[name]) != recorded[name]
    ]
    if allowed_signers is not None:
        problems += check_signature(sums, allowed_signers=allowed_signers, signer=signer)
    return problems


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
