"""The running of a stage: messages, ledgers, deadlines, launchers, manifests, plots.

Nothing here decides what a stage computes, so no code digest covers this folder: a change to a progress bar or to the
format of a ledger reruns nothing. The tests of bit-equality (kill and resume, several replicas, other shards) guard
that claim. Code that samples, grades, selects or trains does not belong here.
"""
