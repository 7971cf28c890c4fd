"""What a project's ``--preload`` is: Django set up before any horse is forked, and a query made with it."""

import os

import django

django.setup()

if os.environ.get("TEST_QUERY_AT_PRELOAD"):
    from tests.integrations.shop.models import Order

    Order.objects.count()
