"""Whether an upload from this machine can go well: looked at before a long run, line by line, each with a remedy.

`looking` makes observations and awaits; `judging` says what they mean and does not. No device is ever sent.
"""

from moe_bulk.doctor.findings import Finding as Finding
from moe_bulk.doctor.findings import Worth as Worth
from moe_bulk.doctor.looking import examine as examine
from moe_bulk.doctor.telling import as_json as as_json
from moe_bulk.doctor.telling import as_text as as_text
from moe_bulk.doctor.telling import closing as closing
from moe_bulk.doctor.telling import exit_code as exit_code
