"""YAML as people expect it, and every way a file can be no recipe."""

from pathlib import Path

import pytest

from smolt.config.yaml_reader import MAX_BYTES, read_text, read_yaml
from smolt.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("1.5E+3", 1500.0),
        (".5", 0.5),
        ("-2", -2),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("2020-01-01", "2020-01-01"),
        ("'1e-4'", "1e-4"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    """1e-4 is a number and `no` a word (YAML 1.1 has them the other way round)."""
    read = read_text(f"a: {text}", "f").data["a"]
    assert read == value
    assert type(read) is type(value)


def test_lines_of_keys_and_items() -> None:
    """a on line 1, its item x on line 2, b on 3, b.c on 4."""
    document = read_text("a:\n  - x\nb:\n  c: 1\n", "f")
    assert document.data == {"a": ["x"], "b": {"c": 1}}
    assert document.lines == {("a",): 1, ("a", 0): 2, ("b",): 3, ("b", "c"): 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f:3: a: given twice, first on line 1; remove one"),
        ("m:\n  k: 1\n  k: 2", "f:3: m.k: given twice, first on line 2; remove one"),
        ("a: !!python/object/apply:os.system [x]", "f:1: a: the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !secret x", "f:1: a: the tag !secret is not plain data"),
        ("a: !!float abc", "f:1: a: could not convert string to float: 'abc'"),
        ("a: " + "9" * 31, "f:1: a: a whole number of more than 30 digits"),
        ('a: "\\uD800"', "f:1: a: half of a surrogate pair is not a character"),
        ("a: {sft}/model", 'a value that begins with { needs quotes, "{section}/file"'),
        ("a: [1", "f:1: not valid YAML"),
        ("a: 1\n---\nb: 1", "f:2: not valid YAML: expected a single document"),
        ("a: \x01", "f:1: the character '\\x01' is not allowed in YAML"),
        ("[" * 60, "f:1: not valid YAML: nested deeper than 40 levels"),
        ("a: &x [*x]", "f:1: too many values; aliases that multiply are refused"),
        ("a: *x", "f:1: not valid YAML: found undefined alias"),
        ("[1]: 2", "f:1: a key must be a plain word"),
    ],
)
def test_refusals_name_file_and_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_text(text, "f")
    assert message in str(caught.value)


def test_aliases_that_multiply_are_refused() -> None:
    """9 levels of 9 aliases would be 9^9 = 387 million values."""
    lines = ["a0: &a0 x"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(UserError, match="aliases that multiply"):
        read_text("\n".join(lines), "f")


def test_an_ordinary_alias_is_read() -> None:
    assert read_text("a: &x {k: 1}\nb: *x", "f").data == {"a": {"k": 1}, "b": {"k": 1}}


def test_files_that_are_no_text(tmp_path: Path) -> None:
    """Latin-1 on line 2, more than 1 MB, and a directory; a byte-order mark is read over."""
    path = tmp_path / "r.yaml"
    path.write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(UserError, match=r"r\.yaml:2: not UTF-8 text \(byte 0xe9\)"):
        read_yaml(path)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(UserError, match="larger than 1,000,000 bytes"):
        read_yaml(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(path).data == {"a": 1}
