"""Certificates at the command line: what they say, what they refuse, and that no changed byte passes."""

import hashlib
import json
from dataclasses import asdict

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from o3_lightning.commands.requests import main as requests
from o3_lightning.commands.verify_certificate import main as verify
from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.store import Store

REQUEST = UnlearningRequest("kim", (QuestionAnswer("Where does Kim Zebrask live?", "In Quellorhaven"),) * 3)


def write_keys(folder, name="key"):
    private = ed25519.Ed25519PrivateKey.generate()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / f"{name}.pem").write_bytes(private.private_bytes(encoding, form, serialization.NoEncryption()))
    public = private.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)


def attack_row(attack, leak, base, member=None, **more):
    return {"attack": attack, "group": "any", "member": member, "request": "kim", "leak": leak,
            "base_leak": base, "attempts": 4, **more}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """The folder of a run with one unlearned request, its measurements and a key."""
    store = Store.create(tmp_path / "store", "base", "b" * 64, "encoder", "e" * 64)
    store.register(REQUEST, {})
    store.protect("kim", lambda folder: (folder / "detector.json").write_text("{}"))
    store.unlearn("kim", lambda folder: (folder / "adapter_config.json").write_text("{}"), {"loss": 0.5})
    digests = {"base": "b" * 64, "requests": {"kim": REQUEST.digest}}
    values = {"columns": ["base", "kim"], "rows": ["kim"], "values": [[1.0, 0.0]]}
    head = store.head()
    metrics = {"digests": digests, "persistence": {"accuracy": {"seen": values}}, "store_head": head}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    table = [
        attack_row("mail", 0.0, 1.0, "test"),
        attack_row("hash", 0.25, 0.5, "test"),
        attack_row("riddle", 1.0, 0.05, "test"),  # the base model does not tell it: proves nothing
        attack_row("adapter_off", 1.0, 1.0),
        attack_row("quantise_merged_8_bits", 0.01, 1.0),
        attack_row("quantise_merged_4_bits", 0.5, 1.0, utility=0.0, base_utility=1.0),
        attack_row("quantise_4_bits", 0.0, 0.06),
    ]
    (tmp_path / "robustness.json").write_text(json.dumps({"table": table, "store_head": head}))
    write_keys(tmp_path)
    return tmp_path


def certify(run, *more, id="kim"):
    requests(["certify", id, "--store", str(run / "store"), "--key", str(run / "key.pem"), *more])
    return run / f"certificate-{id}.json"


def check(path, run, *more, key="key.pub"):
    verify([str(path), "--key", str(run / key), *more])


def statement_of(path):
    import base64

    return json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))


def test_a_certificate_gives_every_surface_its_verdict_and_verifies_without_the_store(run, tmp_path, capsys):
    path = certify(run, "--reason", "Art. 17 GDPR", "--due", "2026-12-24")
    statement = statement_of(path)
    predicate = statement["predicate"]
    found = {s["name"]: (s["verdict"], s["baseline"], s["after"]) for s in predicate["surfaces"]}
    assert found == {
        "questions of the request": ("suppressed", 1.0, 0.0),
        "other wordings of these questions": ("not measured", None, None),
        "disguised questions, the worst kind": ("residual", 0.5, 0.25),
        "gate and adapter switched off": ("residual", 1.0, 1.0),
        "adapter active for every prompt, without the gate": ("not measured", None, None),
        "adapter merged into the weights, which are then quantised": ("residual", 1.0, 0.5),
        "base model quantised, with the gate": ("not measured", 0.06, 0.0),
        "adapter merged, then trained on some forgotten rows": ("not measured", None, None),
    }
    notes = {s["name"]: s["note"] for s in predicate["surfaces"]}
    worst = notes["adapter merged into the weights, which are then quantised"]
    assert worst == "quantise_merged_4_bits, the worst of 2; of other questions it answers 0%, the base 100%"
    assert (predicate["reason"], predicate["due"]) == ("Art. 17 GDPR", "2026-12-24")
    assert [event["event"] for event in predicate["events"]] == ["register", "protect", "unlearn"]
    digests = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    assert digests["forget set of kim"] == REQUEST.digest
    assert {"requests/kim/detector.json", "requests/kim/adapter/adapter_config.json"} <= set(digests)
    elsewhere = tmp_path / "elsewhere.json"
    path.rename(elsewhere)
    (run / "store").rename(tmp_path / "gone")
    capsys.readouterr()
    check(elsewhere, run)
    printed = capsys.readouterr().out
    assert "residual" in printed
    assert "base model's weights are unchanged" in printed


def test_no_text_of_the_forget_set_is_in_certificate_or_page(run):
    path = certify(run, "--page", str(run / "page.html"))
    for content in (json.dumps(statement_of(path)), (run / "page.html").read_text()):
        for row in asdict(REQUEST)["rows"]:
            assert not any(
                word in content for word in (row["prompt"], row["answer"], "Zebrask", "Quellorhaven")
            )


