"""Parts of `scripts.load_test`, in reading order.

`jobs` is what is run, `rules` judges what came of it, and both are values. `running` runs one job on one worker,
`sampling` reads its memory meanwhile, `outcomes` checks what became of each record; `naive` has the functions with
which the jobs are compared. `report` is the JSON, `page` the HTML.
"""
