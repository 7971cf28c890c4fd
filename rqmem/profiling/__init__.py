"""Files that tell where memory goes: captures of memray (`captures`, `flamegraph`), snapshots of workers (`snapshots`).

All in one directory that is its owner's alone (`directory`), bounded in number and size. Nothing in here knows how
they come about (`rqmem.worker`). Reading order: `directory` -> `snapshots` -> `captures` -> `flamegraph`.
"""
