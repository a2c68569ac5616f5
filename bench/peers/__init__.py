"""What people use today, each with the chapter's pipeline, each in an environment of its own (`requirements-*.txt`).

Nothing here is ours: these modules are imported where Likewise is not installed.
"""
