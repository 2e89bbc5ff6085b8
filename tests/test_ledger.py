from plateglass.ledger import Ledger, fingerprint, todo
from screen import PARTS


def test_lines_are_remembered_and_gone_is_gone(tmp_path):
    ledger = Ledger(tmp_path / "P.segment.jsonl")
    ledger.add("A01", parts=PARTS, key="k1", files={})
    ledger.add("A02", parts=PARTS, key="k2", files={})
    ledger.add("A01", parts={**PARTS, "in": "z"}, key="k3", files={})
    ledger.add("A02", gone=True)
    again = Ledger(ledger.path)
    assert again == {"A01": {"parts": {**PARTS, "in": "z"}, "key": "k3", "files": {}}}
    again.compact()
    assert len(ledger.path.read_text().splitlines()) == 1
    assert Ledger(ledger.path) == again


def test_a_torn_last_line_is_ignored_and_spoils_no_next_one(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl")
    ledger.add("A01", parts=PARTS, key="k1")
    with ledger.path.open("a") as file:
        file.write('{"well": "A02", "par')  # killed while writing
    torn = Ledger(ledger.path)
    assert set(torn) == {"A01"}
    torn.add("A03", parts=PARTS, key="k3")
    assert set(Ledger(ledger.path)) == {"A01", "A03"}


def test_what_is_to_do_and_why(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl")
    for well in ("A01", "A02", "A03", "A04"):
        ledger.add(well, parts=PARTS, key="k")
    wants = {
        "A01": PARTS,
        "A02": {**PARTS, "in": "new"},
        "A03": {**PARTS, "params": "q", "code": 2},
    }
    reasons = todo(ledger, {**wants, "A05": PARTS}, damaged=["A01", "A99"])
    assert reasons == {
        "A01": "stored result is damaged",
        "A02": "input changed",
        "A03": "the stage's code changed, parameters changed",
        "A04": "removed",
        "A05": "new",
    }


def test_quarantined_wells_are_known_but_not_computed(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl")
    ledger.add("A01", parts=PARTS, key=None, quarantine="truncated TIFF")
    ledger.add("A02", parts=PARTS, key="k")
    assert set(ledger.computed()) == {"A02"}
    assert todo(ledger, {"A01": PARTS, "A02": PARTS}) == {}


def test_fingerprints_ignore_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})


def test_any_flipped_bit_costs_no_more_than_its_lines(tmp_path):
    whole = Ledger(tmp_path / "P1.segment.jsonl")
    for well in ("A01", "A02", "A03"):
        files = {f"plate.zarr/{well}": [12, "c0ffee"]}
        whole.add(well, parts=PARTS, key="k", files=files)
    text = whole.path.read_bytes()
    for bit in range(8 * len(text)):
        damaged = bytearray(text)
        damaged[bit // 8] ^= 1 << bit % 8
        whole.path.write_bytes(damaged)
        found = Ledger(whole.path)
        assert found.items() <= whole.items()  # what is left is as it was written
        assert len(found) >= (2 if text[bit // 8] != ord("\n") else 1)
