"""What Schemathesis is told of a relay beside docs/openapi.json: how a device signs in, and what a body of frames looks like."""

import os
import urllib.request

import schemathesis
from hypothesis import strategies

# Where the test gives a token of a device that is signed in: requests may have signed out the one before.
TOKENS = os.environ["MOTET_TEST_TOKENS"]


@schemathesis.auth(refresh_interval=None)
class Device:
    def get(self, case, context):
        with urllib.request.urlopen(TOKENS) as answer:
            return answer.read().decode()

    def set(self, case, token, context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}


# Any bytes: what is no frame is answered by a frame, too.
schemathesis.openapi.media_type("application/vnd.motet", strategies.binary(max_size=4096))


@schemathesis.serializer("application/vnd.motet")
def frames(context, value):
    return value if isinstance(value, bytes) else str(value).encode()
