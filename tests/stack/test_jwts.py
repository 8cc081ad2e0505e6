"""Tokens of an identity provider in place of keys."""

import json
import time
from pathlib import Path

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from everstream.errors import ProviderUnavailable, Unauthorized
from everstream.settings import load_settings
from everstream.web.access.jwts import Jwts
from harness.callers import Caller
from harness.sse_client import read_all, text_of
from harness.stack import running_stack

TIMEOUT_S = 30
ISSUER, AUDIENCE = "https://id.example.com", "everstream"
SECRET = "a secret of more than thirty-two characters"
ELLIPTIC = ec.generate_private_key(ec.SECP256R1())
KEYS = {kid: rsa.generate_private_key(public_exponent=65537, key_size=2048) for kid in ("one", "two")}


def claims(**changes):
    given = {"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600} | changes
    return {name: value for name, value in given.items() if value is not None}


def token(kid="one", **changes):
    return jwt.encode(claims(**changes), KEYS[kid], algorithm="RS256", headers={"kid": kid})


def write_jwks(path, *kids):
    shown = [json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEYS[kid].public_key())) | {"kid": kid} for kid in kids]
    path.write_text(json.dumps({"keys": shown}))


@pytest.fixture(scope="module")
def trusting(tmp_path_factory):
    """A service that takes the provider's tokens."""
    folder = tmp_path_factory.mktemp("jwt")
    write_jwks(folder / "jwks.json", "one")
    options = {
        "EVERSTREAM_ACCESS": "auto",
        "EVERSTREAM_JWT_JWKS": str(folder / "jwks.json"),
        "EVERSTREAM_JWT_ISSUER": ISSUER,
        "EVERSTREAM_JWT_AUDIENCE": AUDIENCE,
    }
    with running_stack(folder, WEB_CONCURRENCY="1", **options) as stack:
        yield stack


def test_subjects_are_owners(trusting):
    alice, bob = Caller(trusting, token()), Caller(trusting, token(sub="bob"))
    generation = alice.start(texts=["mine"])
    assert Caller(trusting, token(exp=int(time.time()) + 60)).call("GET", f"/generations/{generation}").ok
    assert bob.call("GET", f"/generations/{generation}").status_code == 404
    elsewhere = Caller(trusting, token(iss="https://other.example.com"))
    assert elsewhere.call("GET", f"/generations/{generation}").status_code == 401


def test_scopes(trusting):
    for scope in ("openid read", ["openid", "read"]):
        reader = Caller(trusting, token(scope=scope))
        assert reader.call("GET", "/models").ok
        assert reader.call("POST", "/generations", json={"texts": ["a"]}).status_code == 403
    assert Caller(trusting, token(scope="openid")).call("GET", "/models").status_code == 403


def test_session_ends_with_its_token(trusting):
    given = {"key": token(exp=int(time.time()) + 120)}
    answer = requests.post(f"{trusting.url}/session", json=given, timeout=TIMEOUT_S)
    assert answer.json()["name"] == "alice"
    cookie = answer.headers["Set-Cookie"]
    assert 60 < int(cookie.partition("Max-Age=")[2].partition(";")[0]) <= 120
    generation = Caller(trusting, token()).start(texts=["mine"])
    assert text_of(read_all(trusting.events_url(generation), headers={"Cookie": cookie.partition(";")[0]})) == "mine"


@pytest.mark.parametrize(
    "bad",
    [
        lambda: token(exp=int(time.time()) - 60),
        lambda: token(exp=None),
        lambda: token(sub=None),
        lambda: token(aud="other"),
        lambda: token(iss="other"),
        lambda: token("two"),
        lambda: token()[:-4] + "AAAA",
        lambda: jwt.encode(claims(), "", algorithm="none", headers={"kid": "one"}),
        # The public key as the secret: the classic confusion of algorithms.
        lambda: jwt.encode(claims(), "x" * 40, algorithm="HS256", headers={"kid": "one"}),
        lambda: jwt.encode(claims(), ELLIPTIC, algorithm="ES256", headers={"kid": "one"}),
        lambda: "a.b.c",
        lambda: "..",
    ],
)
def test_bad_tokens(trusting, bad):
    answer = Caller(trusting, bad()).call("GET", "/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def reader(**environ):
    """The settings that a JWKS needs are added."""
    environ = {"ISSUER": ISSUER, "AUDIENCE": AUDIENCE} | environ
    return Jwts(load_settings({f"EVERSTREAM_JWT_{name}": value for name, value in environ.items()}))


def test_shared_secret():
    jwts = reader(SECRET=SECRET)
    assert jwts.principal(jwt.encode(claims(), SECRET, algorithm="HS256")).name == "alice"
    with pytest.raises(Unauthorized):
        jwts.principal(token())


def test_new_keys_of_the_provider_are_read_but_not_for_each_token(tmp_path, monkeypatch):
    path = tmp_path / "jwks.json"
    write_jwks(path, "one")
    jwts = reader(JWKS=str(path))
    assert jwts.principal(token()).name == "alice"
    write_jwks(path, "two")
    with pytest.raises(Unauthorized):
        jwts.principal(token("two"))
    assert jwts.principal(token()).name == "alice"
    monkeypatch.setattr("everstream.web.access.jwts.REFRESH_AT_LEAST_S", 0)
    assert jwts.principal(token("two")).name == "alice"
    path.unlink()
    # While it does not answer, its last keys stay good.
    monkeypatch.setattr("everstream.web.access.jwts.REFRESH_S", 0)
    assert jwts.principal(token("two")).name == "alice"


def test_provider_that_does_not_answer_is_waited_for():
    with pytest.raises(ProviderUnavailable):
        reader(JWKS="/nowhere/jwks.json").principal(token())
    assert not Path("/nowhere").exists()
