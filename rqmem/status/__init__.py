"""How RQ and rqmem stand on one Redis: facts, read (`read`); what is wrong with them (`troubles`); shown (`screen`,
`schema`). For ``rqmem status``. Only reads.
"""
