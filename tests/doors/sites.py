"""The casefiles, sessions and accounts around which access is tried."""

import re
from dataclasses import dataclass, replace
from typing import Any

import httpx2

from casekeeper.identity.logins import Login
from tests.doors.access_table import Case, Place
from tests.doors.forging import expired, forged
from tests.support import ROLES, Api, House, bearer

PASSWORD = "a long password"

NEVER_WAS = Place(
    casefile_id="cf_260101_000000",
    session_id="ts_260101_mcom0000_000000",
    event_id="evt_00000000000aaaaaaaaaaaaaaaa",
    document_id="doc_00000000000aaaaaaaaaaaaaaaa",
    user_id="nobody@example.com",
    key_id="key_000000000000",
    password=PASSWORD,
    refresh_token="",
)


class Site:
    """A house with all that can be asked for, furnished target by target as it is needed."""

    def __init__(self, api: Api, house: House, record_session_id: str) -> None:
        self.api = api
        self.house = house
        self.record_session_id = record_session_id
        self._places = {"missing": NEVER_WAS, "any": NEVER_WAS}

    @classmethod
    async def build(cls, api: Api, prefix: str, **fields: str) -> "Site":
        """A site; `prefix` keeps its users apart from those of earlier sites."""
        house = await api.house(prefix, **fields)
        seen = await api.ask("/v1/casefiles/get", {"casefile_id": house.casefile_id}, token=house["owner"])
        return cls(api, house, seen["record_session_id"])

    async def place(self, case: Case, target: str, who: str) -> Place:
        """The ids with which this caller asks."""
        if not case.is_in_casefile and target != "missing":
            return await self._account_place(target, who)
        if target not in self._places:
            self._places[target] = await self._furnished(target)
        return self._places[target]

    async def _furnished(self, target: str) -> Place:
        owner, casefile_id = self.house["owner"], self.house.casefile_id
        match target:
            case "private":
                return await furnish(self.api, owner, casefile_id, "private")
            case "foreign":
                other = await self.api.token(await self.api.account("other@example.com"))
                return await furnish(self.api, other, await self.api.casefile(other))
            case "deleted":
                gone = await self.api.casefile(owner)
                for role in ROLES:
                    await self.api.grant(owner, gone, self.house.users[role], role)
                place = await furnish(self.api, owner, gone)
                await self.api.ask("/v1/casefiles/delete", {"casefile_id": gone}, token=owner)
                return place
            case _:
                return await furnish(self.api, owner, casefile_id)

    async def _account_place(self, target: str, who: str) -> Place:
        user_id = self.house.users.get(who, self.house.users["viewer"])
        if target == "foreign":
            user_id = f"not.{user_id}"
        await self.api.account(user_id, password=PASSWORD, operator=who == "operator" and target != "foreign")
        tokens = await self.api.server.identity.logins.log_in(Login(user_id=user_id, password=PASSWORD))
        key = await self.api.ask("/v1/keys/create", {}, token=tokens.access_token)
        refresh = tokens.refresh_token or ""
        return replace(NEVER_WAS, user_id=user_id, key_id=key["key_id"], refresh_token=refresh)

    def token(self, who: str) -> str | None:
        """The caller's token; the three unknown callers pretend to be the owner."""
        match who:
            case "none":
                return None
            case "expired":
                return expired(self.house["owner"], self.api.server)
            case "forged":
                return forged(self.house["owner"], self.api.server)
            case _:
                return self.house[who]

    async def call(self, case: Case, place: Place, token: str | None) -> "Reply":
        """Ask, and tell how it was answered. A stream is not read further than its status."""
        method, path = case.route.split(" ", 1)
        path = path.replace("{rest:path}", "x/execute").replace("{part}", "inputs")
        path = (path + case.query).format(**vars(place))
        payload = case.payload(place) if case.payload else None
        if path.endswith("/stream"):
            return await self._stream(path, token)
        if payload is not None:
            response = await self.api.post(path, payload, token=token)
        elif method == "POST" and case.query:
            response = await self.api.http.post(path, content=b"Subject: x\n\ny", headers=bearer(token))
        else:
            response = await self.api.http.request(method, path, headers=bearer(token))
        return Reply(response.status_code, response.text, response.headers.get("content-type", ""))

    async def _stream(self, path: str, token: str | None) -> "Reply":
        transport = httpx2.ASGITransport(app=_heads_only(self.api.app), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=self.api.http.base_url) as http:
            response = await http.get(path, headers=bearer(token))
            return Reply(response.status_code, response.text, response.headers["content-type"])


def _heads_only(app: Any) -> Any:
    """The application, left by its client as soon as a stream begins: in process, its answer comes when it has ended."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.start" and message["status"] == 200:
                await send({"type": "http.response.body", "body": b""})
                raise ConnectionResetError

        await app(scope, receive, told)

    return answer


@dataclass(frozen=True)
class Reply:
    """Status, body and content type of an answer."""

    status: int
    text: str
    content_type: str

    def without_ids(self, place: Place) -> str:
        """The body with the ids that were sent taken out."""
        text = re.sub(r"req_[0-9a-f]{24}", "…", self.text)
        for sent in vars(place).values():
            text = text.replace(sent, "…") if sent else text
        return text


async def furnish(api: Api, owner: str, casefile_id: str, visibility: str = "casefile") -> Place:
    """A colleague with a session and an operation, and a document, in a casefile."""
    colleague = await api.account("colleague@example.com")
    await api.grant(owner, casefile_id, colleague, "editor")
    token = await api.token(colleague)
    session_id = await api.session(token, casefile_id, visibility=visibility)
    ran = await api.run(token, "note_add", {"text": "seen"}, session_id=session_id)
    made = ran.json()["payload"]
    return replace(
        NEVER_WAS,
        casefile_id=casefile_id,
        session_id=session_id,
        event_id=made["event_id"],
        document_id=made["outputs"]["document_id"],
        user_id=colleague,
    )
