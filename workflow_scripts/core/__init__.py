"""The foundation: records, files, digests, the sandbox and text handling. It knows no stage, no task and no engine.

`core/running/` holds the code that decides how a stage runs but not what it computes.
"""
