"""Sending alerts on, to chat, mail or any other service that Apprise knows (extra ``notify``).

In a process of its own, which is neither a worker nor a horse: a service that hangs holds nobody up. It is a worker's
(`rqmem.worker.alert_sender`), or ``rqmem alerts deliver``. ``addresses`` says where to, ``service`` is the only module
that knows Apprise, ``messages`` words, ``delivery`` brings the alerts of the journal to one service, ``sender`` to all
of them. URLs are secrets: they are shown as ``alert URL 2 (slack://****)``.
"""
