"""Casefiles, and who may enter them."""

from casekeeper.verbs.verb import Verb

_CASEFILE = "casefiles.casefile:CasefileView"
_CHANGED_GRANT = "casefiles.permissions:ChangedGrant"

VERBS = (
    Verb(
        "casefiles/create",
        "Make a casefile; the caller becomes its owner.",
        needs="account",
        note="operators only, where `everybody_creates` is off",
        command="casefiles.commands:CreateCasefile",
        result=_CASEFILE,
        calls="casefiles.commands.create",
        claims="/v1/casefiles/create",
    ),
    Verb(
        "casefiles/get",
        "Read a casefile.",
        needs="reader",
        command="casefiles.commands:GetCasefile",
        result=_CASEFILE,
        calls="casefiles.commands.get",
    ),
    Verb(
        "casefiles/list",
        "The casefiles of which the caller is a member, newest first.",
        needs="account",
        note="shows its own casefiles",
        command="casefiles.commands:ListCasefiles",
        page_of=_CASEFILE,
        calls="casefiles.commands.page",
    ),
    Verb(
        "casefiles/update",
        "Change title, description, tags, public role or status.",
        needs="admin",
        command="casefiles.commands:UpdateCasefile",
        result=_CASEFILE,
        calls="casefiles.commands.update",
        claims="/v1/casefiles/update",
    ),
    Verb(
        "casefiles/delete",
        "Delete a casefile: for everybody, for good.",
        needs="owner",
        command="casefiles.commands:DeleteTheCasefile",
        result="casefiles.commands:Deleted",
        calls="casefiles.commands.delete",
        claims="/v1/casefiles/delete",
    ),
    Verb(
        "permissions/grant",
        "Give a user a role, or change the one they have.",
        needs="admin",
        command="casefiles.permissions:GrantRole",
        result=_CHANGED_GRANT,
        calls="casefiles.permissions.grant",
        claims="/v1/permissions/grant",
    ),
    Verb(
        "permissions/revoke",
        "Take a user's role away; what they run in the casefile is stopped.",
        needs="admin",
        note="one's own role: every member but the owner",
        command="casefiles.permissions:RevokeRole",
        result=_CHANGED_GRANT,
        calls="casefiles.permissions.revoke",
        claims="/v1/permissions/revoke",
    ),
    Verb(
        "permissions/list",
        "Who has access to a casefile.",
        needs="viewer",
        command="casefiles.permissions:ListGrants",
        page_of="casefiles.permissions:GrantView",
        calls="casefiles.permissions.page",
    ),
    Verb(
        "permissions/transfer",
        "Make another user the owner; the former owner stays as admin.",
        needs="owner",
        command="casefiles.permissions:TransferCasefile",
        result=_CASEFILE,
        calls="casefiles.permissions.transfer",
        claims="/v1/permissions/transfer",
    ),
    Verb(
        "permissions/check",
        "Whether somebody may do something, and if not, why and what would do. Nothing is executed.",
        needs="reader",
        note="for others: admin",
        command="execution.explain:CheckPermission",
        result="execution.explain:Verdict",
        calls="execution.explain.check",
    ),
)