def test_a_changed_byte_is_refused_wherever_it_is(run):
    path = certify(run)
    content = path.read_bytes()
    payload = range(content.index(b'"payload": "') + 20, content.index(b'",\n  "payloadType"') - 8)
    inside = set(payload) - set(payload[::9])  # these are all alike; the bytes of both ends are all tried
    for place in sorted(set(range(len(content))) - inside):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match=r"certificate-kim\.json"):
            check(path, run)
    path.write_bytes(content)
    check(path, run)


def test_another_key_is_named(run):
    path = certify(run)
    write_keys(run, "other")
    with pytest.raises(InputError, match=r"field 'keyid': signed by .* the given key is"):
        check(path, run, key="other.pub")
    with pytest.raises(InputError, match=r"key.pem: no PEM file of a public key"):
        check(path, run, key="key.pem")


def test_a_revoked_request_gets_a_certificate_that_says_so(run):
    Store.open(run / "store").revoke("kim")
    predicate = statement_of(certify(run))["predicate"]
    assert predicate["request"]["status"] == "revoked"
    assert predicate["surfaces"] == []
    assert "as if it had never been made" in predicate["done"]


def test_measurements_of_another_state_are_refused(run):
    store = Store.open(run / "store")
    store.revoke("kim")
    store.restore("kim")  # the files are the same again
    certify(run)
    store.unlearn("kim", lambda folder: (folder / "adapter_config.json").write_text("{1}"), {})
    with pytest.raises(InputError, match=r"robustness.json: measured before 'kim' changed"):
        certify(run)
    (run / "robustness.json").unlink()
    notes = {one["name"]: one["note"] for one in statement_of(certify(run))["predicate"]["surfaces"]}
    assert notes["questions of the request"] == "measured before 'kim' changed"
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["digests"]["requests"]["kim"] = "f" * 64
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(InputError, match=r"metrics.json: of another request: digest ffff"):
        certify(run)


@pytest.mark.parametrize("name", ["metrics.json", "robustness.json"])
def test_a_damaged_measurement_is_refused_and_named(run, name):
    sound, refused = json.loads((run / name).read_text()), 0
    for place in places(sound):
        for junk in (None, "x", []):
            (run / name).write_text(json.dumps(replaced(sound, place, junk)))
            try:
                certify(run)
            except InputError as error:
                refused += str(error).startswith(str(run / name))
    assert refused > 10, refused


def places(value, path=()):
    """The path of every value inside another."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def replaced(value, place, junk):
    """A copy with another value at a path."""
    copied = json.loads(json.dumps(value))
    *above, last = place
    inner = copied
    for key in above:
        inner = inner[key]
    inner[last] = junk
    return copied


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--due", "soon"], "field 'due': expected YYYY-MM-DD, got 'soon'"),
        (["--due", "2026-W01-1"], "field 'due': expected YYYY-MM-DD, got '2026-W01-1'"),
        (["--key", "no.pem"], "no.pem: cannot be read"),
    ],
)
def test_wrong_options_are_named(run, more, message):
    with pytest.raises(InputError, match=message):
        certify(run, *more)


def test_certify_needs_a_request_and_a_key(run):
    with pytest.raises(InputError, match="needs the id of a request, and --key"):
        requests(["certify", "--store", str(run / "store")])
    with pytest.raises(InputError, match="no request 'lee'"):
        certify(run, id="lee")


def test_the_bill_of_materials_names_every_file_by_its_digest(run):
    requests(["bom", "--store", str(run / "store"), "--out", str(run / "bom.json")])
    text = (run / "bom.json").read_text()
    bom = json.loads(text)
    base, encoder, request = bom["components"]
    assert [base["hashes"][0]["content"], encoder["hashes"][0]["content"]] == ["b" * 64, "e" * 64]
    for file in request["components"]:
        content = (run / "store" / file["name"]).read_bytes()
        assert file["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]
    assert {file["name"] for file in request["components"]} == {
        str(path.relative_to(run / "store"))
        for path in (run / "store" / "requests").rglob("*")
        if path.is_file()
    }
    assert not any(word in text for word in ("Zebrask", "Quellorhaven"))


def test_a_revoked_request_is_not_in_the_bill_of_materials(run):
    Store.open(run / "store").revoke("kim")
    requests(["bom", "--store", str(run / "store")])
    assert len(json.loads((run / "bom.cdx.json").read_text())["components"]) == 2


def test_the_bill_of_materials_fits_the_schema_of_cyclonedx(run):
    pytest.importorskip("jsonschema")  # pip install 'cyclonedx-python-lib[json-validation]'
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    requests(["bom", "--store", str(run / "store")])
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str((run / "bom.cdx.json").read_text()) is None
