"""Delivery by SMTP: replies, one pipelined session, a pool of them for each route."""
