"""Postroad: campaigns that people asked for, sent from infrastructure you own."""
