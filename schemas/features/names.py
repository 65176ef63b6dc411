"""The names of features: the reserved ones, the suffixes that the pipeline adds, and what a name may be."""

import keyword
import re

from ndr_client.served import EXCLUDE, WHERE, K

CANDIDATE_ID = "candidate_id"
QUERY_ID = "query_id"
TIMESTAMP = "timestamp"
REWARD = "reward"
TITLE = "title"
EVENT_KIND = "event_kind"
SEEN_THROUGH = "seen_through"
RESERVED = (CANDIDATE_ID, QUERY_ID, TIMESTAMP, REWARD, TITLE, SEEN_THROUGH, K, EXCLUDE, WHERE)
"""Features of every interaction besides the declared ones: the raw item id, the raw user id, the time (int64, microseconds since
1970-01-01 UTC) and the example weight in [0, 1]; with kinds of events also `EVENT_KIND`. A catalogue entry has its title; a row of
an earlier table has the last day that sees it (`components.example_gen.point_in_time`); a request to the retriever has the number
of items, the items to exclude, and the conditions to meet."""

WEIGHTS_SUFFIX = "_weights"
FINGERPRINT_SUFFIX = "_fingerprint"
AGES_SUFFIX = "_ages"
NAME_EXPECTED = (
    "expected a name of the letters a to z, digits and underscores, starting with a letter, and not a Python keyword"
)


def is_name(name: str) -> bool:
    """Return whether TensorFlow accepts it as a signature's argument and a scope; the pipeline's names begin with an underscore."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is not None and not keyword.iskeyword(name)
