"""A webhook receiver made of other people's libraries: reads requests from standard input, one JSON object a line with
`headers` and `body`, checks the signature with the secret in argv[1], and prints what it understood, one JSON object a
line. Ends with an error at the first that is not as its specification says."""

import json
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    body = request["body"].encode()
    webhook.verify(body, request["headers"])
    try:
        webhook.verify(body + b" ", request["headers"])
        sys.exit("a changed body was taken")
    except WebhookVerificationError:
        pass
    event = from_http_event(HTTPMessage(request["headers"], body))
    print(json.dumps({
        "id": event.get_id(),
        "source": event.get_source(),
        "type": event.get_type(),
        "subject": event.get_subject(),
        "time": event.get_time().isoformat(),
        "data": event.get_data(),
    }))
