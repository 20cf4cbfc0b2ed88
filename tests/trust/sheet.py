"""The sheet of bad input: 37 kinds of it, each with what is sent and how the service answers."""

import gzip
import json
import struct
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from random import Random

import numpy as np

from tests.codecs.wire import npy_described, npy_file, safetensors_described, safetensors_raw
from tests.running import Service
from tests.trust.asking import AUTHORIZED, JSON, KEY, Ask, Wire, wire
from tests.trust.ground import BODY_MIB, SMALL, busy, full
from tests.trust.requests import FILE, NPY, RAW, adapter, adopt, create, forward, get, infer, train

MIB = 2**20
NOBODY, NO_JOB = f"mdl_{'0' * 26}", f"job_{'0' * 26}"
HEAD = f"Host: localhost\r\nAuthorization: {AUTHORIZED['Authorization']}\r\n".encode()
POST = b"POST /models HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /models HTTP/1.1\r\n" + HEAD


@dataclass(frozen=True)
class Row:
    """One kind of bad input. Without a slug the answer is a good one."""

    number: int
    what: str
    request: Ask | Wire
    status: int
    slug: str = ""
    says: str = ""  # in the answer
    facts: tuple[str, ...] = ()  # members that the problem has besides those of all
    counted: int = 1  # requests that come as far as the app; else the parser of HTTP answers
    changes: Mapping[str, int] = field(default_factory=dict)
    meanwhile: Callable[[Service], AbstractContextManager[None]] = lambda service: nullcontext()


MODEL = {"in_features": 3, "out_features": 2, "rank": 1}
INLINE = {"kind": "inline", "x": [[1, 2, 3]] * 2, "y": [[1, 2]] * 2}
GOOD = adapter()
NAN = GOOD[:-4] + struct.pack("<f", np.nan)
A_FLOAT = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
EVIL = "https://evil.example"

