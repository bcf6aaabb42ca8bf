"""Files that other code trusts: what is said of a damaged one."""

import pytest

from lib.errors import UserError
from lib.files import read_json


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe{}", b"nan,"])
def test_a_damaged_json_file_is_told_in_one_sentence(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json is damaged \(.*\): take it from git again, or make it anew\."):
        read_json(path)
    path.write_text('{"σ": [1]}', encoding="utf-8")
    assert read_json(path) == {"σ": [1]}
