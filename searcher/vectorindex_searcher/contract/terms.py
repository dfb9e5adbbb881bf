"""Names, limits and exit codes that both planes know."""

from __future__ import annotations

from enum import IntEnum

FORMAT_VERSION = 1
"""Version of the artifact layout and of manifest.json. Part of every revision's digest."""

HTTP_PORT = 8080
ADMIN_PORT = 8081
REVISION_HEADER = "X-VectorIndex-Revision"
IGNORED_PARAMS_HEADER = "X-VectorIndex-Ignored-Params"
"""Of an answer to a query that named search parameters which this index has not: their names."""
FILTERED_HEADER = "X-VectorIndex-Filtered"
"""Of a binary answer to a query with a filter: how many rows it left, and how they were searched (rows=12;
search=Exact)."""
FRESH_HEADER = "X-VectorIndex-Fresh"
"""Of an answer that holds fresh rows beside the artifact's: the number of their snapshot."""
RERANKED_HEADER = "X-VectorIndex-Reranked"
"""Of an answer that a cross-encoder was to reorder: true, or false where it has the order of its vectors."""
_OF_A_LAYER = ("nprobe", "efSearch", "k_factor", "max_codes")
SEARCH_PARAMS = (*_OF_A_LAYER, *(f"quantizer_{name}" for name in _OF_A_LAYER))
"""Search parameters that some kind of index has, by FAISS's names. A query may name each of them at every index: the
next revision may be of another kind, and a switch must not turn queries into errors."""
TASK_ENV = "VECTORINDEX_TASK"
"""Environment variable that holds a task as JSON (ResolveTask, BuildTask, ValidateTask, ServeTask or CollectTask)."""
PARAM_LIMITS_ENV = "VECTORINDEX_PARAM_LIMITS"
"""Environment variable of a searcher with ParamLimits as JSON; absent: queries may name any parameter. Not part of the
task, because it is never frozen, and because a searcher from before it must not refuse its task."""
POLICIES_FILE = "policies.json"
"""In a folder of tokens: which rows each of them may see (serve/search/policies.py), and never a token itself."""
ENCODER_ROWS = 200
"""That the gate encodes anew, at most."""
ENCODER_COSINE = 0.99
"""A row whose vector is nearer than this to what the encoder makes of its text was made by the same model."""
ENCODER_DEVIATING = 0.05
"""Share of rows that may deviate: texts are cleaned, cut and changed after they were embedded."""
ENCODER_NORM = 0.01
"""How far the lengths of vectors may be from those of the index, where they matter: no cosine sees a normalisation that
was forgotten."""
ENCODER_ENV_PREFIX = "VECTORINDEX_ENCODER_"
RERANKER_ENV_PREFIX = "VECTORINDEX_RERANKER_"
"""Before the names of the variables with the keys of the place that an encoder is fetched from, or with TOKEN and
CA_PEM of the endpoint that encodes."""
CACHE_BYTES_ENV = "VECTORINDEX_CACHE_BYTES"
"""How much the artifacts in a searcher's cache may take together."""
PROCESSES_ENV = "VECTORINDEX_PROCESSES"
"""Environment variable of a searcher: how many processes answer its users; absent: one. Not part of the task, because
it follows the resources, and because a searcher from before it must not refuse its task."""
COLUMNS_BEFORE_ENV = "VECTORINDEX_COLUMNS_BEFORE"
"""Environment variable of a searcher: the metadata columns of the revision before it, as a JSON object of names and
letters of COLUMN_TYPES; absent: it is not known what that one had. Not part of the task, because it is no part of what
is served, and because a searcher from before it must not refuse its task."""
MOST_PROCESSES = 32
"""Of a pod: beyond so many cores two pods are better, each of which can be lost."""
METRICS_PORT_ENV = "VECTORINDEX_METRICS_PORT"
"""Environment variable with the port on which `build` serves metrics while it runs; absent or 0: none."""
TERMINATION_LOG_ENV = "VECTORINDEX_TERMINATION_LOG"
"""Where a verb writes its result or failure (at most 4 KiB of JSON); default /dev/termination-log when that exists."""
RESULT_LIMIT_BYTES = 4096
OTHER_SEGMENT = "other"
"""Evidence of queries that name no declared segment. Never a declared segment's name."""
SEGMENT_QUERIES = 300
"""A segment is judged on this many queries at least, and has a point of its own when as many more can tune it."""
FEWEST_QUERIES = 60
"""A class of queries with fewer is reported, not judged, and asks for no wider search."""
SAME_AS_A_ROW = "same as a row"
"""The class of given queries that equal a row ("more like this"): easier than others, so never mixed with them. No
declared segment can have this name."""
LIVE_QUERIES = "live queries"
"""The class of what stable's users asked; no declared segment can have this name."""
LIVE_SAME_AS_A_ROW = "live queries, same as a row"
"""Those of them that equal a row, apart for the same reason."""
WITH_A_FILTER = "with a filter"
"""The class of given queries that have one. They are searched in another way, so never mixed with the rest; no declared
segment can have this name."""
ASKED_KS = (1, 10, 100)
"""k that every build asks the gate's rows for. Separately: the first 10 of 100 are not what k = 10 answers where codes
are refined."""
FEW_QUERIES = 500
"""Fewer rows than this to judge with: the source is too small to prove much of an approximate index."""
CANARY_TOLERANCE = 0.005
"""A pod is ready when its canary recall is at least the recall `validate` measured on the same queries, minus this."""
DRAIN_SECONDS = 30
"""Upper bound of the time in-flight queries get after SIGTERM."""
TOMBSTONE_POLL_SECONDS = 300.0
"""How often deleted ids are listed where nobody says it."""
KEEP_ALIVE_SECONDS = 30.0
"""Age at which a connection is closed after its answer (jittered): a Service switch does not move open connections."""


class ExitCode(IntEnum):
    """Exit codes of the verbs; `podFailurePolicy` and the operator read them."""

    OK = 0
    BELOW_FLOOR = 3
    """`validate --floor` on a laptop: measured, and the floor is not proven. In the cluster the operator judges."""
    BAD_SPEC = 64
    BAD_DATA = 65
    SOURCE_MISSING = 66
    STORE_UNAVAILABLE = 69
    BUG = 70
    RETRY = 75
    MEMORY = 137
