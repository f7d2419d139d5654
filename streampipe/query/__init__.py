"""What may be asked of a sample without decoding it.

``column`` values of which some are unknown · ``expression`` the language of ``where``, ``arrow`` conditions of pyarrow,
``condition`` either of them, on an index or on a sample · ``aliases`` one name for what datasets call by many · ``own``
facts of the user's own · ``split`` on which side of a split a sample is · ``cost`` what it costs of a budget.
"""
