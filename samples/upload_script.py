"""A script: deliver a file, print what became of it. Run it again after a stop, and it goes on.

    python samples/upload_script.py devices.csv

Where to and with which key comes from the environment: MOENGAGE_WORKSPACE_ID, MOENGAGE_API_KEY, MOENGAGE_DATA_CENTER.
"""

import sys

import moe_bulk

try:
    summary = moe_bulk.upload(sys.argv[1])
except moe_bulk.MoeBulkError as error:
    sys.exit(f"not finished: {error}")
for status, count in summary["counts"].items():
    print(f"{status:>10} {count:>8,}")
for failure in summary["failures"]:
    print(f"{failure['count']:,} of these: {failure['cause']}; {failure['remedy']}")
sys.exit(summary["exit_code"])
