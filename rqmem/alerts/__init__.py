"""Sending alerts on, to chat, mail or any other service that Apprise knows (extra ``notify``).

In a process of its own, ``rqmem alerts deliver``, which is neither a worker nor a horse: a service that hangs holds
nobody up. ``addresses`` says where to, ``service`` is the only module that knows Apprise, ``messages`` words,
``delivery`` brings the alerts of the journal to one service, ``sender`` to all of them; ``pipe`` is how a worker hears
of its sender (`rqmem.worker.alert_sender`). URLs are secrets: they are shown as ``alert URL 2 (slack://****)``.
"""
