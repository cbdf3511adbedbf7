"""The catalogue: which operations there are, for callers who choose one."""

from casekeeper.acl import Action
from casekeeper.casefiles.access import Gate
from casekeeper.identity.principal import Principal
from casekeeper.operations.admitting import scope_of
from casekeeper.operations.operation import EVERYWHERE, CatalogEntry
from casekeeper.operations.registry import Registry


class Catalogue:
    """Lists operations: those that are everywhere, and those of a casefile for whoever may read it."""

    def __init__(self, registry: Registry, gate: Gate) -> None:
        self._registry = registry
        self._gate = gate

    async def entries(self, caller: Principal, casefile_id: str | None = None) -> list[CatalogEntry]:
        """All of them: by kind, then by name. Those of a casefile come among the others.

        Raises:
            CasefileNotFound: The caller has no access to it.
        """
        if casefile_id is None:
            return await self._registry.catalogue(EVERYWHERE)
        access = await self._gate.enter(caller, casefile_id, Action.READ)
        return await self._registry.catalogue(scope_of(access))