SHEET = [
    # 1: an empty body, or what is no object
    Row(1, "no body", create(b""), 422, "validation", "empty"),
    Row(1, "{}", create({}), 422, "validation", '"pointer":"/in_features"'),
    Row(1, "null", create(None), 422, "validation", "must be an object"),
    Row(1, "[]", create([]), 422, "validation", "must be an object"),
    Row(1, '"x"', create("x"), 422, "validation", "must be an object"),
    Row(1, "{} as a sweep", Ask("POST", "/sweeps", b"{}"), 422, "validation", '"pointer":"/'),
    Row(1, "no file as a data set", Ask("POST", "/datasets", b"", FILE), 422, "bad-safetensors"),
    Row(1, "no file as a base", Ask("POST", "/bases", b"", FILE), 422, "bad-safetensors"),
    # 2: broken JSON
    Row(2, "a comma too many", create(b'{"in_features": 64,}'), 400, "malformed-json", "byte 19"),
    Row(2, "trailing text", create(b"{} x"), 400, "malformed-json", "byte 3"),
    Row(2, "a byte order mark", create(b"\xef\xbb\xbf{}"), 400, "malformed-json", "byte 0"),
    Row(2, "invalid UTF-8", create(b'{"name": "\xff"}'), 400, "malformed-json", "byte"),
    Row(2, "a lone surrogate", create(b'{"name": "\\ud800"}'), 400, "malformed-json", "byte"),
    Row(2, "cut short", create(b'{"in_features": 6'), 400, "malformed-json", "byte"),
    # 3: nested beyond 100
    Row(3, "101 arrays", forward(b"[" * 101 + b"]" * 101), 400, "too-deep", "101 deep"),
    Row(3, "1,000 objects", create(b'{"a":' * 1_000 + b"1" + b"}" * 1_000), 400, "too-deep"),
    Row(3, "250,000 arrays", create(b"[" * 250_000 + b"]" * 250_000), 400, "too-deep"),
    Row(3, "250,000 objects", forward(b'{"a":' * 250_000 + b"1" + b"}" * 250_000), 400, "too-deep"),
    # 4: another Content-Type
    Row(4, "none", create(MODEL, Content_Type=None), 415, "unsupported-media-type", "there is no Content-Type"),
    Row(4, "text/plain", create(MODEL, Content_Type="text/plain"), 415, "unsupported-media-type"),
    Row(4, "a pickle", forward(b"\x80\x04.", {"Content-Type": "application/vnd.python.pickle"}), 415,
        "unsupported-media-type"),
    Row(4, "a form", forward(b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}), 415,
        "unsupported-media-type"),
    Row(4, "multipart", create(b"--a--", Content_Type="multipart/form-data; boundary=a"), 415,
        "unsupported-media-type"),
    Row(4, "JSON as a base", Ask("POST", "/bases", b"{}"), 415, "unsupported-media-type", "application/x-safetensors"),
    # 5: an Accept that nobody can meet
    Row(5, "for a model", create(MODEL, Accept="image/png"), 406, "not-acceptable"),
    Row(5, "for outputs", forward({"inputs": [1, 2, 3]}, {**JSON, "Accept": "image/png"}), 406, "not-acceptable"),
    Row(5, "for events", get("/jobs/{job}/events", Accept="image/png"), 406, "not-acceptable"),
    # 6: a body beyond the limit
    Row(6, "one byte, by Content-Length", forward(b" " * (BODY_MIB * MIB + 1)), 413, "too-large", facts=("limit",)),
    Row(6, "one byte, in chunks", wire(CHUNKED, *[b"100000\r\n" + b" " * MIB + b"\r\n"] * BODY_MIB, b"1\r\n \r\n"),
        413, "too-large", facts=("limit",)),
    Row(6, "a length that is a lie", wire(POST + b"Content-Length: %d\r\n\r\n{" % (2**40)), 413, "too-large"),
    # 7: a compressed body; what the others would inflate to is not found out
    Row(7, "gzip", create(gzip.compress(b" " * 2**24), Content_Encoding="gzip"), 415, "unsupported-encoding"),
    Row(7, "zstd", create(b"\x28\xb5\x2f\xfd", Content_Encoding="zstd"), 415, "unsupported-encoding"),
    Row(7, "br", create(b"\x1b", Content_Encoding="br"), 415, "unsupported-encoding"),
    # 8: a flood of little things
    Row(8, "65,537 chunks of a byte", wire(CHUNKED, b"1\r\n \r\n" * 65_537), 400, "unreadable"),
    Row(8, "100,000 headers", wire(GET, *[b"X: 1\r\n" * 1_000] * 100), 431, "headers-too-large", counted=0),
    Row(8, "a header of 1 MiB", wire(GET + b"X: ", *[b"x" * 65_536] * 16), 431, "headers-too-large", counted=0),
    Row(8, "an address of 1 MiB", wire(b"GET /", *[b"x" * 65_536] * 16), 414, "uri-too-long", counted=0),
    Row(8, "NUL in the address", wire(b"GET /models/\0 HTTP/1.1\r\n" + HEAD + b"\r\n"), 400, "unreadable", counted=0),
    # 9: lengths that are none; one that is merely huge is refused by the app
    Row(9, "negative", wire(POST + b"Content-Length: -1\r\n\r\n"), 400, "unreadable", counted=0),
    Row(9, "99999999999", wire(POST + b"Content-Length: 99999999999\r\n\r\n"), 413, "too-large", "99999999999"),
    Row(9, "twice", wire(POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx"), 400, "unreadable", counted=0),
    Row(9, "and chunks", wire(POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400,
        "unreadable", counted=0),
    # 10: numbers that are not finite
    Row(10, "NaN in data", forward(b'{"inputs": [1, NaN, 3]}'), 422, "non-finite", "inputs[1]"),
    Row(10, "Infinity in data", forward(b'{"inputs": [1, 2, Infinity]}'), 422, "non-finite", "inputs[2]"),
    Row(10, "-Infinity in data", forward(b'{"inputs": [[1, 2, -Infinity]]}'), 422, "non-finite", "inputs[0][2]"),
    Row(10, "1e400 in data", forward(b'{"inputs": [1e400, 2, 3]}'), 422, "non-finite", "inputs[0]"),
    Row(10, "beyond float32", forward(b'{"inputs": [1e39, 2, 3]}'), 422, "non-finite", "inputs[0]"),
    Row(10, "NaN in words in data", forward({"inputs": ["NaN", 2, 3]}), 422, "non-finite", "inputs[0]"),
    Row(10, "NaN in bytes", forward(np.full(3, np.nan, "<f4").tobytes(), RAW), 422, "non-finite", "inputs[0][0]"),
    Row(10, "NaN to learn", train(b'{"data":{"kind":"inline","x":[[1,2,NaN]],"y":[[1,2]]}}'), 422, "non-finite"),
    Row(10, "NaN as lr", train(b'{"lr": NaN}'), 422, "non-finite", '"pointer":"/lr"'),
    Row(10, "1e400 as alpha", create(b'{"in_features":3,"out_features":2,"alpha":1e400}'), 422, "non-finite"),
    Row(10, "Infinity as alpha", create(b'{"in_features":3,"out_features":2,"alpha":Infinity}'), 422, "non-finite"),
    Row(10, "NaN in words as alpha", create({**MODEL, "alpha": "NaN"}), 422, "non-finite", '"pointer":"/alpha"'),
    # 11: another kind of value; 7.0 is no integer either
    *(
        Row(11, f"{given!r} where an integer stands", create({**MODEL, "rank": given}), 422, "validation", "integer")
        for given in (True, "7", 1.5, 7.0)
    ),
    Row(11, "a string where a number stands", train({"lr": "0.1"}), 422, "validation", "must be a number"),
    Row(11, "1 where true stands", create({**MODEL, "bias": 1}), 422, "validation", "true or false"),
    Row(11, "a string in data", forward({"inputs": [1, "2", 3]}), 422, "validation", "inputs[1]"),
    Row(11, "true in data", forward({"inputs": [1, 2, True]}), 422, "validation", "inputs[2] is true"),
    # 12: sizes out of bounds
    *(
        Row(12, f"in_features {size}", create({**MODEL, "in_features": size}), 422, "limit-exceeded", str(size))
        for size in (0, -1, 2**31, 2**63, 2**64 + 1)
    ),
    Row(12, "5,000 digits", create(b'{"in_features": ' + b"9" * 5_000 + b"}"), 400, "malformed-json", "out of range"),
    Row(12, "rank 1,025", create({**MODEL, "rank": 1_025}), 422, "limit-exceeded", "at most 1024"),
    # 13: products that leave 64 bits
    Row(13, "Triton's pair", infer([2**4, 2**60 + 2], [1.0]), 422, "limit-exceeded", "at most 2147483648"),
    Row(13, "the product", infer([2**31, 2**31, 2**31, 3], [1.0]), 422, "shape-mismatch"),
    Row(13, "the bytes of a npy file", forward(npy_described("(4611686018427387904, 3)"), NPY), 422, "shape-mismatch"),
    Row(13, "the bytes of a safetensors file", forward(safetensors_described(
        bytes(32), inputs=("F32", [2**4, 2**60 + 2], [0, 32])), FILE), 422, "bad-safetensors"),
    # 14: a layer that is too large; nothing is allocated
    Row(14, "16 GiB", create({"in_features": 65_536, "out_features": 65_536}), 422, "limit-exceeded",
        facts=("bytes_needed", "bytes_allowed")),
    # 15: what there is no room for now; the client retries no 409
    Row(15, "beyond the memory", create({"in_features": 8_192, "out_features": 4_096}), 409, "capacity-exhausted",
        "LORA_MEMORY_MIB", ("in_use", "limit")),
    Row(15, "one model more than may be", create(MODEL), 409, "capacity-exhausted", "LORA_MAX_MODELS",
        ("in_use", "limit"), meanwhile=full),
    # 16: a layer's settings out of range
    Row(16, "rank 0", create({**MODEL, "rank": 0}), 422, "validation", "at least 1"),
    Row(16, "rank above a size", create({**MODEL, "rank": 3}), 422, "validation", "min(in_features, out_features) = 2"),
    Row(16, "alpha 0", create({**MODEL, "alpha": 0}), 422, "validation", "above 0"),
    Row(16, "alpha -1", create({**MODEL, "alpha": -1}), 422, "validation", "above 0"),
    Row(16, "dropout 1", create({**MODEL, "dropout": 1.0}), 422, "validation", "below 1"),
    Row(16, "dropout -0.1", create({**MODEL, "dropout": -0.1}), 422, "validation", "at least 0"),
    # 17: data that is not of its shape
    Row(17, "5 numbers as 2 × 3", infer([2, 3], [1.0] * 5), 422, "shape-mismatch", "must be [2, 3]"),
    Row(17, "7 numbers as 2 × 3", infer([2, 3], [1.0] * 7), 422, "shape-mismatch", "has shape [7]"),
    Row(17, "ragged rows", forward({"inputs": [[1, 2, 3], [1]]}), 422, "shape-mismatch", "inputs[1] is 1 long"),
    Row(17, "a million empty rows", forward(b'{"inputs": [' + b"[]," * 999_999 + b"[]]}"), 422, "shape-mismatch"),
    # 18: hundreds of thousands of faults
    Row(18, "300,000 wrong elements", forward(b'{"inputs": [' + b'"x",' * 299_999 + b'"x"]}'), 422, "validation"),
    Row(18, "300,000 wrong classes", train(b'{"data":{"kind":"inline","x":[[1,2,3]],"y":[' + b'"x",' * 299_999
        + b'"x"]}}'), 422, "validation"),
    Row(18, "100,000 unknown fields", create({f"k{i}": 1 for i in range(100_000)}), 422, "limit-exceeded"),
    # 19: another width than the model's; no rows are as good as some
    Row(19, "4 numbers for 3", forward({"inputs": [1, 2, 3, 4]}), 422, "shape-mismatch", "in_features = 3"),
    Row(19, "a number alone", forward({"inputs": 1}), 422, "validation", "inputs is 1"),
    Row(19, "a tensor of rank 0", forward(npy_file(np.array(1, "<f4")), NPY), 422, "shape-mismatch"),
    Row(19, "no rows", infer([0, 3], []), 200, says='"shape":[0,2]'),
    Row(19, "no bytes", forward(b"", {**RAW, "Accept": "application/json"}), 200, says='"shape":[0,2]'),
    # 20: bytes that are not what the shape needs
    Row(20, "half a row", forward(bytes(8), RAW), 422, "shape-mismatch", "12"),
    Row(20, "half a number", forward(bytes(13), RAW), 422, "shape-mismatch"),
    Row(20, "a npy file cut short", forward(npy_file(np.ones((2, 3), "<f4"))[:-1], NPY), 422, "shape-mismatch"),
    Row(20, "integers", forward(npy_file(np.ones((2, 3), "<i4")), NPY), 422, "bad-npy", "<i4"),
    Row(20, "big-endian", forward(npy_file(np.ones((2, 3), ">f4")), NPY), 422, "bad-npy", ">f4"),
    Row(20, "Python objects", forward(npy_described("(1, 3)", "'|O'", bytes(24)), NPY), 422, "bad-npy", "|O"),
    # 21: fields that are none
    Row(21, "misspelt", create({"in_feature": 3, "out_features": 2}), 422, "validation", "did you mean in_features?"),
    Row(21, "PEFT's name", create({**MODEL, "r": 1}), 422, "validation", "did you mean rank?"),
    Row(21, "of nobody", create({**MODEL, "zzz": 1}), 422, "validation", "the fields are in_features"),
    Row(21, "one in data", train({"data": {"kind": "random", "samples": 3}}), 422, "validation", "n_samples?"),
    Row(21, "one in the address", get("/models?nme=digits"), 422, "validation", "did you mean name?"),
    Row(21, "one that is given twice", get("/jobs?state=failed&state=queued"), 422, "validation", "given 2 times"),
    # 22: a key twice
    Row(22, "in an object", create(b'{"rank":1,"rank":64}'), 422, "duplicate-key", "rank"),
    Row(22, "beside data", forward(b'{"inputs": [1, 2, 3], "inputs": [4, 5, 6]}'), 422, "duplicate-key", "inputs"),
    # 23: ids that are none; no file is opened on their account
    *(
        Row(23, what, get(f"/models/{id}"), 404, "not-found")
        for what, id in {
            "up": "../../etc/passwd", "up, encoded": "%2e%2e%2fetc%2fpasswd", "up, encoded twice": "%252e%252e%252f",
            "a backslash": "..%5c..%5cboot", "NUL, encoded": "mdl_%00", "an emoji": "%F0%9F%8E%88", "none": "",
            "another case": f"MDL_{'0' * 26}", "lower case": f"mdl_{'a' * 26}", "7 kB": "m" * 7_000,
        }.items()
    ),
    Row(23, "10 kB", get(f"/models/{'m' * 10_000}"), 414, "uri-too-long", counted=0),
    Row(23, "NUL", wire(b"GET /models/mdl_\0 HTTP/1.1\r\n" + HEAD + b"\r\n"), 400, "unreadable", counted=0),
    Row(23, "a backslash, bare", Ask("GET", "/jobs/..\\..\\boot"), 404, "not-found"),
    Row(23, "up among the page's files", get("/static/..%2f..%2fapp"), 404, "not-found"),
    # 24: what is not there
    Row(24, "a model", get(f"/models/{NOBODY}"), 404, "model-not-found"),
    Row(24, "a job", get(f"/jobs/{NO_JOB}"), 404, "job-not-found"),
    Row(24, "an address", get("/nothing"), 404, "not-found"),
    Row(24, "a deleted model", get("/models/{gone}"), 404, "model-not-found"),
    Row(24, "a deleted model's outputs", Ask("POST", "/models/{gone}/forward", b'{"inputs":[1,2,3]}'), 404,
        "model-not-found"),
    Row(24, "events of no job", get(f"/jobs/{NO_JOB}/events", Accept="text/event-stream"), 404, "job-not-found"),
    # 25: methods; those that HTTP does not know are the parser's
    Row(25, "PUT", Ask("PUT", "/models", b"{}"), 405, "method-not-allowed", "it knows GET, HEAD, POST"),
    Row(25, "DELETE", Ask("DELETE", "/limits"), 405, "method-not-allowed", "it knows GET, HEAD"),
    Row(25, "TRACE", Ask("TRACE", "/models/{model}"), 405, "method-not-allowed", "DELETE, GET, HEAD, PATCH"),
    Row(25, "CONNECT", wire(b"CONNECT localhost:1 HTTP/1.1\r\n" + HEAD + b"\r\n"), 400, "unreadable", counted=0),
    Row(25, "of nobody", wire(b"BREW /models HTTP/1.1\r\n" + HEAD + b"\r\n"), 400, "unreadable", counted=0),
    # 26: another name, or another's page
    Row(26, "Host", get("/models", Host="evil.example"), 400, "bad-host", "LORA_ALLOWED_HOSTS"),
    Row(26, "Host of a probe", get("/v2/health/live", Host="evil.example"), 200),
    *(
        Row(26, f"Origin, {method}", Ask(method, path, b"{}", {**JSON, "Origin": EVIL}), 403, "cross-origin")
        for method, path in {
            "POST": "/models", "PUT": "/models/{model}/adapter", "PATCH": "/models/{model}", "DELETE": "/models/{model}"
        }.items()
    ),
    # 27: keys; one of 1 MiB is more than a head may have
    *(
        Row(27, f"none, {method} {path}", Ask(method, path, headers={"Authorization": None}), 401, "unauthorized")
        for method, path in [("GET", "/models"), ("DELETE", "/models/{model}"), ("GET", "/metrics"), ("GET", "/x")]
    ),
    Row(27, "wrong", get("/models", Authorization=f"Bearer {KEY[:-1]}"), 401, "unauthorized"),
    Row(27, "of 8 kB", get("/models", Authorization=f"Bearer {KEY * 400}"), 401, "unauthorized"),
    Row(27, "in the address", get(f"/models?key={KEY}&token={KEY}", Authorization=None), 401, "unauthorized"),
    Row(27, "of 1 MiB", get("/models", Authorization=f"Bearer {'x' * MIB}"), 431, "headers-too-large", counted=0),
    # 28: the same request once more
    Row(28, "when it was answered", create(SMALL, Idempotency_Key="known"), 201, says="{answer}"),
    Row(28, "when its job has ended", train({"epochs": 1}, Idempotency_Key="known"), 200, says="{job}"),
    Row(28, "while it is under way", create(SMALL, Idempotency_Key="busy"), 409, "idempotency-in-flight",
        meanwhile=busy),
    # 29: keys for other requests, and keys that are none
    Row(29, "another body", create(MODEL, Idempotency_Key="known"), 422, "idempotency-mismatch"),
    Row(29, "empty", create(MODEL, Idempotency_Key=""), 400, "bad-idempotency-key"),
    Row(29, "10 kB", create(MODEL, Idempotency_Key="k" * 10_000), 400, "bad-idempotency-key", "10000 characters"),
    # 30: a change of what has changed
    Row(30, "PATCH", Ask("PATCH", "/models/{model}", b'{"name":"x"}', {**JSON, "If-Match": "{stale}"}), 412, "stale"),
    Row(30, "DELETE", Ask("DELETE", "/models/{model}", headers={"If-Match": "{stale}"}), 412, "stale"),
    Row(30, "an adapter", adopt(GOOD, If_Match="{stale}"), 412, "stale"),
    # 31: pages; a cursor is a place in a list, which does not expire
    Row(31, "a forged cursor", get("/models?cursor=WyJ6enoiLCJtb2RlbHMiLG51bGxd"), 400, "bad-cursor"),
    Row(31, "a cursor that is none", get("/models?cursor=%ff%00"), 400, "bad-cursor"),
    Row(31, "another list's cursor", get("/models?cursor={cursor}"), 400, "bad-cursor"),
    Row(31, "another filter's cursor", get("/jobs?state=failed&cursor={cursor}"), 400, "bad-cursor"),
    Row(31, "limit 0", get("/models?limit=0"), 422, "validation", "at least 1"),
    Row(31, "limit -1", get("/jobs?limit=-1"), 422, "validation", "at least 1"),
    Row(31, "limit 10^9", get("/jobs?limit=1000000000"), 422, "limit-exceeded", "at most 200"),
    # 32: runs that cannot be; all is checked before there is a job
    Row(32, "epochs 0", train({"epochs": 0}), 422, "validation", "at least 1"),
    Row(32, "epochs 10^9", train({"epochs": 10**9}), 422, "limit-exceeded", "at most 10000"),
    Row(32, "lr 0", train({"lr": 0}), 422, "validation", "above 0"),
    Row(32, "lr -1", train({"lr": -1}), 422, "validation", "above 0"),
    Row(32, "lr 1e30", train({"lr": 1e30}), 422, "limit-exceeded", "at most 1000000"),
    Row(32, "a batch above the rows", train({"batch_size": 3, "data": INLINE}), 422, "validation", "has 2 rows"),
    Row(32, "fewer targets than inputs", train({"data": {**INLINE, "y": [[1, 2]]}}), 422, "shape-mismatch"),
    Row(32, "fewer classes than inputs", train({"loss": "cross_entropy", "data": {**INLINE, "y": [1]}}), 422,
        "shape-mismatch"),
    Row(32, "no rows", train({"data": {**INLINE, "x": [], "y": []}}), 422, "validation", "no rows"),
    Row(32, "no random rows", train({"data": {"kind": "random", "n_samples": 0}}), 422, "validation", "at least 1"),
    # 33: a run that diverges is a job that failed, here waited for; it published nothing and tells its losses so far
    Row(33, "lr 10^6", train({"optimizer": "sgd", "lr": 1e6, "epochs": 100}, Prefer="wait=30"), 200,
        says='"state":"failed","reason":"diverged"', changes={"jobs": 1}),
    # 34: adapters that are none
    Row(34, "a header of 2^63 - 1", adopt(struct.pack("<Q", 2**63 - 1) + GOOD[8:]), 422, "bad-safetensors", "claims"),
    Row(34, "a header that is a list", adopt(safetensors_raw(b"[]")), 422, "bad-safetensors"),
    Row(34, "a hole", adopt(safetensors_described(bytes(24), **{
        "lora_A.weight": ("F32", [1, 3], [0, 12]), "lora_B.weight": ("F32", [2, 1], [16, 24])})), 422,
        "bad-safetensors"),
    Row(34, "an overlap", adopt(safetensors_described(bytes(16), **{
        "lora_A.weight": ("F32", [1, 3], [0, 12]), "lora_B.weight": ("F32", [2, 1], [8, 16])})), 422,
        "bad-safetensors"),
    Row(34, "bytes behind it", adopt(GOOD + b"\0"), 422, "bad-safetensors"),
    Row(34, "a name twice", adopt(safetensors_raw(f'{{"lora_A.weight":{A_FLOAT},"lora_A.weight":{A_FLOAT}}}'.encode(),
        bytes(4))), 422, "bad-safetensors"),
    Row(34, "a tensor too many", adopt(adapter(zzz=("F32", [0], [20, 20]))), 422, "bad-safetensors", "zzz"),
    Row(34, "a tensor too few", adopt(safetensors_described(bytes(12), **{"lora_A.weight": ("F32", [1, 3], [0, 12])})),
        422, "bad-safetensors", "lora_B"),
    Row(34, "integers", adopt(adapter(dtype="<i4")), 422, "bad-safetensors", "int32"),
    Row(34, "another width", adopt(adapter(a=(1, 4))), 422, "shape-mismatch"),
    Row(34, "another rank", adopt(adapter(a=(2, 3), b=(2, 2))), 422, "shape-mismatch"),
    Row(34, "NaN", adopt(NAN), 422, "non-finite"),
    Row(34, "cut in its header", adopt(GOOD[:20]), 422, "bad-safetensors"),
    Row(34, "cut in its data", adopt(GOOD[:-1]), 422, "bad-safetensors"),
    # 35: places in a stream that are none; a job numbers its events from 1, so another's number is one of them
    Row(35, "garbage", get("/jobs/{job}/events", Last_Event_ID="x" * 1_000), 200, says="id: 1\n"),
    Row(35, "below the log", get("/jobs/{job}/events", Last_Event_ID="-1"), 200, says="id: 1\n"),
    Row(35, "ahead of the log", get("/jobs/{job}/events", Last_Event_ID="9" * 18), 200, says="id: 1\n"),
    Row(35, "of another job", get("/jobs/{job}/events", Last_Event_ID="2"), 200, says="id: 3\n"),
    Row(35, "the last of a job that ended", get("/jobs/{job}/events", Last_Event_ID="{last}"), 204),
    # 36: texts; what is no fault is kept as it is, and tests/browser look that the page shows it as text
    Row(36, "a name of 10 kB", create({**MODEL, "name": "n" * 10_000}), 422, "validation", "256"),
    Row(36, "a bell", create({**MODEL, "name": "\a"}), 422, "validation", "control characters"),
    Row(36, "a line break in metadata", create({**MODEL, "metadata": {"a": "b\nc"}}), 422, "validation"),
    Row(36, "17 pairs", create({**MODEL, "metadata": dict.fromkeys(map(str, range(17)), "")}), 422, "validation",
        "at most 16"),
    *(
        Row(36, f"{name} is kept", create({"base_id": "{base}", "rank": 1, "name": name, "metadata": {"a": name}}), 201,
            says=json.dumps(name, ensure_ascii=False), changes={"models": 1})
        for name in ("<script>alert(1)</script>", "{{7*7}}", "\u202eabc")
    ),
    # 37: what is no HTTP
    *(
        Row(37, f"random bytes {seed}", wire(Random(seed).randbytes(512)), 400, "unreadable", counted=0)
        for seed in range(8)
    ),
    Row(37, "a TLS hello", wire(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)), 400, "unreadable",
        counted=0),
    Row(37, "HTTP/2", wire(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400, "unreadable", counted=0),
    Row(37, "1,000 GETs at once", wire((GET + b"\r\n") * 999 + GET + b"Connection: close\r\n\r\n"), 200, counted=1_000),
]  # fmt: skip
