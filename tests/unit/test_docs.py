"""The table of the reference's members is complete, and names what is there."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import durabletask_sql

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "orchestration-service.md").read_text()
MEMBERS = re.findall(r"\w+", """
StartAsync StopAsync CreateAsync CreateIfNotExistsAsync DeleteAsync IsMaxMessageCountExceeded
GetDelayInSecondsAfterOnProcessException OnFetchException TaskOrchestrationDispatcherCount
MaxConcurrentTaskOrchestrationWorkItems EventBehaviourForContinueAsNew TaskActivityDispatcherCount
LockNextTaskOrchestrationWorkItemAsync RenewTaskOrchestrationWorkItemLockAsync CompleteTaskOrchestrationWorkItemAsync
newRuntimeState outboundMessages orchestratorMessages timerMessages continuedAsNewMessage orchestrationState
AbandonTaskOrchestrationWorkItemAsync ReleaseTaskOrchestrationWorkItemAsync LockNextTaskActivityWorkItem
RenewTaskActivityWorkItemLockAsync CompleteTaskActivityWorkItemAsync AbandonTaskActivityWorkItemAsync
CreateTaskOrchestrationAsync SendTaskOrchestrationMessageAsync WaitForOrchestrationAsync
ForceTerminateTaskOrchestrationAsync GetOrchestrationStateAsync GetOrchestrationHistoryAsync
PurgeOrchestrationHistoryAsync PurgeInstanceStateAsync GetOrchestrationWithQueryAsync DeletedInstanceCount IsComplete
RuntimeStatus CreatedTimeFrom CreatedTimeTo TaskHubNames PageSize ContinuationToken InstanceIdPrefix
FetchInputsAndOutputs ExcludeEntities
""")


def classes():
    """All classes of the package, by name."""
    found = {}
    for info in pkgutil.walk_packages(durabletask_sql.__path__, "durabletask_sql."):
        if "__main__" not in info.name and ".demo" not in info.name and "_migrations" not in info.name:
            module = importlib.import_module(info.name)
            found.update(inspect.getmembers(module, inspect.isclass))
    return found


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_of_the_reference_has_a_row(member):
    rows = [line for line in TABLE.splitlines() if line.startswith("| ") and member in line.split("|")[1]]
    assert rows, member
    assert all(line.split("|")[2].strip() for line in rows)


def test_what_the_table_names_is_there():
    """`Class.member` of any class, `module.path.name`, or a method of what clients call."""
    known, unknown = classes(), []
    for token in re.findall(r"`([\w.]+)`", TABLE.partition("\n## ")[2]):
        head, _, member = token.rpartition(".")
        if not head:
            there = token in known or hasattr(known["OrchestrationService"], token) or hasattr(known["Host"], token)
        elif head in known:
            there = hasattr(known[head], member) or member in getattr(known[head], "__dataclass_fields__", {})
        else:
            there = exists(token)
        if not there:
            unknown.append(token)
    assert unknown == []


def exists(path):
    """Tell whether the package has a module of this path, or a module with that name in it."""
    try:
        importlib.import_module(f"durabletask_sql.{path}")
    except ModuleNotFoundError:
        head, _, member = path.rpartition(".")
        return bool(head) and hasattr(importlib.import_module(f"durabletask_sql.{head}"), member)
    return True
