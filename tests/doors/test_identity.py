"""Logging in with an issuer's token: a real issuer in a process of its own, and the server's door."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsInt, IsPartialDict

from casekeeper.identity.issuers import user_of_subject
from tests.fakes.oidc import CLIENT, Provider, running_provider
from tests.support import Api, open_test_server

TOKEN = "/v1/auth/token"

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def provider() -> Generator[Provider]:
    """The issuer, with Anna, whose address is verified, and Ben, whose is not."""
    with running_provider() as opened:
        opened.user("anna-1", email="anna@example.com", email_verified=True, name="Anna")
        opened.user("ben-1", email="ben@example.com", email_verified=False)
        yield opened


@pytest.fixture
async def api(tmp_path: Path, provider: Provider, request: pytest.FixtureRequest) -> AsyncGenerator[Api]:
    """A server that believes the issuer."""
    more: dict[str, Any] = getattr(request, "param", {})
    issuer = {"issuer": provider.url, "audience": CLIENT, **more}
    async with open_test_server(tmp_path / "data", issuers=[issuer]) as server, Api.of(server) as opened:
        yield opened


by_mail = pytest.mark.parametrize("api", [{"link": "email"}], indirect=True)
making = pytest.mark.parametrize("api", [{"creates_accounts": True}], indirect=True)


@by_mail
async def test_an_issuers_token_is_exchanged_for_one_of_ours(api: Api, provider: Provider) -> None:
    await api.account("anna@example.com")

    answer = await api.post(TOKEN, {"id_token": provider.id_token("anna-1")})

    got = answer.json()["payload"]
    assert got == IsPartialDict(
        user_id="anna@example.com", refresh_token=None, expires_in=IsInt(gt=590, le=600)
    )
    assert (await api.get("/v1/catalog", token=got["access_token"])).status_code == 200


@by_mail
@pytest.mark.parametrize("sub", ["anna-1", "ben-1"])
async def test_who_has_no_account_or_no_verified_address_is_not_let_in(
    api: Api, provider: Provider, sub: str
) -> None:
    await api.account("ben@example.com")

    answer = await api.post(TOKEN, {"id_token": provider.id_token(sub)})

    assert (answer.status_code, answer.json()["code"]) == (401, "credentials_rejected")


@by_mail
async def test_a_deactivated_account_stays_out(api: Api, provider: Provider) -> None:
    await api.account("anna@example.com")
    await api.account("root@example.com", operator=True)
    token = await api.token("root@example.com")
    await api.ask("/v1/accounts/deactivate", {"user_id": "anna@example.com"}, token=token)

    assert (await api.post(TOKEN, {"id_token": provider.id_token("anna-1")})).status_code == 401


@making
async def test_a_subject_gets_an_account_of_its_own_once(api: Api, provider: Provider) -> None:
    token = provider.id_token("anna-1")

    first = await api.post(TOKEN, {"id_token": token})
    again = await api.post(TOKEN, {"id_token": token})

    wanted = user_of_subject(provider.url, "anna-1")
    assert [a.json()["payload"]["user_id"] for a in (first, again)] == [wanted, wanted]


async def test_a_token_for_another_client_is_refused(api: Api, provider: Provider) -> None:
    assert (await api.post(TOKEN, {"id_token": provider.id_token("anna-1", "another")})).status_code == 401


async def test_an_issuers_token_is_no_access_token(api: Api, provider: Provider) -> None:
    answer = await api.get("/v1/catalog", token=provider.id_token("anna-1"))

    assert (answer.status_code, answer.json()["code"]) == (401, "token_rejected")


@pytest.mark.parametrize(
    "payload",
    [
        {"id_token": "x", "api_key": "ck_x"},
        {"id_token": "x", "user_id": "anna@example.com", "password": "a long password"},
        {"id_token": ""},
        {"id_token": "x" * 16_385},
    ],
)
async def test_there_is_one_way_at_a_time(api: Api, payload: dict[str, str]) -> None:
    assert (await api.post(TOKEN, payload)).status_code == 422


async def test_an_issuer_that_is_away_is_a_503(tmp_path: Path, provider: Provider) -> None:
    token = provider.id_token("anna-1")
    issuer = {"issuer": provider.url, "audience": CLIENT, "jwks_uri": "http://127.0.0.1:9/jwks"}
    async with open_test_server(tmp_path / "data", issuers=[issuer]) as server, Api.of(server) as api:
        answer = await api.post(TOKEN, {"id_token": token})

        assert (answer.status_code, answer.json()["code"]) == (503, "issuer_unavailable")
        assert answer.headers["retry-after"]
