"""`python -m dvsn.data init`: what lies in a folder, said in words, and the YAML files that train on it.

A recogniser is one file in this folder with two functions; it is found by being there.

- `look(listing: Listing) -> Found | None`: what of the folder it understands, or None. It may raise `DataError` where it is
  sure what is meant and that it cannot work (masks without photos). It writes nothing.
- `propose(found: Found, machine: Machine) -> Recipe`: the network, sizes and rates that fit, each with its reason.

The rest of the files are the frame: `listing`, `found`, `splits`, `machine`, `recipe`, `choose`, `write`, `command`.
"""
