"""An async application: devices go to MoEngage as they come in, while the application does its other work.

    python samples/async_app.py

Where to and with which key comes from the environment: MOENGAGE_WORKSPACE_ID, MOENGAGE_API_KEY, MOENGAGE_DATA_CENTER.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping

from moe_bulk import Rate, Status, Uploader


async def logins() -> AsyncIterator[Mapping[str, object]]:
    """Stand in for your queue, cursor or websocket: one device now and then, one of them without its token."""
    for number in range(200):
        await asyncio.sleep(0.001)
        token = "" if number == 42 else f"token-{number}"
        yield {"customer_id": f"user-{number}", "device_id": f"phone-{number}", "platform": "android", "push_id": token}


async def serve() -> None:
    """Stand in for everything else that the application does."""
    for _ in range(1_000_000):
        await asyncio.sleep(0.01)


async def deliver(uploader: Uploader) -> None:
    """Send what comes in; reading the results slowly would slow the logins, and nothing would pile up."""
    counts: Counter[Status] = Counter()
    async with uploader.stream(logins()) as results:
        async for result in results:
            counts[result.status] += 1
            if result.failed:
                print(f"{result.customer_id} (number {result.position.line}) {result.status}: {result.reason}")
    print(", ".join(f"{count} {status}" for status, count in counts.items()))


async def main() -> None:
    """Leave some of the workspace's limit to others, deliver, and send a single device in between."""
    async with Uploader(rate=Rate(8_000, per=60)) as uploader:
        other_work = asyncio.create_task(serve())
        delivery = asyncio.create_task(deliver(uploader))
        phone = {"customer_id": "user-7", "device_id": "tablet-7", "platform": "iOS", "push_id": "token-7-tablet"}
        print(f"the tablet: {(await uploader.send(phone)).status}")
        await delivery
        other_work.cancel()


if __name__ == "__main__":
    asyncio.run(main())
