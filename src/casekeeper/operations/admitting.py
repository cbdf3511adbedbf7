"""WHAT: which operation a call names, whether it is admitted, and the proof of that.

Only this module makes an `Admitted`. Whatever starts an operation takes one, and whatever looks at a running one again asks
it: so what was approved stays approved, and what is tainted stays tainted, wherever it is judged.
"""

from collections.abc import Iterable
from dataclasses import field, replace
from typing import Any

from casekeeper.acl import READ_ONLY, Role
from casekeeper.casefiles.access import Access
from casekeeper.errors import ApprovalNeeded, PolicyDenies, RoleTooLow
from casekeeper.journal.operations import OpenOperation
from casekeeper.operations.operation import Operation, OperationCall, OperationScope
from casekeeper.operations.policy import Decision, Policy, Ruling
from casekeeper.operations.registry import Registry
from casekeeper.values import value


@value
class Admitted:
    """Proof that this operation was let in, with these parameters, under this access.

    Attributes:
        tainted: It was asked for after something had been read that somebody else may have written.
        approved: Those who may have approved of exactly this.
    """

    operation: Operation
    parameters: Any
    access: Access
    tainted: bool = False
    approved: bool = False
    _policy: Policy = field(default_factory=Policy, repr=False)

    @property
    def changes_nothing(self) -> bool:
        """Whether it only reads, so that it may run in an archived casefile."""
        return self.operation.effects <= READ_ONLY

    def still(self, role: Role, tags: Iterable[str]) -> bool:
        """Whether it would be let in under this role, in a casefile with these tags."""
        decision = self._policy.decide(
            self.operation, role, tags, tainted=self.tainted, approved=self.approved
        )
        return decision.ruling is _ALLOW

    def again(self, access: Access) -> "Admitted":
        """The same under the access of this moment.

        Raises:
            Denied: It would not be let in any more.
        """
        operation = self.operation
        decision = self._policy.decide(
            operation, access.role, access.tags, tainted=self.tainted, approved=self.approved
        )
        if decision.ruling is not _ALLOW:
            raise _refusal(operation, access, decision)
        return replace(self, access=access)


_ALLOW = Ruling.ALLOW


class Admitting:
    """Lets operations in, by the one table of the policy."""

    def __init__(self, registry: Registry, policy: Policy) -> None:
        """Check the policy against the operations that there are.

        Raises:
            SettingsInvalid: A rule names an operation that there is not.
        """
        self.registry = registry
        self._policy = policy
        policy.check(registry.names)

    async def admit(
        self, call: OperationCall, access: Access, *, tainted: bool = False, approved: bool = False
    ) -> Admitted:
        """The proof for a call.

        Raises:
            ArgumentsInvalid: There is no such operation, or its parameters do not fit; the fields are named.
            RoleTooLow: The operation needs a higher role.
            PolicyDenies: A rule of the operators forbids it.
            ApprovalNeeded: It would need an approval.
            Unavailable: What the operation needs cannot be had now, or it is not known whether there is one.
        """
        operation = await self.registry.find(call, scope_of(access))
        decision = self.decide(operation, access, tainted=tainted, approved=approved)
        if decision.ruling is not _ALLOW:
            raise _refusal(operation, access, decision)
        return Admitted(operation, operation.parse(call), access, tainted, approved, self._policy)

    def decide(
        self, operation: Operation, access: Access, *, tainted: bool = False, approved: bool = False
    ) -> Decision:
        """What would become of the operation under this access, and why."""
        return self._policy.decide(operation, access.role, access.tags, tainted=tainted, approved=approved)

    def could(self, operation: Operation, access: Access, *, tainted: bool) -> bool:
        """Whether it would be let in, if need be with an approval."""
        return self.decide(operation, access, tainted=tainted).ruling in (_ALLOW, Ruling.APPROVAL)

    async def covers(self, row: OpenOperation, role: Role, tags: Iterable[str]) -> bool:
        """Whether an open operation, in whichever process, would still be let in under this role and these tags.

        One that this server does not have is judged where it is known.

        Raises:
            StoreUnavailable: It is not known which operation it is.
        """
        operation = await self.of_row(row)
        if operation is None:
            return True
        decision = self._policy.decide(
            operation, role, tags, tainted=row.is_tainted, approved=row.is_approved
        )
        return decision.ruling is _ALLOW

    async def of_row(self, row: OpenOperation) -> Operation | None:
        """The operation that an open row is of, if this server has it.

        Raises:
            StoreUnavailable: It is not known whether it has.
        """
        scope = OperationScope(row.casefile_id, row.user_id)
        return await self.registry.named(row.operation_type, row.operation_name, scope)


def scope_of(access: Access) -> OperationScope:
    """Where operations are looked for under this access."""
    return OperationScope(access.casefile_id, access.caller.user_id)


def _refusal(
    operation: Operation, access: Access, decision: Decision
) -> RoleTooLow | PolicyDenies | ApprovalNeeded:
    needed = decision.needed and decision.needed.value
    if decision.ruling is Ruling.APPROVAL:
        return ApprovalNeeded(decision.rule, decision.reason(operation.name))
    if decision.ruling is Ruling.DENY or needed is None:
        return PolicyDenies(decision.rule, needed, decision.reason(operation.name))
    has = access.role.value if access.role else None
    return RoleTooLow(needed, has, f"{operation.name} needs the role {needed}; yours is {access.role_name}.")
