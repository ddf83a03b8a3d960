"""Writes the sample inputs beside this file: `python samples/make_samples.py [FOLDER]`.

All of it is made up: ids, tokens and advertising ids are random, addresses are those reserved for documentation
(RFC 5737, RFC 3849). The seed is fixed, so the files come out the same each time; `tests/test_samples.py` holds them
to that.

* `devices.csv`, `devices.ndjson`: 300 clean rows each, as an app's own export has them.
* `messy.csv`, `messy.ndjson`: about 300 rows each, with everything that spreadsheets and careless exports do to them.
* `onesignal.csv`, `airship.ndjson`, `segment.ndjson`, `braze.ndjson`, `appmetrica.csv`, `batch.csv`,
  `moengage-export.ndjson`: some 20 rows each, as those services export them: one for each `--preset`.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import uuid
from pathlib import Path
from random import Random

ROWS = 300
HEADER = (
    "customer_id",
    "device_id",
    "platform",
    "push_id",
    "model",
    "app_version",
    "os_version",
    "moe_push_opted",
    "moe_push_provisional_opted",
    "moe_gaid",
    "idfv",
    "forwarded_for",
)
MODELS = {
    "ANDROID": (
        ("Pixel 9 Pro", "16"),
        ("Pixel 8a", "15"),
        ("SM-S928B", "15"),
        ("SM-A546E", "14"),
        ("Redmi Note 13", "14"),
        ("moto g54 5G", "13"),
        ("CPH2581", "15"),
    ),
    "iOS": (("iPhone17,1", "18.5"), ("iPhone16,2", "18.4.1"), ("iPhone14,5", "17.7"), ("iPad14,3", "18.5")),
    "web": (("Chrome", "137"), ("Safari", "18.4"), ("Firefox", "139"), ("Edge", "136")),
}
VERSIONS = ("7.31.0", "7.30.2", "7.30", "7.29.1", "6.110.4")
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def main() -> None:
    """Write all files into the folder that is named, or into this one."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, content in samples().items():
        (folder / name).write_bytes(content)
        print(f"{folder / name}: {len(content):,} bytes")


def samples() -> dict[str, bytes]:
    """Give the content of each file by its name."""
    return {
        "devices.csv": clean_csv(Devices(seed=1, first=1)),
        "devices.ndjson": clean_ndjson(Devices(seed=2, first=1001)),
        "messy.csv": messy_csv(Devices(seed=3, first=2001)),
        "messy.ndjson": messy_ndjson(Devices(seed=4, first=3001)),
        "onesignal.csv": onesignal(Devices(seed=5, first=4001)),
        "airship.ndjson": airship(Devices(seed=6, first=5001)),
        "segment.ndjson": segment(Devices(seed=7, first=6001)),
        "braze.ndjson": braze(Devices(seed=8, first=7001)),
        "appmetrica.csv": appmetrica(Devices(seed=9, first=8001)),
        "batch.csv": batch(Devices(seed=10, first=9001)),
        "moengage-export.ndjson": moengage_export(Devices(seed=11, first=10001)),
    }


