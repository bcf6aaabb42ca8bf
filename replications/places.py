"""Where the papers and their reports lie. Needs no PyTorch: a command that only reads answers at once."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LATEST = REPOSITORY / "reports" / "latest"
PUBLISHED = REPOSITORY / "reports" / "published"


def known() -> list[str]:
    """The papers' keys, one a folder of replications/ that holds a claims.yaml."""
    return sorted(path.parent.name for path in (REPOSITORY / "replications").glob("*[0-9]/claims.yaml"))


def claims_file(key: str) -> Path:
    return REPOSITORY / "replications" / key / "claims.yaml"
