"""The commands beside ``serve``."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.config import KEYS, load
from tests.gateway.tokens import SECRET, token

DOCS = Path(__file__).parents[2] / "docs" / "gateway.md"


def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of a command."""
    ended = CliRunner().invoke(app, arguments, env=environ)
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    return ended.exit_code, ended.stdout, ended.stderr


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A configuration as ``genconfig`` makes it."""
    path = tmp_path / "gateway.toml"
    assert run("genconfig", "-o", str(path))[0] == 0
    return str(path)


def test_a_generated_configuration_is_good_and_its_keys_are_new(file: str) -> None:
    assert run("checkconfig", "-c", file) == (0, "", "")
    first, second = load(Path(file)), run("genconfig")[1]
    assert len(first.client.token.hmac_secret_key) >= 64
    assert first.client.token.hmac_secret_key not in second
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600


def test_a_configuration_is_not_overwritten(file: str) -> None:
    before = Path(file).read_text()
    status, _, said = run("genconfig", "-o", file)
    assert (status, "File exists" in said) == (1, True)
    assert Path(file).read_text() == before


def test_a_wrong_configuration_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[client]\nping_intervall = 1\n")
    status, _, said = run("checkconfig", "-c", str(wrong))
    assert status == 2
    assert "did you mean 'client.ping_interval'?" in said
    status, _, said = run(
        "checkconfig",
        FASTWS_HTTP_SERVER_TLS_ENABLED="true",
        FASTWS_HTTP_SERVER_TLS_CERT_PEM="/nowhere.pem",
    )
    assert status == 2 and "http_server.tls: /nowhere.pem cannot be used" in said
    status, _, said = run("checkconfig", FASTWS_CLIENT_TOKEN_RSA_PUBLIC_KEY="x")
    assert (status, "client.token.rsa_public_key" in said) == (2, True)


def test_a_short_secret_is_warned_of_and_taken() -> None:
    status, _, said = run("checkconfig", FASTWS_CLIENT_TOKEN_HMAC_SECRET_KEY="short")
    assert (status, "client.token.hmac_secret_key is short" in said) == (0, True)
    assert run("checkconfig", FASTWS_CLIENT_TOKEN_HMAC_SECRET_KEY="x" * 32) == (0, "", "")


def test_every_key_is_listed() -> None:
    _, listed, _ = run("configdoc")
    assert [line.partition(" = ")[0] for line in listed.splitlines()] == list(KEYS)
    assert "client.ping_interval = 25.0  # FASTWS_CLIENT_PING_INTERVAL" in listed


def test_a_generated_token_is_good(file: str) -> None:
    made = run("gentoken", "-c", file, "-u", "ann")[1].strip()
    status, claims, _ = run("checktoken", "-c", file, made)
    assert (status, json.loads(claims)["sub"]) == (0, "ann")
    sub = run("gentoken", "-c", file, "-u", "ann", "--channel", "$a", "-t", "0")[1].strip()
    status, claims, _ = run("checktoken", "-c", file, "--subscription", sub)
    assert (status, json.loads(claims)["channel"]) == (0, "$a")
    assert json.loads(claims)["exp"] is None
    assert run("checktoken", "-c", file, sub)[0] == 1


def test_a_subscription_token_has_commands_of_its_own(file: str) -> None:
    keys = {"FASTWS_CLIENT_SUBSCRIPTION_TOKEN_ENABLED": "true"}
    keys["FASTWS_CLIENT_SUBSCRIPTION_TOKEN_HMAC_SECRET_KEY"] = SECRET
    sub = run("gensubtoken", "-c", file, "-u", "ann", "-s", "$a", "-t", "-1", **keys)[1].strip()
    status, claims, _ = run("checksubtoken", "-c", file, sub, **keys)
    assert (status, json.loads(claims)["channel"]) == (0, "$a")
    assert json.loads(claims)["exp"] is None
    assert run("checksubtoken", "-c", file, sub)[0] == 1
    assert run("gensubtoken", "-c", file)[0] == 2


def test_a_generated_token_has_the_user_where_it_is_looked_for(file: str) -> None:
    keys = {"FASTWS_CLIENT_TOKEN_USER_ID_CLAIM": "who"}
    made = run("gentoken", "-c", file, "-u", "ann", **keys)[1].strip()
    assert json.loads(run("checktoken", "-c", file, made, **keys)[1])["sub"] == "ann"


def test_a_token_that_is_not_good_says_why() -> None:
    secret = {"FASTWS_CLIENT_TOKEN_HMAC_SECRET_KEY": SECRET}
    for text, why in (
        (token(exp=1), "expired"),
        (token(key=SECRET + "x"), "Signature"),
        ("garbage", "header"),
    ):
        status, said, error = run("checktoken", text, **secret)
        assert (status, said) == (1, "")
        assert why in error


def test_without_a_secret_no_token_is_made() -> None:
    status, _, said = run("gentoken")
    assert (status, "no hmac_secret_key" in said) == (2, True)


def test_every_command_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"`fastws-gateway {command.callback.__name__}" in text
