"""What the control plane and the data plane agree on: task inputs, results, evidence, exit codes, names.

The only package that both planes import, and always by its own name: its modules are read through here. Standard
library and pydantic only; no I/O, no logic beyond parsing. JSON uses camelCase, so a result can be copied into a
Kubernetes status as it is.

    terms     names, limits and exit codes          tasks     what a verb is asked to do
    spec      parts of a VectorIndex's spec         results   what a verb answers
    model     the base of everything on the wire    evidence  what a searcher's admin port tells and takes
"""

from .evidence import (
    BUCKET_SECONDS,
    DEADLINE_FLOOR_SECONDS,
    FEEDBACK_SECONDS,
    LATENCY_BIN_RATIO,
    RING_SECONDS,
    Evidence,
    EvidenceBucket,
    LeaseState,
    TrafficLease,
)
from .model import Model
from .results import BuildResult, Failure, OperatingPoint, ResolveResult, SegmentRecall, ValidateResult
from .spec import (
    MEMORY_PATTERN,
    S3,
    Columns,
    Device,
    Embedding,
    IndexSpec,
    Location,
    Metric,
    Minimise,
    Objective,
    QueryColumns,
    RecallGate,
    SearchParamName,
    SearchParamValue,
    memory_bytes,
)
from .tasks import BuildTask, Identity, ResolveTask, ServeTask, ValidateTask
from .terms import (
    ADMIN_PORT,
    CANARY_TOLERANCE,
    DRAIN_SECONDS,
    FORMAT_VERSION,
    HTTP_PORT,
    KEEP_ALIVE_SECONDS,
    METRICS_PORT_ENV,
    OTHER_SEGMENT,
    RESULT_LIMIT_BYTES,
    REVISION_HEADER,
    SEGMENT_QUERIES,
    TASK_ENV,
    TERMINATION_LOG_ENV,
    TOMBSTONE_POLL_SECONDS,
    ExitCode,
)

__all__ = [
    "ADMIN_PORT",
    "BUCKET_SECONDS",
    "CANARY_TOLERANCE",
    "DEADLINE_FLOOR_SECONDS",
    "DRAIN_SECONDS",
    "FEEDBACK_SECONDS",
    "FORMAT_VERSION",
    "HTTP_PORT",
    "KEEP_ALIVE_SECONDS",
    "LATENCY_BIN_RATIO",
    "MEMORY_PATTERN",
    "METRICS_PORT_ENV",
    "OTHER_SEGMENT",
    "RESULT_LIMIT_BYTES",
    "REVISION_HEADER",
    "RING_SECONDS",
    "S3",
    "SEGMENT_QUERIES",
    "TASK_ENV",
    "TERMINATION_LOG_ENV",
    "TOMBSTONE_POLL_SECONDS",
    "BuildResult",
    "BuildTask",
    "Columns",
    "Device",
    "Embedding",
    "Evidence",
    "EvidenceBucket",
    "ExitCode",
    "Failure",
    "Identity",
    "IndexSpec",
    "LeaseState",
    "Location",
    "Metric",
    "Minimise",
    "Model",
    "Objective",
    "OperatingPoint",
    "QueryColumns",
    "RecallGate",
    "ResolveResult",
    "ResolveTask",
    "SearchParamName",
    "SearchParamValue",
    "SegmentRecall",
    "ServeTask",
    "TrafficLease",
    "ValidateResult",
    "ValidateTask",
    "memory_bytes",
]