class Devices:
    """Makes devices up: about half of them Android, a third iOS, the rest browsers; no two share an id or token."""

    def __init__(self, seed: int, first: int) -> None:
        self.random = Random(seed)
        self.number = first - 1

    def device(self) -> dict[str, str]:
        """Give the next one, with every field; an empty text where it has none."""
        random = self.random
        self.number += 1
        platform = random.choices(("ANDROID", "iOS", "web"), (50, 35, 15))[0]
        model, os_version = random.choice(MODELS[platform])
        ids = {
            "ANDROID": (f"{random.getrandbits(64):016x}", self.fcm_token()),
            "iOS": (self.uuid().upper(), f"{random.getrandbits(256):064x}"),
            "web": (self.uuid(), self.fcm_token()),
        }
        device_id, push_id = ids[platform]
        return {
            "customer_id": f"user-{self.number:05}",
            "device_id": device_id,
            "platform": platform,
            "push_id": push_id,
            "model": model,
            "app_version": random.choice(VERSIONS),
            "os_version": os_version,
            "moe_push_opted": "True" if random.random() < 0.8 else "False",
            "moe_push_provisional_opted": "False" if platform == "iOS" else "",
            "moe_gaid": self.uuid() if platform == "ANDROID" else "",
            "idfv": self.uuid().upper() if platform == "iOS" else "",
            "forwarded_for": self.address() if random.random() < 0.3 else "",
        }

    def fcm_token(self) -> str:
        """Make a token in the shape of Firebase's: an instance id, a colon, 140 characters."""
        letters = self.random.choices(BASE64URL, k=22 + 134)
        return "".join(letters[:22]) + ":APA91b" + "".join(letters[22:])

    def uuid(self) -> str:
        """Make a random UUID."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def address(self) -> str:
        """Take an address out of the ranges for documentation."""
        number = self.random.randrange(1, 255)
        return self.random.choice(
            (f"192.0.2.{number}", f"198.51.100.{number}", f"203.0.113.{number}", f"2001:db8::{number:x}")
        )


def clean_csv(devices: Devices) -> bytes:
    """Write a CSV as a database exports it: commas, LF, quotes only where they are needed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER, lineterminator="\n")
    writer.writeheader()
    writer.writerows(devices.device() for _ in range(ROWS))
    return text.getvalue().encode()


def clean_ndjson(devices: Devices) -> bytes:
    """Write NDJSON, the odd rows flat, the even ones as the Track Device API takes them."""
    lines = [
        as_line(flat(devices.device()) if index % 2 else api_shaped(devices.device())) for index in range(1, ROWS + 1)
    ]
    return b"".join(lines)


def flat(device: dict[str, str]) -> dict[str, object]:
    """Give a row without its empty fields."""
    return {name: value for name, value in device.items() if value}


def api_shaped(device: dict[str, str]) -> dict[str, object]:
    """Give a row in the API's own shape."""
    outside = ("customer_id", "device_id", "forwarded_for")
    attributes = {name: value for name, value in device.items() if value and name not in outside}
    return {
        "type": "device",
        **{name: device[name] for name in outside if device[name]},
        "attributes": attributes,
    }


