"""How an operation ended, as the SDK's callers get it."""

from casekeeper.client.errors import OperationFailed
from casekeeper.execution.status import Executed
from casekeeper.values import value


@value
class Result(Executed):
    """How an operation ended; with status `running`, that it has not; with `pending`, that it waits (`waiting_for`).

    A failed operation is a result as well: `success` is False and `error` says why.
    """

    def raise_for_failure(self) -> "Result":
        """This result, if the operation succeeded, still runs, or waits.

        Raises:
            OperationFailed: It ran and failed.
        """
        if self.success is False:
            raise OperationFailed(self)
        return self
