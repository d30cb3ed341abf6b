"""Conditions on recipients: a closed language in the form of a SQL WHERE. ADR 0042.

``parse``      text to a tree, with the errors that a writer of conditions needs (imports sqlglot when it is called)
``dialect``    what sqlglot may recognise: tokens and operators
``translate``  sqlglot's nodes to the tree; nothing else passes
``functions``  the closed list of functions, and their arguments
``tree``       the tree, and its form as JSON for the store
``sql``        the tree as SQL for SQLite and PostgreSQL, with every value as a parameter
``values``     values of terms as SQL: text, numbers, dates
``person``     a recipient with memberships, touches and events, as plain Python
``load``       loads a person from the database
``holds``      the tree read in plain Python
``explain``    the clauses of a condition: their text, their truth and the value seen
``text``       the tree as text
"""