def as_line(row: object) -> bytes:
    """Write one row as one line."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


# -- what happens to rows on their way ---------------------------------------------------------------------------------

# Every sixth row or so is changed in one of these ways, in turn.
HARMLESS_CHANGES: tuple[dict[str, str], ...] = (
    {"platform": "android"},
    {"platform": "IOS"},
    {"platform": "iPadOS", "push_id": "<{push_id}>"},
    {"customer_id": "  {customer_id} "},
    {"moe_push_opted": "yes"},
    {"moe_push_opted": "0"},
    {"moe_gaid": "00000000-0000-0000-0000-000000000000", "idfv": "00000000-0000-0000-0000-000000000000"},
    {"model": 'Galaxy Tab "Kids", 10.1"'},
    {"model": "Pixel 9\nPro XL"},
    {"model": "小米 14 Ultra; 5G"},
    {"app_version": "1.10"},
    {"customer_id": "12345.0"},
    {"customer_id": "1E+11"},
)
HARMFUL_CHANGES: tuple[dict[str, str], ...] = (
    {"customer_id": ""},
    {"customer_id": "NA"},
    {"customer_id": "guest"},
    {"customer_id": "7"},
    {"device_id": ""},
    {"platform": "Symbian"},
    {"platform": ""},
    {"push_id": "null"},
    {"push_id": "0000000000000000000000000000000000000000000000000000000000000000"},
    {"push_id": "-"},
    {"push_id": ""},
    {"moe_push_opted": "maybe"},
    {"forwarded_for": "example.com"},
)


def changed(device: dict[str, str], change: dict[str, str]) -> dict[str, str]:
    """Give the device with some values replaced; `{name}` in them stands for the value that was there."""
    return {**device, **{name: value.format(**device) for name, value in change.items()}}


def messy_devices(devices: Devices) -> list[dict[str, str]]:
    """Give 270 devices, some changed harmlessly and some not, and one in twenty a second time with a newer version."""
    rows = []
    for index in range(270):
        device = devices.device()
        if index % 6 == 2:
            device = changed(device, HARMLESS_CHANGES[index // 6 % len(HARMLESS_CHANGES)])
        elif index % 10 == 5:
            device = changed(device, HARMFUL_CHANGES[index // 10 % len(HARMFUL_CHANGES)])
        rows.append(device)
        if index % 20 == 0:
            rows.append({**device, "app_version": "8.0.0"})
    return rows


def messy_csv(devices: Devices) -> bytes:
    """Write what a spreadsheet makes of an export: a byte order mark, semicolons, CRLF, and rows that were edited."""
    lines = [b";".join(name.encode() for name in (*HEADER, "Notes"))]
    lines += [
        semicolons({**device, "Notes": "VIP" if index % 50 == 7 else ""})
        for index, device in enumerate(messy_devices(devices))
    ]
    odd = [semicolons({**devices.device(), "Notes": ""}) for _ in range(8)]
    for place, line in (
        (20, b";".join(odd[0].split(b";")[:4])),  # cells are missing
        (45, odd[1] + b";;"),  # too many cells
        (70, b""),
        (71, b"   "),
        (100, odd[2].replace(b";True;", b';"True;').replace(b";False;", b';"False;')),  # a quote that is never closed
        (130, odd[3].replace(b"user-", b"us\xe9r-")),  # Latin-1
        (160, odd[4].replace(b"user-", "usér-".encode())),  # the same in UTF-8
        (190, b'"' + odd[5].replace(b";", b'";', 1)),  # quotes where none are needed
        (210, b'"ann" ' + odd[6]),  # text behind a closing quote
        (240, odd[7].replace(b";", b",")),  # the wrong separator
        (255, b"Total;" + str(len(lines)).encode()),
    ):
        lines.insert(place, line)
    return b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n" + b"\r\n\r\n"


def semicolons(row: dict[str, str]) -> bytes:
    """Write one row with semicolons, without its line end."""
    text = io.StringIO()
    csv.DictWriter(text, (*HEADER, "Notes"), delimiter=";").writerow(row)
    return text.getvalue().encode().removesuffix(b"\r\n")


def messy_ndjson(devices: Devices) -> bytes:
    """Write what programs make of an export: numbers for ids, broken lines, and values that are no rows."""
    lines = [
        as_line(api_shaped(device) if index % 3 == 0 else flat(device))
        for index, device in enumerate(messy_devices(devices))
    ]
    odd = devices.device()
    row = flat(odd)
    for place, line in (
        (10, as_line({**row, "customer_id": 4000000000001, "push_id": devices.fcm_token()})),
        (25, as_line({**row, "customer_id": 12345.0})),
        (40, b"\n"),
        (41, b" \t \n"),
        (55, as_line(row)[:-40] + b"\n"),  # cut off
        (70, as_line(row).replace(b'"', b"'")),  # Python's quotes
        (85, as_line([row])),
        (100, b"null\n"),
        (101, b"42\n"),
        (102, b'"user-1"\n'),
        (115, as_line({**row, "moe_push_opted": True, "push_id": devices.fcm_token()})),
        (130, as_line({**row, "push_id": ["a", "b"]})),
        (145, as_line({**row, "model": None, "locale": "de_DE", "push_id": devices.fcm_token()})),
        (160, as_line({**api_shaped(odd), "push_id": "another"})),  # two tokens that contradict each other
        (175, as_line({**api_shaped(odd), "attributes": "{}"})),
        (190, as_line({**api_shaped(odd), "attributes": ["platform", "push_id"]})),
        (
            205,
            as_line({**row, "customer_id": "us\u00e9r-1", "push_id": devices.fcm_token()}).replace(
                b"\xc3\xa9", b"\xe9"
            ),
        ),
        (220, as_line({**row, "model": "x" * 129_000, "push_id": devices.fcm_token()})),  # more than a request may hold
        (235, as_line({**row, "push_id": devices.fcm_token()}).replace(b"\n", b"\r\n")),
        (250, as_line(row)[:-1] + as_line(row)),  # two rows in one line
        (265, b"{}\n"),
    ):
        lines.insert(place, line)
    return b"".join(lines) + b"\n\n"


# -- what other services export ----------------------------------------------------------------------------------------


def onesignal(devices: Devices) -> bytes:
    """Write OneSignal's CSV: numbers for device types, a flag that means its opposite, one column for both ad ids."""
    kinds = {"iOS": "0", "ANDROID": "1", "web": "5"}
    rows = []
    for index in range(20):
        device = devices.device()
        rows.append(
            {
                "id": devices.uuid(),
                "identifier": device["push_id"],
                "device_type": kinds[device["platform"]],
                "device_model": device["model"],
                "device_os": device["os_version"],
                "game_version": device["app_version"],
                "ad_id": "OptedOut" if index % 7 == 3 else device["moe_gaid"] or device["idfv"],
                "external_user_id": device["customer_id"],
                "invalid_identifier": "f" if device["moe_push_opted"] == "True" else "t",
                "last_active": f"2026-11-{1 + index:02} 08:{index:02}:00",
            }
        )
    for place, kind, change in (
        (3, "11", {"identifier": "ann@example.com", "device_model": "", "device_os": ""}),  # an e-mail address
        (8, "14", {"identifier": "+15550100", "device_model": "", "device_os": ""}),  # a phone number
        (12, "2", {"device_model": "KFTRWI", "ad_id": ""}),  # Amazon
        (15, "1", {"identifier": ""}),  # never asked for push
        (18, "9", {"device_model": "MacBookPro18,3", "ad_id": ""}),  # macOS: none of MoEngage's platforms
        (21, "1", {"external_user_id": ""}),  # nobody's
    ):
        row = {"identifier": devices.fcm_token(), "id": devices.uuid(), "device_type": kind, "ad_id": devices.uuid()}
        rows.insert(place, {**rows[0], "external_user_id": f"user-odd-{place}", **row, **change})
    return as_csv(rows)


