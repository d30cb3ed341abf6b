"""The client of the documentation sends what its page says."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

from postroad.api.app import MOUNT_PATH
from postroad.settings import AccessRole
from tests.api.installation import RECEIPT
from tests.api.server import ApiServer

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "send-messages-from-a-program.md"


async def test_the_client_of_the_page_sends_one_receipt(api: ApiServer) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    api.installation.launch(RECEIPT)
    environment = {
        **os.environ,
        "POSTROAD_API": f"{api.url}{MOUNT_PATH}",
        "POSTROAD_KEY": api.key(AccessRole.SEND),
        "NO_PROXY": "*",
    }
    for _ in range(2):
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "1\n"
    await api.installation.work()
    assert [mail["Subject"] for mail in api.installation.mailbox.mails] == ["Receipt 4711"]
