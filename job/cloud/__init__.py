"""Runs on Cloud Batch: machines as data, the job's specification, the service's client, and the supervisor.

Needs no torch: a laptop without it submits. Only `batch` and `logs` import Google's libraries, on use; every other
module is values in, values out.
"""
