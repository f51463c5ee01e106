"""The composition root: the one place that knows every part of a host."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from durabletask_sql.clock import SystemClock
from durabletask_sql.dispatch.dispatcher import Dispatcher, DispatcherSettings
from durabletask_sql.dispatch.ownership import LeaseSettings
from durabletask_sql.ids import new_host_id
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.leases import HostIdentity
from durabletask_sql.ports.work import WorkBoard

