"""A local HTTP server that speaks Retell's endpoints for calls: ``python -m seeds.retell_stand_in``.

    POST /v2/create-phone-call   as retell-sdk's client.call.create_phone_call sends it
    POST /create-batch-call      as client.batch_call.create_batch_call sends it
    POST /v3/list-calls          as client.call.list sends it, with some of its filters (`calls`)
    GET  /get-concurrency        as client.concurrency.retrieve sends it
    GET  /_record                counts of what it received
    GET  /_record/calls          the calls made, one JSON object a line

All of them want ``Authorization: Bearer KEY``. It binds the loopback interface only, keeps
everything in memory and never dials. Nothing in `jobs` imports this: jobs reach it by
``RETELL_BASE_URL``.

In a test: ``with StandIn() as stand_in: Retell(api_key=stand_in.api_key, base_url=stand_in.url)``.
``requests`` checks bodies, ``faults`` says what goes wrong, ``calls`` lists what was called, ``service``
decides, ``server`` speaks HTTP, ``__main__`` is the command.
"""

from seeds.retell_stand_in.faults import Faults
from seeds.retell_stand_in.server import StandIn

__all__ = ["Faults", "StandIn"]
