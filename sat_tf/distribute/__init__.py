"""Many devices: which processes compute together, how they find one another, what each device needs.

`cluster` and `channel` are standard library only, so that a wrong command line is answered at once.
"""
