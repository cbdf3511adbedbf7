"""A casefile's agents on a real store; what the corridor would do to a tool call is a short function here."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import models
from pydantic_ai.models import Model

from casekeeper.acl import Effect, Role
from casekeeper.agents.registry import AgentRegistry, Budgets, RegisteredAgent
from casekeeper.casefiles.access import Access
from casekeeper.documents.document import CasefileDocuments
from casekeeper.errors import ArgumentsInvalid
from casekeeper.identity.principal import Principal
from casekeeper.ids import new_event_id
from casekeeper.journal.stream import Commit, Record
from casekeeper.operations.context import MDSContext, NestedFailed
from casekeeper.operations.operation import AgentCall, Finished, Message, ToolCall
from casekeeper.operations.registry import ToolRegistry
from casekeeper.operations.tools import tool
from casekeeper.paging import Cursors
from casekeeper.storage.embedded import Storage, open_storage

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CASEFILE = "cf_260301_abcdef"
SESSION = "ts_260301_anna1234_abcdef"
