"""Runs on Cloud Batch: machines as data, the job's specification, the service's client, and the supervisor.

Needs no torch: a laptop without it submits. Only `batch`, `logs` and `supervisor` need Google's libraries; every other
module is values in, values out.
"""
