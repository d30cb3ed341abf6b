"""Delivery by SMTP: replies, pipelined sessions, and a pool of sessions for each endpoint."""
