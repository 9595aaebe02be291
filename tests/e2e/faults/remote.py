"""What is wrong with shards behind an address, with the way to them, and with the cache."""

from __future__ import annotations

from tests.e2e.faults.fault import Fault
from tests.e2e.faults.given import TRAIN

REMOTE = [
    Fault(
        what="no shards at the address",
        command=TRAIN + " --data.index file://{tmp}/nowhere",
        message="file://{tmp}/nowhere/index.json: not there (FileNotFoundError: ...); "
        "check the address and what it holds",
        fix="as it says",
    ),
    Fault(
        what="no such protocol",
        command=TRAIN + " --data.index pipe://cat",
        message="pipe://cat: ValueError: Protocol not known: pipe; "
        "give a folder, or an address such as https://, s3://, gs://, hf:// or file://",
        fix="as it says; nothing of an address is ever run",
    ),
    Fault(
        what="a protocol without its package",
        command="`s3://bucket/shards` without s3fs, `https://...` without aiohttp",
        message="s3://bucket/shards: a package is missing for s3:// (ImportError: ...); install it with pip",
        fix="as it says",
        test="test_remote.py::test_a_protocol_without_its_package",
    ),
    Fault(
        what="a bad connection",
        command="a server that drops, delays, truncates, refuses for a while",
        message="{url}/test-000000.tar: try 1 of 6 failed: 15872 of 31744 bytes came; again in ... s",
        fix="nothing",
        then="a line on stderr for each failed try, with growing pauses between; the numbers are those of local shards",
        test="test_remote.py::test_a_bad_connection",
    ),
    Fault(
        what="a remote shard stays away",
        command="a server that always drops one tar",
        message="{url}/test-000000.tar: stays away: 6 tries in ... s, the last: 15872 of 31744 bytes came; "
        "once that is mended, the same command goes on",
        fix="as it says",
        then="exit 2; checkpoints stay, nothing of the shard is kept",
        test="test_remote.py::test_a_remote_shard_that_is_not_to_be_had",
    ),
    Fault(
        what="a remote shard is another",
        command="a tar of the right length and with other bytes on the server",
        message="{url}/test-000000.tar: stays away: 6 tries in ... s, the last: what came is not what the index names "
        "(sha256 differs); once that is mended, the same command goes on",
        fix="copy the folder to the server again",
        then="exit 2; not a byte of it is used",
        test="test_remote.py::test_a_remote_shard_that_is_not_to_be_had",
    ),
    Fault(
        what="a remote shard is missing",
        command="a tar that is not on the server",
        message="{url}/test-000000.tar: not there (FileNotFoundError: ...); check the address and what it holds",
        fix="copy the folder to the server again",
        then="exit 2, after one try",
        test="test_remote.py::test_a_remote_shard_that_is_not_to_be_had",
    ),
    Fault(
        what="disk full while shards are fetched",
        command="a cache on a disk with too little space",
        message="{file}: cannot be written (...); free space there, or set WSOL_CACHE to another folder, "
        "WSOL_CACHE_GIB to keep it small",
        fix="as it says",
        then="exit 2, after one try; nothing half-fetched stays",
        test="test_remote.py::test_a_cache_on_a_full_disk",
    ),
    Fault(
        what="a limit of the cache that is none",
        command="`WSOL_CACHE_GIB=many`",
        message="WSOL_CACHE_GIB: 'many' given; a number of GiB above 0 is needed, or leave it out",
        fix="as it says",
        test="test_remote.py::test_a_limit_of_the_cache",
    ),
]