def airship(devices: Devices) -> bytes:
    """Write Airship's channels: booleans and nothing as text."""
    lines = []
    for index in range(20):
        device = devices.device()
        channel = {
            "channel_id": devices.uuid(),
            "device_type": device["platform"].lower(),
            "opt_in": device["moe_push_opted"].lower(),
            "push_address": device["push_id"],
            "named_user_id": device["customer_id"],
            "last_registration": "2026-11-20T08:00:00",
        }
        changes: dict[int, dict[str, str | None]] = {
            4: {"device_type": "email", "push_address": "null"},
            7: {"device_type": "sms", "push_address": "None"},
            9: {"device_type": "amazon"},
            11: {"push_address": "None", "opt_in": "false"},
            13: {"named_user_id": "null"},
            15: {"push_address": "", "opt_in": "false"},
            17: {"opt_in": "null"},
            18: {"named_user_id": None},
        }
        lines.append(as_line({**channel, **changes.get(index, {})}))
    return b"".join(lines)


def segment(devices: Devices) -> bytes:
    """Write a warehouse's table: users as numbers and as texts, and events without a token."""
    lines = []
    for index in range(20):
        device = devices.device()
        number = int(device["customer_id"].removeprefix("user-"))
        row: dict[str, object] = {
            "id": f"api-{devices.random.getrandbits(64):016x}",
            "received_at": f"2026-11-20T08:{index:02}:00Z",
            "user_id": number if index % 3 else device["customer_id"],
            "context_device_id": device["device_id"],
            "context_device_token": None if index % 5 == 2 else device["push_id"],
            "context_device_type": "ios" if device["platform"] == "iOS" else "android",
            "context_device_model": device["model"],
            "context_device_advertising_id": device["moe_gaid"] or devices.uuid().upper(),
            "context_os_version": device["os_version"],
            "context_app_version": device["app_version"],
        }
        changes: dict[int, dict[str, object]] = {
            6: {"user_id": None},  # anonymous
            8: {"user_id": 6009.5},
            13: {"context_device_token": ""},
            16: {"context_device_advertising_id": "00000000-0000-0000-0000-000000000000"},
        }
        lines.append(as_line({**row, **changes.get(index, {})}))
    return b"".join(lines)


