# SPDX-License-Identifier: Apache-2.0
"""Trains the retrieval head of spectx by distilling the attention of the model that it serves."""

__version__ = "0.1.0"


class UserError(Exception):
    """What the caller can mend; its text is one line."""
