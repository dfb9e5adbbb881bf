"""What a person typed, for the field of the spec that a failure blames: a laptop has flags where a cluster has YAML.

Only words: which flags there are is flags.py's business.
"""

from __future__ import annotations

import re

from ..contract import Failure

_ARTIFACTS = "artifacts"
_WRITING = ("resolve", "partition", "build")
_OF = r"spec\.(source(\.tombstones|\.fresh)?|gate\.queries|artifacts|embedding\.encoder\.onnx|searcher\.rerank\.onnx)"
_S3, _AZURE, _GCS = rf"{_OF}\.s3", rf"{_OF}\.azure", rf"{_OF}\.gcs"
_BUCKETS = rf"({_S3}|{_AZURE}|{_GCS})"
_PLACE = (
    r"(\.(s3|gcs)(\.bucket|\.prefix)?|\.azure(\.account|\.container|\.prefix)?|\.volume(\.claimName|\.path)?|\.folder)?"
)
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_AZURE_KEYS = "AZURE_STORAGE_ACCOUNT_KEY and AZURE_STORAGE_SAS_TOKEN"
FLAGS: tuple[tuple[str, str], ...] = (
    (r"spec\.source\.columns\.id", "--id-column"),
    (r"spec\.searcher\.memoryPerShard", "--memory-per-shard"),
    (r"spec\.index\.shards", "--shards"),
    (r"spec\.source\.columns\.vector", "--vector-column"),
    (r"spec\.source\.columns\.text", "--text-column"),
    (r"spec\.source\.columns\.metadata", "--metadata"),
    (rf"Name a Secret with keys in {_S3}\.secretRef", f"Set the variables {_KEYS}"),
    ("the Secret or ServiceAccount it takes credentials from", f"the variables {_KEYS}"),
    (rf"Name a Secret with keys in {_AZURE}\.secretRef", f"Set one of the variables {_AZURE_KEYS}"),
    (rf"Name a Secret with keys in {_GCS}\.secretRef", "Set the variable GOOGLE_SERVICE_ACCOUNT_KEY"),
    (rf"{_BUCKETS}\.anonymous: true", "--anonymous"),
    (rf"{_BUCKETS}\.endpoint", "--endpoint"),
    (rf"{_S3}\.region", "--region"),
    (rf"spec\.source\.tombstones{_PLACE}", "--tombstones"),
    (rf"spec\.source\.fresh{_PLACE}", "--fresh"),
    (rf"spec\.source{_PLACE}", "--source"),
    (r"spec\.gate\.queries\.columns\.relevant", "--relevant-column"),
    (r"spec\.gate\.queries\.columns", "--query-vector-column"),
    (r"spec\.gate\.queries\.filterColumn", "--filter-column"),
    (r"spec\.gate\.queries\.textColumn", "--query-text-column"),
    (rf"spec\.gate\.queries{_PLACE}", "--queries"),
    (r"(spec\.)?embedding\.dimension", "--dimension"),
    (r"spec\.embedding\.metric", "--metric"),
    (r"spec\.index\.factory", "--factory"),
    (r"spec\.index\.searchParams\.", "--search-params "),
    (r"spec\.index\.searchParams", "--search-params"),
    (r"spec\.index\.objective\.memoryLimit", "--memory-limit"),
    (r"spec\.index\.objective\.recall", "--recall"),
    (r"spec\.index\.objective\.minimise", "--minimise"),
    (r"spec\.index\.effort", "--effort"),
    (r"spec\.index\.import\.ids", "--import-ids"),
    (r"(spec\.)?index\.import", "--import-index"),
    (r"spec\.embedding\.encoder\.onnx\.sha256", "--encoder-sha256"),
    (r"spec\.embedding\.encoder\.endpoint(\.url)?", "--encoder-url"),
    (r"spec\.embedding\.encoder\.textColumn", "--text-column"),
    (rf"spec\.embedding\.encoder\.onnx{_PLACE}", "--encoder"),
    (r"spec\.searcher\.rerank\.onnx\.sha256", "--rerank-sha256"),
    (r"spec\.searcher\.rerank\.textColumn", "--rerank-column"),
    (rf"spec\.searcher\.rerank\.onnx{_PLACE}", "--rerank"),
    (r"spec\.build\.device", "--device"),
    (r"spec\.(build|searcher)\.resources(\.limits\.memory)?", "the memory limit of this process"),
    (rf"spec\.artifacts{_PLACE}", _ARTIFACTS),
)
"""Pattern of a field and what is written for it, longer fields first."""


def for_a_person(failure: Failure, verb: str) -> Failure:
    """The failure with flags of `verb` (build, validate ...) in place of the fields of the spec."""

    def said(text: str | None) -> str | None:
        for pattern, flag in FLAGS if text else ():
            named = (
                flag
                if flag is not _ARTIFACTS
                else "--out"
                if verb in ("resolve", "build", "partition")
                else "--artifact"
            )
            text = re.sub(rf"(?<![\w.]){pattern}(?!\w)" if flag[-1] != " " else pattern, named, text or "")
        return text

    words = {name: said(getattr(failure, name)) for name in ("message", "field", "remedy")}
    return failure.model_copy(update=words)