def braze(devices: Devices) -> bytes:
    """Write Braze's user profiles: devices and push tokens in arrays of their own, from none to four of them."""
    lines = []
    for index in range(12):
        owned = [devices.device() for _ in range((2, 1, 3, 0, 1, 4)[index % 6])]
        tokens = [
            {
                "app": "Shop",
                "platform": {"ANDROID": "Android", "iOS": "iOS", "web": "Web"}[device["platform"]],
                "token": device["push_id"],
                "device_id": device["device_id"],
                "notifications_enabled": device["moe_push_opted"] == "True",
            }
            for device in owned
        ]
        profiles: list[dict[str, object]] = [
            {
                "model": device["model"],
                "os": device["os_version"],
                "carrier": None,
                "idfv": device["idfv"] or None,
                "google_ad_id": device["moe_gaid"] or None,
                "device_id": device["device_id"],
                "ad_tracking_enabled": True,
            }
            for device in owned
        ]
        row: dict[str, object] = {
            "external_id": f"user-{devices.number:05}-{index}",
            "braze_id": f"{devices.random.getrandbits(96):024x}",
            "devices": profiles[::-1],
            "push_tokens": tokens,
        }
        changes: dict[int, dict[str, object]] = {
            2: {"push_tokens": tokens[1:]},  # a device without a token
            5: {"devices": profiles[2:]},  # tokens without a device
            8: {"push_tokens": [*tokens[:2], *({**token, "token": None} for token in tokens[2:])]},
            9: {"devices": None, "push_tokens": None},
            10: {"devices": "iPhone"},
        }
        lines.append(as_line({**row, **changes.get(index, {})}))
    return b"".join(lines)


def appmetrica(devices: Devices) -> bytes:
    """Write AppMetrica's CSV: a byte order mark, and a row each time that a token was reported."""
    rows = []
    for index in range(20):
        device = devices.device()
        apple = device["platform"] == "iOS"
        row = {
            "token": device["push_id"],
            "appmetrica_device_id": str(devices.random.getrandbits(63)),
            "google_aid": "" if apple else device["moe_gaid"] or devices.uuid(),
            "ios_ifv": device["idfv"],
            "os_name": "ios" if apple else "android",
            "os_version": device["os_version"],
            "device_model": device["model"],
            "profile_id": "" if index == 14 else device["customer_id"],
            "app_version_name": device["app_version"],
            "token_datetime": f"2026-11-20 08:{index:02}:00",
        }
        rows.append({**row, "token": ""} if index == 5 else row)
        if index % 4 == 1:  # the token was reported again, and once it was another one
            rows.append({**row, "token": devices.fcm_token() if index == 9 else row["token"]})
    return b"\xef\xbb\xbf" + as_csv(rows)


def batch(devices: Devices) -> bytes:
    """Write Batch's CSV of one platform's tokens, with semicolons."""
    rows = []
    for index in range(20):
        token = "" if index == 11 else f"{devices.random.getrandbits(256):064X}"
        rows.append({"push_token": token, "custom_id": "" if index == 6 else f"user-{9001 + index:05}"})
    return as_csv(rows, ";")


def moengage_export(devices: Devices) -> bytes:
    """Write what MoEngage itself takes and gives: nested and flat rows, users and events among them."""
    lines = []
    for index in range(20):
        device = devices.device()
        row = api_shaped(device) if index % 2 else flat(device)
        user = {"customer_id": device["customer_id"]}
        changes: dict[int, dict[str, object]] = {
            3: {"type": "customer", **user, "attributes": {"first_name": "Ann"}},
            6: {"uid": device["customer_id"], **{name: said for name, said in row.items() if name != "customer_id"}},
            10: {"type": "event", **user, "actions": [{"action": "purchase"}]},
            15: {"type": "device", **user, "device_id": device["device_id"], "attributes": {"platform": "iOS"}},
        }
        lines.append(as_line(changes.get(index, row)))
    return b"".join(lines)


def as_csv(rows: list[dict[str, str]], separator: str = ",") -> bytes:
    """Write CSV; the first row tells the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


if __name__ == "__main__":
    main()
