"""`permissions/check`: may somebody do something, and if not, which check fails and what would do."""

from typing import Annotated

from pydantic import Field

from casekeeper.acl import READ_ONLY, ROLE_FOR_ACTION, Action, Role
from casekeeper.casefiles.access import Access, Gate
from casekeeper.casefiles.casefile import CasefileStore, Status
from casekeeper.errors import CasefileNotFound, Invalid, Unavailable
from casekeeper.identity.accounts import Accounts
from casekeeper.identity.principal import Principal
from casekeeper.ids import CasefileId, UserId
from casekeeper.operations.admitting import Admitting, scope_of
from casekeeper.operations.operation import OperationCall
from casekeeper.operations.policy import Decision, Ruling
from casekeeper.strict import Strict
from casekeeper.values import value


class CheckPermission(Strict):
    """A dry run: nothing is executed and nothing recorded. For another user only by admins of the casefile."""

    casefile_id: CasefileId
    user_id: UserId | None = Field(default=None, description="Whose permission; the caller's own if absent.")
    operation: Annotated[OperationCall | None, Field(description="Which operation; reading if absent.")] = (
        None
    )
    tainted: bool = Field(
        default=False,
        description="Ask as for a tainted call: an agent's that has read something, for one (docs/policies.md).",
    )


@value
class Verdict:
    """May or may not, and why.

    Attributes:
        check: Which check says no: `where`, `what` or `admit`; None if none does.
        needed_role: The smallest role that would do, if need be with an approval; None if none would.
        needs_approval: The role does, but an approval is needed, which this server cannot ask for yet.
        rule: The operators' rule that says no.
    """

    allowed: bool
    user_id: str
    casefile_id: str
    role: str | None
    check: str | None
    reason: str
    needed_role: str | None
    needs_approval: bool = False
    rule: str | None = None


class Explain:
    """Answers what the corridor would say, without walking it."""

    def __init__(self, gate: Gate, store: CasefileStore, accounts: Accounts, admitting: Admitting) -> None:
        self._gate = gate
        self._store = store
        self._accounts = accounts
        self._admitting = admitting

    async def check(self, caller: Principal, command: CheckPermission) -> Verdict:
        """The verdict on an operation, or on reading.

        Raises:
            CasefileNotFound: The caller has no access.
            RoleTooLow: The caller asks about another without being admin.
        """
        user_id = command.user_id or caller.user_id
        own = user_id == caller.user_id
        access: Access | None = await self._gate.enter(
            caller, command.casefile_id, Action.READ if own else Action.GRANT
        )
        if not own:
            other = await self._accounts.active_principal(user_id, caller.epoch)
            access = await self._gate.look(other, command.casefile_id, again=True) if other else None
        casefile = await self._store.casefile(command.casefile_id)
        if casefile is None:
            raise CasefileNotFound(command.casefile_id)
        return await self._judge(user_id, command, access, casefile.status)

    async def _judge(
        self, user_id: str, command: CheckPermission, access: Access | None, status: Status
    ) -> Verdict:
        call = command.operation
        role = access.role_name if access else None

        def verdict(
            check: str | None, reason: str, needed: Role | None, decision: Decision | None = None
        ) -> Verdict:
            needs_approval = decision is not None and decision.ruling is Ruling.APPROVAL
            rule = decision and decision.rule
            return Verdict(
                check is None,
                user_id,
                command.casefile_id,
                role,
                check,
                reason,
                needed and needed.value,
                needs_approval,
                rule,
            )

        if access is None:
            return verdict("where", "The user has no access to this casefile.", Role.VIEWER)
        if call is None:
            return verdict(None, f"The role {role} reads.", ROLE_FOR_ACTION[Action.READ])
        try:
            operation = await self._admitting.registry.find(call, scope_of(access))
        except Invalid as error:
            return verdict("what", error.detail, None)
        decision = self._admitting.decide(operation, access, tainted=command.tainted)
        if decision.ruling is not Ruling.ALLOW:
            return verdict("what", decision.reason(operation.name), decision.needed, decision)
        if status is Status.ARCHIVED and not operation.effects <= READ_ONLY:
            return verdict("admit", "The casefile is archived: it can be read, not changed.", decision.needed)
        try:
            operation.parse(call)
        except (Invalid, Unavailable) as error:
            return verdict("what", error.detail, decision.needed)
        return verdict(None, f"The role {role} does.", decision.needed)
